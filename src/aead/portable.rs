//! The portable back end: the RustCrypto crates, job by job. Also takes the shapes that no kernel
//! takes.

use zeroize::Zeroizing;

use super::{CookieMake, CookieOpen, ReplySeal, RequestVerify, TAG_BYTES, open_one, seal_one};
use crate::limits::CLIENT_KEYS_BYTES_MAX;

pub(super) fn open_cookie(job: &mut CookieOpen<'_>) {
    job.passed = false;
    job.plain.fill(0);
    if job.sealed.len() != job.plain.len() + TAG_BYTES {
        return;
    }
    let algorithm = job.key.algorithm();
    // On the stack: the packet path allocates nothing.
    let mut buffer = Zeroizing::new([0; CLIENT_KEYS_BYTES_MAX + TAG_BYTES]);
    let Some(text) = buffer.get_mut(..job.sealed.len()) else { return };
    text.copy_from_slice(job.sealed);
    let opened = open_one(algorithm, job.key.expose_bytes(), job.nonce, &[], text);
    let plain = &text[algorithm.plaintext_offset()..][..job.plain.len()];
    job.plain.copy_from_slice(plain);
    job.passed = opened.is_ok();
}

pub(super) fn verify_request(job: &mut RequestVerify<'_>) {
    let (key, nonce, data) = (job.key, job.nonce, job.associated_data);
    job.passed = open_one(job.algorithm, key, nonce, data, job.sealed).is_ok();
}

pub(super) fn make_cookie(job: &mut CookieMake<'_>) {
    job.sealed.fill(0);
    if job.sealed.len() != job.plain.len() + TAG_BYTES {
        return;
    }
    let algorithm = job.key.algorithm();
    job.sealed[algorithm.plaintext_offset()..][..job.plain.len()].copy_from_slice(job.plain);
    // A job that cannot be sealed has been zeroed: nothing can leak.
    let _ = seal_one(algorithm, job.key.expose_bytes(), job.nonce, &[], job.sealed);
}

pub(super) fn seal_reply(job: &mut ReplySeal<'_>) {
    let (key, nonce, data) = (job.key, job.nonce, job.associated_data);
    // A job that cannot be sealed has been zeroed: nothing can leak.
    let _ = seal_one(job.algorithm, key, nonce, data, job.text);
}
