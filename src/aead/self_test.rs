//! Known answers, checked on the chosen back end before any socket opens.
//!
//! The answers were computed with OpenSSL, independent of both our kernels and the crates behind
//! the portable path. Batches are of all the sizes that make a different kernel run, and the last
//! lane of each is forged once.

use super::{
    Aead, Algorithm, Backend, CookieMake, CookieOpen, MasterKey, ReplyOpen, ReplySeal, RequestSeal,
    RequestVerify, TAG_BYTES, open_one, seal_one,
};

/// A back end that does not compute what it should. The server must not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {backend} back end fails its known-answer test: {what} with {algorithm}")]
pub struct SelfTestError {
    /// The back end under test.
    pub backend: Backend,
    /// The operation that gave a wrong answer.
    pub what: &'static str,
    /// Its algorithm.
    pub algorithm: Algorithm,
}

/// Checks each of the six operations against a known answer, in every size of batch that makes a
/// difference, and that a forged message is refused alone.
pub fn self_test(aead: &mut Aead) -> Result<(), SelfTestError> {
    let checks: [Check; 6] = [
        ("making cookies", make_cookies),
        ("opening cookies", open_cookies),
        ("verifying requests", verify_requests),
        ("sealing replies", seal_replies),
        ("sealing requests", seal_requests),
        ("opening replies", open_replies),
    ];
    let backend = aead.backend();
    for known in [&AES_SIV, &AES_GCM_SIV] {
        for (what, check) in checks {
            if !BATCHES.iter().all(|jobs| check(aead, known, *jobs)) {
                return Err(SelfTestError { backend, what, algorithm: known.algorithm });
            }
        }
    }
    if !portable_algorithm() {
        let (what, algorithm) = ("sealing and opening", Algorithm::AesSivCmac512);
        return Err(SelfTestError { backend, what, algorithm });
    }
    Ok(())
}

