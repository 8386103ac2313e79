//! Stage 4, verify: check all authenticators together.

use arrayvec::ArrayVec;

use super::Crypto;
use super::batch::{Datagram, InBatch, Lanes, Places, Verdict, Verdicts, with_datagrams};
use super::outcome::Outcome;
use super::parse::Parsed;
use super::unlock::{Unlocked, nak};
use crate::aead::{Algorithm, RequestVerify, TAG_BYTES};
use crate::limits::{BATCH_DATAGRAMS, COOKIES_PER_REPLY};
use crate::wire::nts::{NtsFields, encrypted_placeholders};

/// An authentic request: its client holds the keys of its cookie, and nobody changed what stands
/// in front of the authenticator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verified {
    request: Unlocked,
    cookies_wanted: usize,
    is_kissed: bool,
}

impl Verified {
    pub(super) fn fields(&self) -> &NtsFields {
        self.request.fields()
    }

    /// The client's AEAD.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.request.algorithm()
    }

    /// Makes its reply a kiss: its client has asked too often.
    pub(super) fn kiss(&mut self) {
        self.is_kissed = true;
    }

    /// Whether its reply is a kiss.
    pub(super) fn is_kissed(&self) -> bool {
        self.is_kissed
    }

    /// One for the cookie that came, one for each placeholder, 8 at most.
    pub(super) fn cookies_wanted(&self) -> usize {
        self.cookies_wanted
    }
}

impl InBatch for Verified {
    fn place(&self) -> usize {
        self.request.place()
    }
}

/// Checks the requests under their clients' C2S keys and decrypts what they hold, in place. A
/// request that fails gets an NTS NAK; one that breaks a rule after all is dropped.
pub(super) fn verify(
    parsed: &Lanes<Parsed>,
    unlocked: &mut Lanes<Unlocked>,
    batch: &mut [Datagram<'_>],
    crypto: &mut Crypto,
    verdicts: &mut Verdicts,
    verified: &mut Lanes<Verified>,
) {
    unlocked.retain(|lane| is_padded(lane, verdicts));
    let refused = check(unlocked, batch, crypto);
    if !refused.is_empty() {
        unlocked.retain(|lane| !refused.contains(lane.place()));
        nak(parsed, refused, batch, verdicts);
    }
    verified.clear();
    for request in unlocked {
        match count_cookies(request, batch[request.place()].bytes) {
            Some(cookies_wanted) => {
                verified.push(Verified { request: *request, cookies_wanted, is_kissed: false });
            }
            None => {
                verdicts[request.place()] = Verdict::drop(Outcome::DroppedEncryptedFields);
            }
        }
    }
}

/// RFC 8915 section 5.6: a request without the required padding is discarded, not answered.
fn is_padded(lane: &Unlocked, verdicts: &mut Verdicts) -> bool {
    let nonce_bytes = lane.algorithm().nonce_bytes();
    let is_padded = lane.fields().authenticator.has_required_padding(nonce_bytes);
    if !is_padded {
        verdicts[lane.place()] = Verdict::drop(Outcome::DroppedAuthenticator);
    }
    is_padded
}

/// The places of those that are not authentic.
fn check(unlocked: &Lanes<Unlocked>, batch: &mut [Datagram<'_>], crypto: &mut Crypto) -> Places {
    let mut jobs: ArrayVec<RequestVerify<'_>, BATCH_DATAGRAMS> = ArrayVec::new();
    for (lane, datagram) in with_datagrams(batch, unlocked) {
        let authenticator = &lane.fields().authenticator;
        let (before, sealed) = datagram.bytes[..authenticator.ciphertext.end()]
            .split_at_mut(authenticator.ciphertext.start());
        jobs.push(RequestVerify {
            algorithm: lane.algorithm(),
            key: crypto.client_keys[lane.place()].c2s(),
            nonce: &before[authenticator.nonce.range()],
            associated_data: &before[..authenticator.start],
            sealed,
            passed: false,
        });
    }
    crypto.aead.verify_requests(&mut jobs);
    let mut refused = Places::default();
    for (lane, job) in unlocked.iter().zip(&jobs) {
        refused.insert_if(!job.passed, lane.place());
    }
    refused
}

/// One for the cookie that came and one for each placeholder, encrypted ones too (RFC 8915
/// section 5.7 counts them alike); `None` if what was encrypted is no sequence of fields.
fn count_cookies(request: &Unlocked, bytes: &[u8]) -> Option<usize> {
    let fields = request.fields();
    let ciphertext = &bytes[fields.authenticator.ciphertext.range()];
    let plaintext =
        &ciphertext[request.algorithm().plaintext_offset()..][..ciphertext.len() - TAG_BYTES];
    let encrypted = encrypted_placeholders(plaintext, fields.cookie.len())?;
    Some((1 + fields.placeholders + encrypted).min(COOKIES_PER_REPLY))
}
