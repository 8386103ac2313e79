//! The portable back end: the RustCrypto crates, job by job. Also takes the shapes that no kernel
//! takes.

use super::one_shot::open_into;
use super::{
    CookieMake, CookieOpen, ReplyOpen, ReplySeal, RequestSeal, RequestVerify, TAG_BYTES, open_one,
    seal_one,
};

pub(super) fn open_cookie(job: &mut CookieOpen<'_>) {
    let (algorithm, key) = (job.key.algorithm(), job.key.expose_bytes());
    let fits = algorithm.accepts_nonce_bytes(job.nonce.len());
    job.passed = fits && open_into(algorithm, key, job.nonce, job.sealed, job.plain).is_ok();
    if !job.passed {
        job.plain.fill(0);
    }
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

pub(super) fn seal_request(job: &mut RequestSeal<'_>) {
    if job.tag.len() != TAG_BYTES {
        return job.tag.fill(0);
    }
    let (key, nonce, data) = (job.key, job.nonce, job.associated_data);
    // A job that cannot be sealed has been zeroed.
    let _ = seal_one(job.algorithm, key, nonce, data, job.tag);
}

pub(super) fn open_reply(job: &mut ReplyOpen<'_>) {
    let (key, nonce, data) = (job.key, job.nonce, job.associated_data);
    job.passed = open_one(job.algorithm, key, nonce, data, job.sealed).is_ok();
}