/// What is checked, and how with a batch of so many jobs.
type Check = (&'static str, fn(&mut Aead, &Known, usize) -> bool);

/// Messages of one algorithm, and what they must become.
struct Known {
    algorithm: Algorithm,
    /// Master key, C2S key and S2C key.
    key: &'static [u8],
    nonce: &'static [u8],
    /// The keys in the cookie.
    plain: &'static [u8],
    /// The cookie, no associated data.
    cookie: &'static [u8],
    /// Associated data of a request with no plaintext.
    request: &'static [u8],
    request_tag: [u8; TAG_BYTES],
    /// Associated data of the reply.
    header: &'static [u8],
    /// Plaintext of the reply.
    text: &'static [u8],
    reply: &'static [u8],
}

fn make_cookies(aead: &mut Aead, known: &Known, jobs: usize) -> bool {
    let Ok(key) = MasterKey::new(1, known.algorithm, known.key) else { return false };
    let mut sealed = vec![vec![0; known.cookie.len()]; jobs];
    let mut batch: Vec<_> = (sealed.iter_mut())
        .map(|sealed| CookieMake { key: &key, nonce: known.nonce, plain: known.plain, sealed })
        .collect();
    aead.make_cookies(&mut batch);
    sealed.iter().all(|sealed| sealed == known.cookie)
}

fn open_cookies(aead: &mut Aead, known: &Known, jobs: usize) -> bool {
    let Ok(key) = MasterKey::new(1, known.algorithm, known.key) else { return false };
    let mut sealed = vec![known.cookie.to_vec(); jobs];
    sealed[jobs - 1][known.cookie.len() - 1] ^= 1;
    let mut plain = vec![vec![0; known.plain.len()]; jobs];
    let mut batch: Vec<_> = (sealed.iter().zip(&mut plain))
        .map(|(sealed, plain)| CookieOpen {
            key: &key,
            nonce: known.nonce,
            sealed,
            plain,
            passed: false,
        })
        .collect();
    aead.open_cookies(&mut batch);
    let [front @ .., forged] = batch.as_slice() else { return false };
    !forged.passed
        && forged.plain.iter().all(|byte| *byte == 0)
        && front.iter().all(|job| job.passed && job.plain == known.plain)
}

fn verify_requests(aead: &mut Aead, known: &Known, jobs: usize) -> bool {
    let mut tags = vec![known.request_tag; jobs];
    tags[jobs - 1][0] ^= 0x80;
    let mut batch: Vec<_> = (tags.iter_mut())
        .map(|sealed| RequestVerify {
            algorithm: known.algorithm,
            key: known.key,
            nonce: known.nonce,
            associated_data: known.request,
            sealed,
            passed: false,
        })
        .collect();
    aead.verify_requests(&mut batch);
    let [front @ .., forged] = batch.as_slice() else { return false };
    !forged.passed && front.iter().all(|job| job.passed)
}

fn seal_replies(aead: &mut Aead, known: &Known, jobs: usize) -> bool {
    let mut texts = vec![vec![0; known.reply.len()]; jobs];
    let offset = known.algorithm.plaintext_offset();
    let mut batch: Vec<_> = (texts.iter_mut())
        .map(|text| {
            text[offset..][..known.text.len()].copy_from_slice(known.text);
            ReplySeal {
                algorithm: known.algorithm,
                key: known.key,
                nonce: known.nonce,
                associated_data: known.header,
                text,
            }
        })
        .collect();
    aead.seal_replies(&mut batch);
    texts.iter().all(|text| text == known.reply)
}

fn seal_requests(aead: &mut Aead, known: &Known, jobs: usize) -> bool {
    let mut tags = vec![[0; TAG_BYTES]; jobs];
    let mut batch: Vec<_> = (tags.iter_mut())
        .map(|tag| RequestSeal {
            algorithm: known.algorithm,
            key: known.key,
            nonce: known.nonce,
            associated_data: known.request,
            tag,
        })
        .collect();
    aead.seal_requests(&mut batch);
    tags.iter().all(|tag| *tag == known.request_tag)
}

fn open_replies(aead: &mut Aead, known: &Known, jobs: usize) -> bool {
    let mut texts = vec![known.reply.to_vec(); jobs];
    texts[jobs - 1][known.reply.len() - 1] ^= 1;
    let text_range = known.algorithm.plaintext_offset()..;
    let mut batch: Vec<_> = (texts.iter_mut())
        .map(|sealed| ReplyOpen {
            algorithm: known.algorithm,
            key: known.key,
            nonce: known.nonce,
            associated_data: known.header,
            sealed,
            passed: false,
        })
        .collect();
    aead.open_replies(&mut batch);
    let [front @ .., forged] = batch.as_slice() else { return false };
    !forged.passed
        && forged.sealed.iter().all(|byte| *byte == 0)
        && front
            .iter()
            .all(|job| job.passed && job.sealed[text_range.clone()].starts_with(known.text))
}

/// AES-SIV-CMAC-512, which has no kernels.
fn portable_algorithm() -> bool {
    let algorithm = Algorithm::AesSivCmac512;
    let mut text = [0; 48];
    text[16..].copy_from_slice(&counted::<32>(7));
    let (key, nonce, data) = (counted::<64>(0), counted::<16>(200), counted::<20>(0));
    seal_one(algorithm, &key, &nonce, &data, &mut text).is_ok()
        && text == SIV_512
        && open_one(algorithm, &key, &nonce, &data, &mut text).is_ok()
        && text[16..] == counted::<32>(7)
}

/// Bytes that count up.
const fn counted<const BYTES: usize>(first: u8) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let mut index = 0;
    while index < BYTES {
        bytes[index] = first.wrapping_add(index as u8);
        index += 1;
    }
    bytes
}

