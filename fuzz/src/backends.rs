//! Every back end of the cryptography against the portable one.

use timeball::aead::{
    Aead, Algorithm, Backend, CookieMake, CookieOpen, MasterKey, ReplySeal, RequestVerify,
    TAG_BYTES,
};

/// Jobs for all back ends: each is led by four bytes, which choose algorithm, master key and
/// damage (byte 0), the lengths of associated data (byte 1), plaintext (byte 2) and nonce
/// (byte 3); its contents are the bytes behind them, over and over. Returns how many jobs ran.
///
/// # Panics
/// If a back end seals, verifies, makes or opens anything otherwise than the portable one.
pub fn aead_backends(input: &[u8]) -> usize {
    let cases: Vec<Case> = input.chunks(CASE_BYTES).filter_map(Case::new).collect();
    let keys = master_keys();
    let mut portable = Aead::with_backend(Backend::Portable).expect("always there");
    let expected = run(&mut portable, &cases, &keys);
    for backend in Backend::available() {
        let mut aead = Aead::with_backend(backend).expect("available");
        assert_eq!(run(&mut aead, &cases, &keys), expected, "{backend}");
    }
    cases.len()
}

/// Bytes of the input that make one job.
const CASE_BYTES: usize = 16;

/// One request's worth of work.
struct Case {
    algorithm: Algorithm,
    master: usize,
    is_damaged: bool,
    key: Vec<u8>,
    nonce: Vec<u8>,
    associated_data: Vec<u8>,
    plain: Vec<u8>,
}

impl Case {
    fn new(bytes: &[u8]) -> Option<Self> {
        let (&[choice, associated, plain, nonce], contents) = bytes.split_first_chunk()?;
        let algorithm = match choice & 7 {
            0 => Algorithm::AesSivCmac512,
            1 | 3 | 5 => Algorithm::Aes128GcmSiv,
            _ => Algorithm::AesSivCmac256,
        };
        let fill = |length: usize, salt: u8| {
            let byte = |index| contents.get(index % CASE_BYTES).copied().unwrap_or(index as u8);
            (0..length).map(|index| byte(index) ^ salt).collect::<Vec<u8>>()
        };
        // Mostly the length that the kernels take.
        let nonce_bytes = if nonce < 32 { usize::from(nonce) } else { algorithm.nonce_bytes() };
        Some(Self {
            algorithm,
            master: usize::from(choice >> 3 & 1),
            is_damaged: choice >> 4 & 1 != 0,
            key: fill(algorithm.key_bytes(), 0x5a),
            nonce: fill(nonce_bytes, 0xa5),
            associated_data: fill(associated.into(), 0x3c),
            plain: fill(plain.into(), 0xc3),
        })
    }
}

fn master_keys() -> [MasterKey; 2] {
    let siv = MasterKey::new(1, Algorithm::AesSivCmac256, &[0x42; 32]).expect("32 bytes");
    let gcm = MasterKey::new(2, Algorithm::Aes128GcmSiv, &[0x24; 16]).expect("16 bytes");
    [siv, gcm]
}

/// All four operations over all cases: what came out of each, and whether it passed.
fn run(aead: &mut Aead, cases: &[Case], keys: &[MasterKey; 2]) -> Vec<(bool, Vec<u8>)> {
    let mut sealed = seal(aead, cases);
    let mut cookies = make(aead, cases, keys);
    let mut results: Vec<_> =
        sealed.iter().chain(&cookies).map(|text| (true, text.clone())).collect();
    for (case, text) in cases.iter().chain(cases).zip(sealed.iter_mut().chain(&mut cookies)) {
        let middle = text.len() / 2;
        text[middle] ^= u8::from(case.is_damaged);
    }
    results.extend(verify(aead, cases, sealed));
    results.extend(open(aead, cases, keys, &cookies));
    results
}

fn seal(aead: &mut Aead, cases: &[Case]) -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> = cases
        .iter()
        .map(|case| {
            let mut text = vec![0; case.plain.len() + TAG_BYTES];
            text[case.algorithm.plaintext_offset()..][..case.plain.len()]
                .copy_from_slice(&case.plain);
            text
        })
        .collect();
    let jobs = cases.iter().zip(&mut texts).map(|(case, text)| ReplySeal {
        algorithm: case.algorithm,
        key: &case.key,
        nonce: &case.nonce,
        associated_data: &case.associated_data,
        text,
    });
    aead.seal_replies(&mut jobs.collect::<Vec<_>>());
    texts
}

fn verify(aead: &mut Aead, cases: &[Case], mut texts: Vec<Vec<u8>>) -> Vec<(bool, Vec<u8>)> {
    let jobs = cases.iter().zip(&mut texts).map(|(case, sealed)| RequestVerify {
        algorithm: case.algorithm,
        key: &case.key,
        nonce: &case.nonce,
        associated_data: &case.associated_data,
        sealed,
        passed: false,
    });
    let mut jobs: Vec<_> = jobs.collect();
    aead.verify_requests(&mut jobs);
    // What lies in the tag's place afterwards is nobody's business.
    let plain = |job: &RequestVerify<'_>| {
        let plain_bytes = job.sealed.len() - TAG_BYTES;
        job.sealed[job.algorithm.plaintext_offset()..][..plain_bytes].to_vec()
    };
    jobs.iter().map(|job| (job.passed, plain(job))).collect()
}

fn make(aead: &mut Aead, cases: &[Case], keys: &[MasterKey; 2]) -> Vec<Vec<u8>> {
    let mut cookies: Vec<Vec<u8>> =
        cases.iter().map(|case| vec![0; case.plain.len() + TAG_BYTES]).collect();
    let jobs = cases.iter().zip(&mut cookies).map(|(case, sealed)| CookieMake {
        key: &keys[case.master],
        nonce: &case.nonce,
        plain: &case.plain,
        sealed,
    });
    aead.make_cookies(&mut jobs.collect::<Vec<_>>());
    cookies
}

fn open(
    aead: &mut Aead,
    cases: &[Case],
    keys: &[MasterKey; 2],
    cookies: &[Vec<u8>],
) -> Vec<(bool, Vec<u8>)> {
    let mut plains: Vec<Vec<u8>> = cases.iter().map(|case| vec![0; case.plain.len()]).collect();
    let jobs = cases.iter().zip(cookies).zip(&mut plains).map(|((case, sealed), plain)| {
        CookieOpen { key: &keys[case.master], nonce: &case.nonce, sealed, plain, passed: false }
    });
    let mut jobs: Vec<_> = jobs.collect();
    aead.open_cookies(&mut jobs);
    let passed: Vec<bool> = jobs.iter().map(|job| job.passed).collect();
    passed.into_iter().zip(plains).collect()
}
