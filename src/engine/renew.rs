//! Stage 5, renew: lay the replies out and make all fresh cookies together, in place.

use arrayvec::ArrayVec;

use super::Crypto;
use super::batch::{Datagram, InBatch, Lanes, Verdict, Verdicts, with_datagrams};
use super::outcome::Outcome;
use super::parse::move_identifier;
use super::verify::Verified;
use crate::aead::{Algorithm, CookieMake, MasterKey, NonceGenerator, TAG_BYTES};
use crate::cookie::format::{self, ClientKeys, cookie_bytes};
use crate::cookie::ring::KeyRing;
use crate::limits::{BATCH_DATAGRAMS, COOKIES_PER_REPLY, NONCE_BYTES_MAX};
use crate::wire::extension::{FIELD_HEADER_BYTES, field_type, put_field_header};
use crate::wire::ntp::HEADER_BYTES;
use crate::wire::nts::AuthenticatorLayout;

/// A request that has become a reply but for header and seal: identifier, fresh nonce, and
/// fresh cookies in the clear where the seal will cover them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewed {
    place: u8,
    algorithm: Algorithm,
    cookies: u8,
    authenticator: AuthenticatorLayout,
}

impl Renewed {
    /// The client's AEAD.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How many cookies the reply holds.
    pub(super) fn cookies(&self) -> usize {
        usize::from(self.cookies)
    }

    /// Where the parts of the authenticator lie.
    pub(super) fn authenticator(&self) -> &AuthenticatorLayout {
        &self.authenticator
    }
}

impl InBatch for Renewed {
    fn place(&self) -> usize {
        usize::from(self.place)
    }
}

/// Turns every verified request into a reply that is as long as the request.
pub(super) fn renew(
    verified: &Lanes<Verified>,
    batch: &mut [Datagram<'_>],
    keys: &KeyRing,
    nonces: &mut NonceGenerator,
    crypto: &mut Crypto,
    verdicts: &mut Verdicts,
    renewed: &mut Lanes<Renewed>,
) {
    let master = keys.current();
    renewed.clear();
    let mut jobs: ArrayVec<CookieMake<'_>, { BATCH_DATAGRAMS * COOKIES_PER_REPLY }> =
        ArrayVec::new();
    for (request, datagram) in with_datagrams(batch, verified) {
        let place = request.place();
        let bytes = &mut *datagram.bytes;
        let reply = plan(request, bytes.len(), master.algorithm());
        let outcome = if request.is_kissed() { Outcome::KissRateNts } else { Outcome::AnsweredNts };
        verdicts[place] = Verdict::reply(outcome, reply.authenticator.end);
        move_identifier(bytes, request.fields().unique_identifier);
        reply.authenticator.put_frame(bytes);
        nonces.fill(&mut bytes[reply.authenticator.nonce.range()]);
        let fields = cookie_fields(&reply, bytes);
        push_cookies(
            fields,
            reply.cookies(),
            master,
            &crypto.client_keys[place],
            nonces,
            &mut jobs,
        );
        renewed.push(reply);
    }
    crypto.aead.make_cookies(&mut jobs);
}

/// The reply: header, identifier, authenticator with as many of the wanted cookies as fit. It is
/// padded to the request's length (RFC 8915 section 5.7 wants them equal), which is no padding at
/// all while cookies keep their length and the request has no other fields.
fn plan(request: &Verified, request_bytes: usize, master: Algorithm) -> Renewed {
    let algorithm = request.algorithm();
    let start = HEADER_BYTES + request.fields().unique_identifier.len();
    let field_bytes = FIELD_HEADER_BYTES + cookie_bytes(master, algorithm);
    let empty_end = start + AuthenticatorLayout::bytes(algorithm.nonce_bytes(), TAG_BYTES);
    // Never negative: the request's own authenticator has room for nonce and tag.
    let cookies = ((request_bytes - empty_end) / field_bytes).min(request.cookies_wanted());
    let ciphertext_bytes = TAG_BYTES + cookies * field_bytes;
    Renewed {
        place: request.place() as u8,
        algorithm,
        cookies: cookies as u8,
        authenticator: AuthenticatorLayout::new(
            start,
            algorithm.nonce_bytes(),
            ciphertext_bytes,
            request_bytes,
        ),
    }
}

/// The place of the cookie fields inside the ciphertext.
fn cookie_fields<'b>(reply: &Renewed, bytes: &'b mut [u8]) -> &'b mut [u8] {
    let ciphertext = &mut bytes[reply.authenticator.ciphertext.range()];
    let fields_bytes = ciphertext.len() - TAG_BYTES;
    &mut ciphertext[reply.algorithm.plaintext_offset()..][..fields_bytes]
}

fn push_cookies<'j, const N: usize>(
    fields: &'j mut [u8],
    cookies: usize,
    master: &'j MasterKey,
    keys: &'j ClientKeys,
    nonces: &mut NonceGenerator,
    jobs: &mut ArrayVec<CookieMake<'j>, N>,
) {
    let cookie_bytes = cookie_bytes(master.algorithm(), keys.algorithm());
    let fields = fields.chunks_exact_mut(FIELD_HEADER_BYTES + cookie_bytes);
    debug_assert_eq!(fields.len(), cookies);
    for field in fields {
        put_field_header(field, 0, field_type::NTS_COOKIE, cookie_bytes);
        let mut nonce = [0; NONCE_BYTES_MAX];
        let nonce = &mut nonce[..master.algorithm().nonce_bytes()];
        nonces.fill(nonce);
        jobs.push(format::prepare(&mut field[FIELD_HEADER_BYTES..], master, nonce, keys));
    }
}