/// One job for the narrow path, two, then one more than fill 1, 2 and 4 registers of any width.
const BATCHES: [usize; 7] = [1, 2, 3, 5, 9, 16, 33];

const AES_SIV: Known = Known {
    algorithm: Algorithm::AesSivCmac256,
    key: &counted::<32>(0),
    nonce: &counted::<16>(200),
    plain: &counted::<64>(64),
    cookie: &COOKIE,
    request: &counted::<188>(0),
    request_tag: REQUEST_TAG,
    header: &counted::<84>(0),
    text: &counted::<104>(100),
    reply: &REPLY,
};

const AES_GCM_SIV: Known = Known {
    algorithm: Algorithm::Aes128GcmSiv,
    key: &counted::<16>(0),
    nonce: &counted::<12>(200),
    plain: &counted::<32>(64),
    cookie: &GCM_SIV_COOKIE,
    request: &counted::<156>(0),
    request_tag: GCM_SIV_REQUEST_TAG,
    header: &counted::<84>(0),
    text: &counted::<72>(100),
    reply: &GCM_SIV_REPLY,
};

/// Key 0…31, no associated data, plaintext 64…127.
const COOKIE: [u8; 80] = [
    0x1d, 0xca, 0x0a, 0xd0, 0x26, 0x08, 0x0e, 0xd0, 0x32, 0x1f, 0x46, 0x7d, 0xee, 0x74, 0x84, 0x88,
    0x9d, 0x61, 0xc9, 0x60, 0xa1, 0x20, 0xa4, 0xd6, 0x06, 0x43, 0x09, 0xd0, 0xef, 0x59, 0xba, 0xb2,
    0x39, 0x42, 0x03, 0xb4, 0x01, 0x9f, 0xad, 0xda, 0xdc, 0x03, 0x1f, 0xa5, 0xf2, 0x4c, 0xe8, 0x3a,
    0x11, 0xf4, 0xe6, 0x0d, 0x7b, 0x9e, 0xc9, 0x53, 0xe7, 0x8b, 0x1f, 0x91, 0x61, 0xa9, 0x1b, 0x87,
    0x34, 0x16, 0x87, 0xca, 0x5d, 0x27, 0x88, 0x08, 0x64, 0x6b, 0x1e, 0x60, 0x37, 0x92, 0xd5, 0xb3,
];

/// Key 0…31, associated data 0…187, no plaintext.
const REQUEST_TAG: [u8; 16] = [
    0xa1, 0x49, 0x0d, 0x9b, 0xcc, 0xcb, 0x85, 0xd1, 0xda, 0xcf, 0x37, 0x2e, 0xa2, 0x6b, 0x3d, 0x80,
];

/// Key 0…31, associated data 0…83, plaintext 100…203.
const REPLY: [u8; 120] = [
    0x2b, 0xf6, 0xee, 0x08, 0x89, 0x98, 0xe5, 0xae, 0x8e, 0xd1, 0x6b, 0xfe, 0xf8, 0x6c, 0xea, 0xd4,
    0xaf, 0x60, 0xe3, 0x34, 0xb0, 0x9e, 0x3d, 0x62, 0x52, 0x30, 0x66, 0xe7, 0x53, 0x1e, 0x05, 0x9e,
    0x06, 0x24, 0x3b, 0xe2, 0x34, 0xe4, 0x81, 0x3f, 0x56, 0x2f, 0xa0, 0x71, 0x5c, 0x4e, 0xa0, 0x2b,
    0x46, 0x93, 0xe4, 0xd2, 0x3b, 0x03, 0x48, 0xb3, 0x87, 0x4a, 0x66, 0x0d, 0xf3, 0x3a, 0x8f, 0xbb,
    0x39, 0xfa, 0x8c, 0xe5, 0x92, 0xd8, 0xbb, 0xcb, 0x5c, 0x15, 0xaf, 0x91, 0x4f, 0x3b, 0xdd, 0x7e,
    0xb5, 0x14, 0x98, 0x76, 0x7f, 0x67, 0x06, 0x63, 0xfe, 0xcf, 0xa5, 0xb5, 0x2d, 0x82, 0x17, 0x70,
    0xf9, 0xd8, 0x22, 0xba, 0x68, 0x14, 0xeb, 0x12, 0xbf, 0xd1, 0x43, 0x91, 0x7c, 0xd3, 0x60, 0x95,
    0x62, 0x90, 0x2b, 0x5f, 0xfa, 0x9d, 0x41, 0x9e,
];

