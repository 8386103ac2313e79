//! Stage 3, unlock: find the master keys and open all cookies together.

use arrayvec::ArrayVec;

use super::Crypto;
use super::batch::{Datagram, InBatch, Lanes, Places, Verdict, Verdicts};
use super::outcome::Outcome;
use super::parse::{Parsed, move_identifier};
use crate::aead::{Algorithm, CookieOpen};
use crate::cookie::format;
use crate::cookie::ring::KeyRing;
use crate::limits::BATCH_DATAGRAMS;
use crate::wire::ntp::HEADER_BYTES;
use crate::wire::nts::NtsFields;

/// A request whose cookie was opened: the keys in its place are a client's. Whether that client
/// sent this request is not yet known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unlocked {
    request: Parsed,
    algorithm: Algorithm,
    key_place: u8,
}

impl Unlocked {
    pub(super) fn fields(&self) -> &NtsFields {
        self.request.fields()
    }

    /// The client's AEAD.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The place of its cookie's master key in the ring, oldest first.
    pub(super) fn key_place(&self) -> usize {
        usize::from(self.key_place)
    }
}

impl InBatch for Unlocked {
    fn place(&self) -> usize {
        self.request.place()
    }
}

/// Opens the cookies into the client keys, each in its request's place. A request whose cookie does
/// not open gets an NTS NAK.
pub(super) fn unlock(
    parsed: &Lanes<Parsed>,
    batch: &mut [Datagram<'_>],
    keys: &KeyRing,
    crypto: &mut Crypto,
    verdicts: &mut Verdicts,
    unlocked: &mut Lanes<Unlocked>,
) {
    unlocked.clear();
    let mut refused = Places::default();
    let mut jobs: ArrayVec<CookieOpen<'_>, BATCH_DATAGRAMS> = ArrayVec::new();
    let mut clients = crypto.client_keys.iter_mut().enumerate();
    for request in parsed {
        let cookie = &batch[request.place()].bytes[request.fields().cookie.range()];
        let key_place = format::key_id(cookie).and_then(|id| keys.place(id));
        let sealed = key_place.and_then(|place| {
            let key = &keys.keys()[place];
            Some((place, key, format::split(cookie, key.algorithm())?))
        });
        let Some((key_place, key, sealed)) = sealed else {
            refused.insert_if(true, request.place());
            continue;
        };
        let (_, client) = clients
            .find(|(place, _)| *place == request.place())
            .expect("lanes are in the order of the batch");
        let (algorithm, key_place) = (sealed.client, key_place as u8);
        unlocked.push(Unlocked { request: *request, algorithm, key_place });
        jobs.push(CookieOpen {
            key,
            nonce: sealed.nonce,
            sealed: sealed.sealed,
            plain: client.pair_mut(sealed.client),
            passed: false,
        });
    }
    crypto.aead.open_cookies(&mut jobs);
    for (lane, job) in unlocked.iter().zip(&jobs) {
        refused.insert_if(!job.passed, lane.place());
    }
    drop(jobs);
    if !refused.is_empty() {
        unlocked.retain(|lane| !refused.contains(lane.place()));
        nak(parsed, refused, batch, verdicts);
    }
}

/// RFC 8915 section 5.7: a request that fails authentication is told so by an NTS NAK, which
/// carries the unique identifier, no cookie and no authenticator.
pub(super) fn nak(
    parsed: &Lanes<Parsed>,
    refused: Places,
    batch: &mut [Datagram<'_>],
    verdicts: &mut Verdicts,
) {
    for request in parsed.iter().filter(|request| refused.contains(request.place())) {
        let identifier = request.fields().unique_identifier;
        move_identifier(batch[request.place()].bytes, identifier);
        verdicts[request.place()] =
            Verdict::reply(Outcome::NtsNak, HEADER_BYTES + identifier.len());
    }
}
