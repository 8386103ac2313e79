//! Stage 7, seal: encrypt and authenticate all replies together.

use arrayvec::ArrayVec;

use super::Crypto;
use super::batch::{Datagram, InBatch, Lanes, with_datagrams};
use super::renew::Renewed;
use crate::aead::ReplySeal;
use crate::limits::BATCH_DATAGRAMS;

/// Seals the replies under their clients' S2C keys, in place. The associated data is all that
/// stands in front of the authenticator, stamped header included (RFC 8915 section 5.6).
pub(super) fn seal(renewed: &Lanes<Renewed>, batch: &mut [Datagram<'_>], crypto: &mut Crypto) {
    let mut jobs: ArrayVec<ReplySeal<'_>, BATCH_DATAGRAMS> = ArrayVec::new();
    for (lane, datagram) in with_datagrams(batch, renewed) {
        let authenticator = lane.authenticator();
        let (before, text) = datagram.bytes[..authenticator.ciphertext.end()]
            .split_at_mut(authenticator.ciphertext.start());
        jobs.push(ReplySeal {
            algorithm: lane.algorithm(),
            key: crypto.client_keys[lane.place()].s2c(),
            nonce: &before[authenticator.nonce.range()],
            associated_data: &before[..authenticator.start],
            text,
        });
    }
    crypto.aead.seal_replies(&mut jobs);
}