/// Key 0…63, associated data 0…19, plaintext 7…38.
const SIV_512: [u8; 48] = [
    0x07, 0x21, 0x99, 0x5f, 0x1d, 0xab, 0xec, 0xb8, 0x89, 0x84, 0x47, 0x20, 0xa1, 0x3e, 0x32, 0x46,
    0x51, 0xd3, 0x6a, 0x5f, 0xb5, 0x34, 0x27, 0x8f, 0xeb, 0x78, 0x74, 0x99, 0xad, 0x84, 0x58, 0x5f,
    0x4c, 0xeb, 0xbf, 0x97, 0x8c, 0x9d, 0x9c, 0xf2, 0x99, 0x77, 0xf2, 0x23, 0xa2, 0x70, 0x4e, 0xbe,
];

/// Key 0…15, no associated data, plaintext 64…95.
const GCM_SIV_COOKIE: [u8; 48] = [
    0x6e, 0x5f, 0x10, 0x14, 0x1c, 0xf5, 0x14, 0x18, 0xc7, 0x01, 0x7f, 0x07, 0x76, 0x7b, 0xf6, 0x79,
    0x34, 0x6f, 0xe6, 0x79, 0xf5, 0x7e, 0xf7, 0x76, 0x50, 0x38, 0x87, 0xf9, 0x9d, 0x64, 0xfa, 0x5b,
    0xdd, 0x2d, 0x73, 0x04, 0x3d, 0xd8, 0x17, 0x70, 0xf4, 0x20, 0xf6, 0x3a, 0x00, 0x62, 0x18, 0x2c,
];

/// Key 0…15, associated data 0…155, no plaintext.
const GCM_SIV_REQUEST_TAG: [u8; TAG_BYTES] = [
    0x0a, 0x25, 0xd5, 0x7b, 0x07, 0x51, 0x68, 0x29, 0xa5, 0x72, 0x06, 0x9b, 0x7d, 0xb9, 0xbe, 0x00,
];

/// Key 0…15, associated data 0…83, plaintext 100…171.
const GCM_SIV_REPLY: [u8; 88] = [
    0xdd, 0xd7, 0xdf, 0xc8, 0x39, 0x23, 0x94, 0x5e, 0x5f, 0xb5, 0x8c, 0x86, 0x6b, 0x71, 0xcd, 0xb8,
    0x58, 0xa3, 0x94, 0x33, 0x47, 0x04, 0xc2, 0xc2, 0x26, 0xb1, 0x82, 0x86, 0x6d, 0x78, 0xa6, 0x88,
    0xec, 0xb5, 0xc4, 0x86, 0x86, 0xfb, 0xa4, 0x22, 0x28, 0x83, 0x95, 0x61, 0x87, 0x01, 0x2d, 0xb3,
    0xf6, 0x77, 0xc0, 0xe8, 0x82, 0x93, 0xce, 0xff, 0xeb, 0x8b, 0xab, 0xa3, 0x07, 0xcf, 0x0a, 0x16,
    0xa3, 0x64, 0x34, 0x64, 0xb2, 0x6a, 0x6a, 0x45, 0x13, 0xa9, 0xb2, 0x33, 0x91, 0xd6, 0xdb, 0x42,
    0x44, 0xab, 0x23, 0x32, 0x9e, 0x6d, 0xa5, 0xe1,
];
