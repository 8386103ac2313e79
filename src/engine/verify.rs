//! Stage 3, verify: check all authenticators together.

use arrayvec::ArrayVec;

use super::batch::{Datagram, InBatch, Lanes, Verdict, Verdicts, with_datagrams};
use super::outcome::Outcome;
use super::parse::Parsed;
use super::unlock::{Unlocked, refuse_the_rest};
use crate::aead::{Aead, Algorithm, RequestVerify, TAG_BYTES};
use crate::cookie::format::ClientKeys;
use crate::limits::{BATCH_DATAGRAMS, COOKIES_PER_REPLY};
use crate::wire::nts::{NtsFields, encrypted_placeholders};

/// An authentic request: its client holds the keys of its cookie, and nobody changed what stands
/// in front of the authenticator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verified {
    request: Unlocked,
    cookies_wanted: usize,
}

impl Verified {
    pub(super) fn fields(&self) -> &NtsFields {
        self.request.fields()
    }

    /// The client's AEAD.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.request.algorithm()
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
    unlocked: Lanes<Unlocked>,
    batch: &mut [Datagram<'_>],
    aead: &mut Aead,
    client_keys: &[ClientKeys; BATCH_DATAGRAMS],
    verdicts: &mut Verdicts,
) -> Lanes<Verified> {
    let padded = drop_unpadded(unlocked, verdicts);
    let passed = check(&padded, batch, aead, client_keys);
    let authentic: Lanes<Unlocked> =
        padded.iter().zip(passed).filter(|(_, passed)| *passed).map(|(lane, _)| *lane).collect();
    let tried: Lanes<Parsed> = padded.iter().map(|lane| *lane.request()).collect();
    refuse_the_rest(&tried, &authentic, batch, verdicts);
    count_cookies(authentic, batch, verdicts)
}

/// RFC 8915 section 5.6: a request without the required padding is discarded, not answered.
fn drop_unpadded(unlocked: Lanes<Unlocked>, verdicts: &mut Verdicts) -> Lanes<Unlocked> {
    let keep = |lane: &Unlocked| {
        let nonce_bytes = lane.algorithm().nonce_bytes();
        let padded = lane.fields().authenticator.has_required_padding(nonce_bytes);
        if !padded {
            verdicts[lane.place()] = Verdict::drop(Outcome::DroppedAuthenticator);
        }
        padded
    };
    unlocked.into_iter().filter(keep).collect()
}

fn check(
    lanes: &Lanes<Unlocked>,
    batch: &mut [Datagram<'_>],
    aead: &mut Aead,
    client_keys: &[ClientKeys; BATCH_DATAGRAMS],
) -> ArrayVec<bool, BATCH_DATAGRAMS> {
    let mut jobs: ArrayVec<RequestVerify<'_>, BATCH_DATAGRAMS> = with_datagrams(batch, lanes)
        .map(|(lane, datagram)| {
            let authenticator = &lane.fields().authenticator;
            let (before, sealed) = datagram.bytes[..authenticator.ciphertext.end()]
                .split_at_mut(authenticator.ciphertext.start());
            RequestVerify {
                algorithm: lane.algorithm(),
                key: client_keys[lane.place()].c2s(),
                nonce: &before[authenticator.nonce.range()],
                associated_data: &before[..authenticator.start],
                sealed,
                passed: false,
            }
        })
        .collect();
    aead.verify_requests(&mut jobs);
    jobs.iter().map(|job| job.passed).collect()
}

/// Adds the placeholders that were encrypted (RFC 8915 section 5.7 counts them alike).
fn count_cookies(
    authentic: Lanes<Unlocked>,
    batch: &[Datagram<'_>],
    verdicts: &mut Verdicts,
) -> Lanes<Verified> {
    let mut verified = Lanes::new();
    for request in authentic {
        let fields = request.fields();
        let ciphertext = &batch[request.place()].bytes[fields.authenticator.ciphertext.range()];
        let plaintext_start = request.algorithm().plaintext_offset();
        let plaintext = &ciphertext[plaintext_start..][..ciphertext.len() - TAG_BYTES];
        match encrypted_placeholders(plaintext, fields.cookie.len()) {
            Some(encrypted) => {
                let cookies_wanted = (1 + fields.placeholders + encrypted).min(COOKIES_PER_REPLY);
                verified.push(Verified { request, cookies_wanted });
            }
            None => {
                verdicts[request.place()] = Verdict::drop(Outcome::DroppedEncryptedFields);
            }
        }
    }
    verified
}
