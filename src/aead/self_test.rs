//! Known answers, checked on the chosen back end before any socket opens.
//!
//! The answers were computed with OpenSSL (AES-SIV), independent of both our kernels and the
//! crates behind the portable path; those for AES-GCM-SIV are RFC 8452 appendix C.1. Batches are
//! of all the sizes that make a different kernel run, and the last lane of each is forged once.

use super::{
    Aead, Algorithm, Backend, CookieMake, CookieOpen, MasterKey, ReplyOpen, ReplySeal, RequestSeal,
    RequestVerify, open_one, seal_one,
};

/// A back end that does not compute what it should. The server must not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {backend} back end fails its known-answer test: {what}")]
pub struct SelfTestError {
    /// The back end under test.
    pub backend: Backend,
    /// The operation that gave a wrong answer.
    pub what: &'static str,
}

/// Checks each of the six operations against a known answer, in every size of batch that makes a
/// difference, and that a forged message is refused alone.
pub fn self_test(aead: &mut Aead) -> Result<(), SelfTestError> {
    let checks: [Check; 7] = [
        ("making cookies", make_cookies),
        ("opening cookies", open_cookies),
        ("verifying requests", verify_requests),
        ("sealing replies", seal_replies),
        ("sealing requests", seal_requests),
        ("opening replies", open_replies),
        ("AES-SIV-CMAC-512 and AES-128-GCM-SIV", |_, _| other_algorithms()),
    ];
    let backend = aead.backend();
    for (what, check) in checks {
        if !BATCHES.iter().all(|jobs| check(aead, *jobs)) {
            return Err(SelfTestError { backend, what });
        }
    }
    Ok(())
}

/// What is checked, and how with a batch of so many jobs.
type Check = (&'static str, fn(&mut Aead, usize) -> bool);

fn make_cookies(aead: &mut Aead, jobs: usize) -> bool {
    let Ok(key) = MasterKey::new(1, Algorithm::AesSivCmac256, &counted::<32>(0)) else {
        return false;
    };
    let mut sealed = vec![[0; 80]; jobs];
    let mut batch: Vec<_> = (sealed.iter_mut())
        .map(|sealed| CookieMake { key: &key, nonce: &NONCE, plain: &PLAIN, sealed })
        .collect();
    aead.make_cookies(&mut batch);
    sealed.iter().all(|sealed| *sealed == COOKIE)
}

fn open_cookies(aead: &mut Aead, jobs: usize) -> bool {
    let Ok(key) = MasterKey::new(1, Algorithm::AesSivCmac256, &counted::<32>(0)) else {
        return false;
    };
    let mut sealed = vec![COOKIE; jobs];
    sealed[jobs - 1][79] ^= 1;
    let mut plain = vec![[0; 64]; jobs];
    let mut batch: Vec<_> = (sealed.iter().zip(&mut plain))
        .map(|(sealed, plain)| CookieOpen {
            key: &key,
            nonce: &NONCE,
            sealed,
            plain,
            passed: false,
        })
        .collect();
    aead.open_cookies(&mut batch);
    let [front @ .., forged] = batch.as_slice() else { return false };
    !forged.passed
        && *forged.plain == [0; 64]
        && front.iter().all(|job| job.passed && *job.plain == PLAIN)
}

fn verify_requests(aead: &mut Aead, jobs: usize) -> bool {
    let mut tags = vec![REQUEST_TAG; jobs];
    tags[jobs - 1][0] ^= 0x80;
    let mut batch: Vec<_> = (tags.iter_mut())
        .map(|sealed| RequestVerify {
            algorithm: Algorithm::AesSivCmac256,
            key: &const { counted::<32>(0) },
            nonce: &NONCE,
            associated_data: &const { counted::<188>(0) },
            sealed,
            passed: false,
        })
        .collect();
    aead.verify_requests(&mut batch);
    let [front @ .., forged] = batch.as_slice() else { return false };
    !forged.passed && front.iter().all(|job| job.passed)
}

fn seal_replies(aead: &mut Aead, jobs: usize) -> bool {
    let mut texts = vec![[0; 120]; jobs];
    let mut batch: Vec<_> = (texts.iter_mut())
        .map(|text| {
            text[16..].copy_from_slice(&counted::<104>(100));
            ReplySeal {
                algorithm: Algorithm::AesSivCmac256,
                key: &const { counted::<32>(0) },
                nonce: &NONCE,
                associated_data: &const { counted::<84>(0) },
                text,
            }
        })
        .collect();
    aead.seal_replies(&mut batch);
    texts.iter().all(|text| *text == REPLY)
}

fn seal_requests(aead: &mut Aead, jobs: usize) -> bool {
    let mut tags = vec![[0; 16]; jobs];
    let mut batch: Vec<_> = (tags.iter_mut())
        .map(|tag| RequestSeal {
            algorithm: Algorithm::AesSivCmac256,
            key: &const { counted::<32>(0) },
            nonce: &NONCE,
            associated_data: &const { counted::<188>(0) },
            tag,
        })
        .collect();
    aead.seal_requests(&mut batch);
    tags.iter().all(|tag| *tag == REQUEST_TAG)
}

fn open_replies(aead: &mut Aead, jobs: usize) -> bool {
    let mut texts = vec![REPLY; jobs];
    texts[jobs - 1][119] ^= 1;
    let mut batch: Vec<_> = (texts.iter_mut())
        .map(|sealed| ReplyOpen {
            algorithm: Algorithm::AesSivCmac256,
            key: &const { counted::<32>(0) },
            nonce: &NONCE,
            associated_data: &const { counted::<84>(0) },
            sealed,
            passed: false,
        })
        .collect();
    aead.open_replies(&mut batch);
    let [front @ .., forged] = batch.as_slice() else { return false };
    !forged.passed
        && forged.sealed.iter().all(|byte| *byte == 0)
        && front.iter().all(|job| job.passed && job.sealed[16..] == counted::<104>(100))
}

/// The portable path, which takes what the kernels do not.
fn other_algorithms() -> bool {
    let mut siv = [0; 48];
    siv[16..].copy_from_slice(&counted::<32>(7));
    let (key, data) = (counted::<64>(0), counted::<20>(0));
    let sealed = seal_one(Algorithm::AesSivCmac512, &key, &NONCE, &data, &mut siv).is_ok()
        && siv == SIV_512
        && open_one(Algorithm::AesSivCmac512, &key, &NONCE, &data, &mut siv).is_ok()
        && siv[16..] == counted::<32>(7);
    let (mut key, mut nonce, mut text) = ([0; 16], [0; 12], [0; 24]);
    (key[0], nonce[0], text[0]) = (1, 3, 2);
    sealed
        && seal_one(Algorithm::Aes128GcmSiv, &key, &nonce, &[1], &mut text).is_ok()
        && text == GCM_SIV
        && open_one(Algorithm::Aes128GcmSiv, &key, &nonce, &[1], &mut text).is_ok()
        && text[..8] == [2, 0, 0, 0, 0, 0, 0, 0]
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

const NONCE: [u8; 16] = counted(200);

/// The keys in the cookie.
const PLAIN: [u8; 64] = counted(64);

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

/// RFC 8452 appendix C.1: key 01…, nonce 03…, associated data 01, plaintext 02 and zeros.
const GCM_SIV: [u8; 24] = [
    0x1e, 0x6d, 0xab, 0xa3, 0x56, 0x69, 0xf4, 0x27, 0x3b, 0x0a, 0x1a, 0x25, 0x60, 0x96, 0x9c, 0xdf,
    0x79, 0x0d, 0x99, 0x75, 0x9a, 0xbd, 0x15, 0x08,
];
