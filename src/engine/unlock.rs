//! Stage 2, unlock: find the master keys and open all cookies together.

use arrayvec::ArrayVec;

use super::batch::{Datagram, InBatch, Lanes, Verdict, Verdicts};
use super::outcome::Outcome;
use super::parse::{Parsed, move_identifier};
use crate::aead::{Aead, Algorithm, CookieOpen};
use crate::cookie::format::{self, ClientKeys};
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
}

impl Unlocked {
    pub(super) fn request(&self) -> &Parsed {
        &self.request
    }

    pub(super) fn fields(&self) -> &NtsFields {
        self.request.fields()
    }

    /// The client's AEAD.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl InBatch for Unlocked {
    fn place(&self) -> usize {
        self.request.place()
    }
}

/// Opens the cookies into `client_keys`, each in its request's place. A request whose cookie does
/// not open gets an NTS NAK.
pub(super) fn unlock(
    parsed: Lanes<Parsed>,
    batch: &mut [Datagram<'_>],
    keys: &KeyRing,
    aead: &mut Aead,
    client_keys: &mut [ClientKeys; BATCH_DATAGRAMS],
    verdicts: &mut Verdicts,
) -> Lanes<Unlocked> {
    let mut candidates: Lanes<Unlocked> = Lanes::new();
    let mut jobs: ArrayVec<CookieOpen<'_>, BATCH_DATAGRAMS> = ArrayVec::new();
    let mut places = client_keys.iter_mut().enumerate();
    for request in &parsed {
        let cookie = &batch[request.place()].bytes[request.fields().cookie.range()];
        let master = format::key_id(cookie).and_then(|id| keys.find(id));
        let sealed = master.and_then(|key| Some((key, format::split(cookie, key.algorithm())?)));
        let Some((key, sealed)) = sealed else { continue };
        let (_, client) = places
            .find(|(place, _)| *place == request.place())
            .expect("lanes are in the order of the batch");
        candidates.push(Unlocked { request: *request, algorithm: sealed.client });
        jobs.push(CookieOpen {
            key,
            nonce: sealed.nonce,
            sealed: sealed.sealed,
            plain: client.pair_mut(sealed.client),
            passed: false,
        });
    }
    aead.open_cookies(&mut jobs);

    let passed: ArrayVec<bool, BATCH_DATAGRAMS> = jobs.iter().map(|job| job.passed).collect();
    drop(jobs);
    let opened: Lanes<Unlocked> = candidates
        .iter()
        .zip(passed)
        .filter(|(_, passed)| *passed)
        .map(|(lane, _)| *lane)
        .collect();
    refuse_the_rest(&parsed, &opened, batch, verdicts);
    opened
}

/// NAKs every request of `before` that is not among `after`. Both are in the order of the batch.
pub(super) fn refuse_the_rest<A: InBatch>(
    before: &[Parsed],
    after: &[A],
    batch: &mut [Datagram<'_>],
    verdicts: &mut Verdicts,
) {
    let mut after = after.iter().map(InBatch::place).peekable();
    for request in before {
        if after.next_if_eq(&request.place()).is_none() {
            verdicts[request.place()] = nak(request, batch);
        }
    }
}

/// RFC 8915 section 5.7: a request that fails authentication is told so by an NTS NAK, which
/// carries the unique identifier, no cookie and no authenticator.
fn nak(request: &Parsed, batch: &mut [Datagram<'_>]) -> Verdict {
    let identifier = request.fields().unique_identifier;
    move_identifier(batch[request.place()].bytes, identifier);
    Verdict::reply(Outcome::NtsNak, HEADER_BYTES + identifier.len())
}
