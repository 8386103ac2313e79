//! Every back end this machine has against the one-shot functions, bit for bit. One function per
//! operation takes the back end and the cases; the tests choose cases.
//!
//! Batches go up to 67 = 64 + 2 + 1 jobs: a full window of the grouping, then every group size on
//! the way, down to the narrow path.

use std::slice;

use proptest::prelude::*;
use timeball::aead::{
    Aead, Algorithm, Backend, CookieMake, CookieOpen, MasterKey, NonceGenerator, ReplyOpen,
    ReplySeal, RequestSeal, RequestVerify, open_one, seal_one,
};

/// One message, and what an attacker changes in it.
#[derive(Clone, Debug)]
struct Case {
    algorithm: Algorithm,
    key: Vec<u8>,
    nonce: Vec<u8>,
    data: Vec<u8>,
    plain: Vec<u8>,
    flip: Flip,
}

/// A bit to flip before opening; numbers beyond the field's end wrap around.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flip {
    Nothing,
    Sealed(usize),
    Nonce(usize),
    Data(usize),
}

/// Seals replies and compares with the one-shot function.
fn check_replies(aead: &mut Aead, cases: &[Case]) {
    let mut buffers: Vec<_> = cases.iter().map(|case| Guarded::new(&case.text())).collect();
    let mut jobs: Vec<_> = cases
        .iter()
        .zip(&mut buffers)
        .map(|(case, buffer)| ReplySeal {
            algorithm: case.algorithm,
            key: &case.key,
            nonce: &case.nonce,
            associated_data: &case.data,
            text: buffer.inner(),
        })
        .collect();
    aead.seal_replies(&mut jobs);
    for (case, buffer) in cases.iter().zip(&mut buffers) {
        assert_eq!(buffer.checked(), case.sealed(), "{} {case:?}", aead.backend());
    }
}

/// Verifies requests, changed and unchanged ones, and expects exactly the unchanged ones to pass.
fn check_requests(aead: &mut Aead, cases: &[Case]) {
    let changed: Vec<_> = cases.iter().map(Case::changed).collect();
    let mut buffers: Vec<_> = changed.iter().map(|(_, sealed)| Guarded::new(sealed)).collect();
    let mut jobs: Vec<_> = changed
        .iter()
        .zip(&mut buffers)
        .map(|((case, _), buffer)| RequestVerify {
            algorithm: case.algorithm,
            key: &case.key,
            nonce: &case.nonce,
            associated_data: &case.data,
            sealed: buffer.inner(),
            passed: case.flip != Flip::Nothing,
        })
        .collect();
    aead.verify_requests(&mut jobs);
    let passed: Vec<_> = jobs.iter().map(|job| job.passed).collect();
    assert_opened(aead, cases, &mut buffers, &passed);
}

/// Exactly what is unchanged passed, and nothing else left its plaintext.
fn assert_opened(aead: &Aead, cases: &[Case], buffers: &mut [Guarded], passed: &[bool]) {
    for ((case, buffer), passed) in cases.iter().zip(buffers).zip(passed) {
        assert_eq!(*passed, case.flip == Flip::Nothing, "{} {case:?}", aead.backend());
        let plain = &buffer.checked()[case.algorithm.plaintext_offset()..][..case.plain.len()];
        match passed {
            true => assert_eq!(plain, case.plain),
            false => assert!(plain.iter().all(|byte| *byte == 0)),
        }
    }
}

/// Opens replies, changed and unchanged ones, and expects exactly the unchanged ones to pass.
fn check_reply_opening(aead: &mut Aead, cases: &[Case]) {
    let changed: Vec<_> = cases.iter().map(Case::changed).collect();
    let mut buffers: Vec<_> = changed.iter().map(|(_, sealed)| Guarded::new(sealed)).collect();
    let mut jobs: Vec<_> = changed
        .iter()
        .zip(&mut buffers)
        .map(|((case, _), buffer)| ReplyOpen {
            algorithm: case.algorithm,
            key: &case.key,
            nonce: &case.nonce,
            associated_data: &case.data,
            sealed: buffer.inner(),
            passed: case.flip != Flip::Nothing,
        })
        .collect();
    aead.open_replies(&mut jobs);
    let passed: Vec<_> = jobs.iter().map(|job| job.passed).collect();
    assert_opened(aead, cases, &mut buffers, &passed);
}

/// Seals requests, which enclose nothing, and compares with the one-shot function.
fn check_request_sealing(aead: &mut Aead, cases: &[Case]) {
    let cases: Vec<_> =
        cases.iter().map(|case| Case { plain: Vec::new(), ..case.clone() }).collect();
    let mut buffers: Vec<_> = cases.iter().map(|case| Guarded::new(&case.text())).collect();
    let mut jobs: Vec<_> = cases
        .iter()
        .zip(&mut buffers)
        .map(|(case, buffer)| RequestSeal {
            algorithm: case.algorithm,
            key: &case.key,
            nonce: &case.nonce,
            associated_data: &case.data,
            tag: buffer.inner(),
        })
        .collect();
    aead.seal_requests(&mut jobs);
    for (case, buffer) in cases.iter().zip(&mut buffers) {
        assert_eq!(buffer.checked(), case.sealed(), "{} {case:?}", aead.backend());
    }
}

/// Makes cookies and compares with the one-shot function. Cases share `keys` by their first byte.
fn check_making(aead: &mut Aead, keys: &[MasterKey], cases: &[Case]) {
    let cases: Vec<_> = cases.iter().map(|case| case.as_cookie(keys)).collect();
    let blank = |case: &(Case, &MasterKey)| Guarded::new(&vec![0xee; case.0.plain.len() + 16]);
    let mut buffers: Vec<_> = cases.iter().map(blank).collect();
    let mut jobs: Vec<_> = cases
        .iter()
        .zip(&mut buffers)
        .map(|((case, key), buffer)| CookieMake {
            key,
            nonce: &case.nonce,
            plain: &case.plain,
            sealed: buffer.inner(),
        })
        .collect();
    aead.make_cookies(&mut jobs);
    for ((case, _), buffer) in cases.iter().zip(&mut buffers) {
        assert_eq!(buffer.checked(), case.sealed(), "{} {case:?}", aead.backend());
    }
}

/// Opens cookies, changed and unchanged ones; failed ones must leave zeros.
fn check_opening(aead: &mut Aead, keys: &[MasterKey], cases: &[Case]) {
    let cases: Vec<_> = cases
        .iter()
        .map(|case| case.as_cookie(keys))
        .map(|(case, key)| (case.clone(), key, case.changed()))
        .collect();
    let blank = |(case, ..): &(Case, _, _)| Guarded::new(&vec![0xee; case.plain.len()]);
    let mut buffers: Vec<_> = cases.iter().map(blank).collect();
    let mut jobs: Vec<_> = cases
        .iter()
        .zip(&mut buffers)
        .map(|((case, key, (changed, sealed)), buffer)| CookieOpen {
            key,
            nonce: &changed.nonce,
            sealed,
            plain: buffer.inner(),
            passed: case.flip != Flip::Nothing,
        })
        .collect();
    aead.open_cookies(&mut jobs);
    let passed: Vec<_> = jobs.iter().map(|job| job.passed).collect();
    for (((case, ..), buffer), passed) in cases.iter().zip(&mut buffers).zip(passed) {
        assert_eq!(passed, case.flip == Flip::Nothing, "{} {case:?}", aead.backend());
        match passed {
            true => assert_eq!(buffer.checked(), case.plain),
            false => assert!(buffer.checked().iter().all(|byte| *byte == 0)),
        }
    }
}

/// All six operations on all back ends.
fn check_all(keys: &[MasterKey], cases: &[Case]) {
    for backend in Backend::available() {
        let mut aead = Aead::with_backend(backend).unwrap();
        check_replies(&mut aead, cases);
        check_requests(&mut aead, cases);
        check_request_sealing(&mut aead, cases);
        check_reply_opening(&mut aead, cases);
        check_making(&mut aead, keys, cases);
        check_opening(&mut aead, keys, cases);
        // Wiped scratch must not be what the next batch depends on.
        aead.wipe();
        check_replies(&mut aead, cases);
    }
}

#[test]
fn every_batch_size_of_the_common_shape() {
    let mut random = NonceGenerator::from_seed(&[1; 32]);
    for (algorithm, key) in BATCHED.into_iter().zip(&master_keys()[1..]) {
        let field_bytes = 24 + algorithm.nonce_bytes() + 2 * algorithm.key_bytes();
        for jobs in 0..=67 {
            let mut cases = |data, plain| -> Vec<_> {
                (0..jobs).map(|_| case_of(algorithm, &mut random, data, plain)).collect()
            };
            let (replies, requests) = (cases(84, field_bytes), cases(84 + field_bytes, 0));
            for backend in Backend::available() {
                let mut aead = Aead::with_backend(backend).unwrap();
                check_replies(&mut aead, &replies);
                check_requests(&mut aead, &requests);
                check_request_sealing(&mut aead, &requests);
                check_reply_opening(&mut aead, &replies);
                let cookies = cases(0, 2 * algorithm.key_bytes());
                check_making(&mut aead, slice::from_ref(key), &cookies);
                check_opening(&mut aead, slice::from_ref(key), &cookies);
            }
        }
    }
}

#[test]
fn every_length_around_the_block_boundaries_of_aes_siv() {
    every_length_around_the_block_boundaries(Algorithm::AesSivCmac256, &master_keys()[..2]);
}

#[test]
fn every_length_around_the_block_boundaries_of_aes_gcm_siv() {
    every_length_around_the_block_boundaries(Algorithm::Aes128GcmSiv, &master_keys()[2..]);
}

fn every_length_around_the_block_boundaries(algorithm: Algorithm, keys: &[MasterKey]) {
    let mut random = NonceGenerator::from_seed(&[2; 32]);
    for lanes in [1, 2, 3, 5, 9, 17] {
        let mut cases = |data, plain| -> Vec<_> {
            (0..lanes).map(|_| case_of(algorithm, &mut random, data, plain)).collect()
        };
        for data_bytes in (0..=50).chain(62..=66).chain([95, 96, 97, 188, 1000]) {
            check_all(keys, &cases(data_bytes, 0));
        }
        for plain_bytes in (0..=50).chain(62..=66).chain([79, 80, 81, 104, 128, 832, 1008, 1009]) {
            for data_bytes in [49, 64, 84, 300] {
                check_all(keys, &cases(data_bytes, plain_bytes));
            }
        }
    }
}

#[test]
fn many_shapes_in_one_batch() {
    let mut random = NonceGenerator::from_seed(&[3; 32]);
    for jobs in [2, 7, 31, 64, 67] {
        let cases: Vec<_> = (0..jobs)
            .map(|index| {
                let (data, plain) = (84 + 104 * (index % 5), 104 * (index % 3));
                case_of(BATCHED[index / 2 % 2], &mut random, data, plain)
            })
            .collect();
        check_all(&master_keys(), &cases);
    }
}

#[test]
fn all_algorithms_and_nonce_lengths_in_one_batch() {
    let mut random = NonceGenerator::from_seed(&[4; 32]);
    let algorithms = [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv];
    for jobs in 1..=67 {
        let mut cases: Vec<_> = (0..jobs).map(|_| case(&mut random, 84, 104)).collect();
        for (index, case) in cases.iter_mut().enumerate() {
            case.algorithm = algorithms[index % 5 % 3];
            case.key = bytes(&mut random, case.algorithm.key_bytes());
            let nonce_bytes = case.algorithm.nonce_bytes();
            let odd = index % 7 == 0 && case.algorithm != Algorithm::Aes128GcmSiv;
            case.nonce = bytes(&mut random, if odd { 1 + index } else { nonce_bytes });
        }
        check_all(&master_keys(), &cases);
    }
}

#[test]
fn a_flipped_bit_fails_its_own_lane_and_no_other() {
    let mut random = NonceGenerator::from_seed(&[5; 32]);
    for (algorithm, key) in BATCHED.into_iter().zip(&master_keys()[1..]) {
        for jobs in [1, 2, 3, 4, 5, 8, 15, 16, 17, 33] {
            for lane in 0..jobs {
                for bit in [0, 7, 8, 63, 64, 95, 100, 127, 128, 500, 511, 640, 671] {
                    let mut cases = |data, plain, flip| -> Vec<_> {
                        let mut cases: Vec<_> = (0..jobs)
                            .map(|_| case_of(algorithm, &mut random, data, plain))
                            .collect();
                        cases[lane].flip = flip;
                        cases
                    };
                    let flips = [Flip::Sealed(bit), Flip::Nonce(bit), Flip::Data(bit * 2)];
                    let requests = cases(188, 0, flips[(bit + lane) % 3]);
                    let cookies = cases(0, 64, flips[(bit + lane) % 2]);
                    let replies = cases(84, 104, flips[(bit + lane) % 3]);
                    for backend in Backend::available() {
                        let mut aead = Aead::with_backend(backend).unwrap();
                        check_requests(&mut aead, &requests);
                        check_opening(&mut aead, slice::from_ref(key), &cookies);
                        check_reply_opening(&mut aead, &replies);
                    }
                }
            }
        }
    }
}

#[test]
fn every_single_bit_of_a_request_and_a_cookie_counts() {
    let mut random = NonceGenerator::from_seed(&[6; 32]);
    for (algorithm, key) in BATCHED.into_iter().zip(&master_keys()[1..]) {
        let mut with = |data, plain, flip| {
            let mut cases: Vec<_> =
                (0..3).map(|_| case_of(algorithm, &mut random, data, plain)).collect();
            cases[1].flip = flip;
            cases
        };
        for backend in Backend::available() {
            let mut aead = Aead::with_backend(backend).unwrap();
            let key = slice::from_ref(key);
            for bit in 0..188 * 8 {
                check_requests(&mut aead, &with(188, 0, Flip::Data(bit)));
            }
            for bit in 0..128 {
                check_requests(&mut aead, &with(188, 0, Flip::Sealed(bit)));
                check_requests(&mut aead, &with(188, 0, Flip::Nonce(bit)));
                check_opening(&mut aead, key, &with(0, 64, Flip::Nonce(bit)));
            }
            for bit in 0..80 * 8 {
                check_opening(&mut aead, key, &with(0, 64, Flip::Sealed(bit)));
            }
        }
    }
}

#[test]
fn a_wrong_key_opens_nothing() {
    let mut random = NonceGenerator::from_seed(&[7; 32]);
    let other = MasterKey::new(9, Algorithm::AesSivCmac256, &[9; 32]).unwrap();
    for backend in Backend::available() {
        let mut aead = Aead::with_backend(backend).unwrap();
        let cases: Vec<_> =
            (0..5).map(|_| case(&mut random, 0, 64).as_cookie(&master_keys()[..1]).0).collect();
        let sealed: Vec<_> = cases.iter().map(Case::sealed).collect();
        let mut plain = vec![[0xee; 64]; 5];
        let mut jobs: Vec<_> = (cases.iter().zip(&sealed).zip(&mut plain))
            .map(|((case, sealed), plain)| CookieOpen {
                key: &other,
                nonce: &case.nonce,
                sealed,
                plain,
                passed: true,
            })
            .collect();
        aead.open_cookies(&mut jobs);
        assert!(jobs.iter().all(|job| !job.passed));
        assert_eq!(plain, [[0; 64]; 5]);
    }
}

#[test]
fn impossible_lengths_fail_and_leave_zeros() {
    let key = MasterKey::new(1, Algorithm::AesSivCmac256, &[1; 32]).unwrap();
    let gcm_key = MasterKey::new(2, Algorithm::Aes128GcmSiv, &[1; 16]).unwrap();
    for backend in Backend::available() {
        let mut aead = Aead::with_backend(backend).unwrap();
        for (sealed_bytes, plain_bytes, nonce_bytes) in
            [(0, 0, 16), (15, 0, 16), (80, 63, 16), (80, 65, 16), (80, 64, 0), (64, 64, 16)]
        {
            let (sealed, nonce) = (vec![1; sealed_bytes], vec![2; nonce_bytes]);
            let mut plain = vec![0xee; plain_bytes];
            let mut jobs = [CookieOpen {
                key: &key,
                nonce: &nonce,
                sealed: &sealed,
                plain: &mut plain,
                passed: true,
            }];
            aead.open_cookies(&mut jobs);
            assert!(!jobs[0].passed);
            assert!(plain.iter().all(|byte| *byte == 0));
        }
        for (algorithm, key_bytes, nonce_bytes, text_bytes) in [
            (Algorithm::AesSivCmac256, 31, 16, 120),
            (Algorithm::AesSivCmac256, 32, 0, 120),
            (Algorithm::AesSivCmac256, 32, 16, 15),
            (Algorithm::AesSivCmac512, 32, 16, 120),
            (Algorithm::Aes128GcmSiv, 16, 16, 120),
            (Algorithm::Aes128GcmSiv, 16, 12, 3),
        ] {
            let (key, nonce) = (vec![1; key_bytes], vec![2; nonce_bytes]);
            let mut text = vec![0xee; text_bytes];
            let data = [3; 84];
            aead.seal_replies(&mut [ReplySeal {
                algorithm,
                key: &key,
                nonce: &nonce,
                associated_data: &data,
                text: &mut text,
            }]);
            assert!(text.iter().all(|byte| *byte == 0), "no plaintext may leave");
            let mut jobs = [RequestVerify {
                algorithm,
                key: &key,
                nonce: &nonce,
                associated_data: &data,
                sealed: &mut text,
                passed: true,
            }];
            aead.verify_requests(&mut jobs);
            assert!(!jobs[0].passed);
        }
        let mut sealed = [0xee; 80];
        aead.make_cookies(&mut [
            CookieMake { key: &key, nonce: &[2; 16], plain: &[3; 63], sealed: &mut sealed },
            CookieMake { key: &gcm_key, nonce: &[2; 16], plain: &[3; 64], sealed: &mut [0; 80] },
        ]);
        assert_eq!(sealed, [0; 80]);
    }
}

#[test]
fn impossible_lengths_fail_a_client_too() {
    for backend in Backend::available() {
        let mut aead = Aead::with_backend(backend).unwrap();
        for (algorithm, key_bytes, nonce_bytes, text_bytes) in [
            (Algorithm::AesSivCmac256, 31, 16, 120),
            (Algorithm::AesSivCmac256, 32, 0, 120),
            (Algorithm::AesSivCmac256, 32, 16, 15),
            (Algorithm::Aes128GcmSiv, 16, 16, 120),
        ] {
            let (key, nonce) = (&vec![1; key_bytes], &vec![2; nonce_bytes]);
            let (associated_data, mut text) = (&[3; 84], vec![0xee; text_bytes]);
            let (sealed, passed) = (&mut text[..], true);
            let mut job = ReplyOpen { algorithm, key, nonce, associated_data, sealed, passed };
            aead.open_replies(slice::from_mut(&mut job));
            assert!(!job.passed && job.sealed.iter().all(|byte| *byte == 0));
            text.fill(0xee);
            let tag = &mut text[..];
            let mut job = RequestSeal { algorithm, key, nonce, associated_data, tag };
            aead.seal_requests(slice::from_mut(&mut job));
            assert!(job.tag.iter().all(|byte| *byte == 0), "no tag of another length");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_mix_of_anything(cases in proptest::collection::vec(any_case(), 0..40)) {
        check_all(&master_keys(), &cases);
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let flip = prop_oneof![
        4 => Just(Flip::Nothing),
        1 => (0usize..4096).prop_map(Flip::Sealed),
        1 => (0usize..4096).prop_map(Flip::Nonce),
    ];
    let algorithm = prop_oneof![
        4 => Just(Algorithm::AesSivCmac256),
        1 => Just(Algorithm::AesSivCmac512),
        3 => Just(Algorithm::Aes128GcmSiv),
    ];
    let lengths = (0usize..300, prop_oneof![Just(0), Just(64), Just(104), 0usize..300], 1usize..20);
    (algorithm, lengths, flip, any::<[u8; 32]>()).prop_map(|(algorithm, lengths, flip, seed)| {
        let (data, plain, nonce) = lengths;
        let mut random = NonceGenerator::from_seed(&seed);
        let mut case = case(&mut random, data, plain);
        case.algorithm = algorithm;
        case.key = bytes(&mut random, algorithm.key_bytes());
        case.nonce = match algorithm {
            Algorithm::Aes128GcmSiv => bytes(&mut random, 12),
            _ if nonce > 8 => bytes(&mut random, 16),
            _ => bytes(&mut random, nonce),
        };
        case.flip = flip;
        case
    })
}

/// A case of AEAD 15 with a nonce of 16 bytes.
fn case(random: &mut NonceGenerator, data_bytes: usize, plain_bytes: usize) -> Case {
    case_of(Algorithm::AesSivCmac256, random, data_bytes, plain_bytes)
}

/// A case with a nonce of the usual length.
fn case_of(
    algorithm: Algorithm,
    random: &mut NonceGenerator,
    data_bytes: usize,
    plain_bytes: usize,
) -> Case {
    Case {
        algorithm,
        key: bytes(random, algorithm.key_bytes()),
        nonce: bytes(random, algorithm.nonce_bytes()),
        data: bytes(random, data_bytes),
        plain: bytes(random, plain_bytes),
        flip: Flip::Nothing,
    }
}

impl Case {
    /// The plaintext with room for the tag.
    fn text(&self) -> Vec<u8> {
        let mut text = vec![0xdd; self.plain.len() + 16];
        text[self.algorithm.plaintext_offset()..][..self.plain.len()].copy_from_slice(&self.plain);
        text
    }

    /// What sealing must give.
    fn sealed(&self) -> Vec<u8> {
        let mut text = self.text();
        seal_one(self.algorithm, &self.key, &self.nonce, &self.data, &mut text).unwrap();
        text
    }

    /// The case and its sealed text, with the bit flipped.
    fn changed(&self) -> (Self, Vec<u8>) {
        let (mut case, mut sealed) = (self.clone(), self.sealed());
        let flip = |field: &mut Vec<u8>, bit: usize| {
            let bit = bit % (field.len() * 8);
            field[bit / 8] ^= 1 << (bit % 8);
        };
        match self.flip {
            Flip::Nothing => {}
            Flip::Sealed(bit) => flip(&mut sealed, bit),
            Flip::Nonce(bit) => flip(&mut case.nonce, bit),
            Flip::Data(bit) => flip(&mut case.data, bit),
        }
        let mut text = sealed.clone();
        let opened = open_one(case.algorithm, &case.key, &case.nonce, &case.data, &mut text);
        assert_eq!(opened.is_ok(), self.flip == Flip::Nothing);
        (case, sealed)
    }

    /// The case as a cookie under one of `keys`.
    fn as_cookie<'a>(&self, keys: &'a [MasterKey]) -> (Self, &'a MasterKey) {
        let key = &keys[usize::from(self.key[0]) % keys.len()];
        let mut case = self.clone();
        case.algorithm = key.algorithm();
        case.key = key.expose_bytes().to_vec();
        case.data.clear();
        if key.algorithm() == Algorithm::Aes128GcmSiv {
            case.nonce.resize(12, 0);
        }
        if let Flip::Data(bit) = case.flip {
            case.flip = Flip::Sealed(bit);
        }
        (case, key)
    }
}

/// Two keys of AEAD 15, as while a rotation is under way, and one of AEAD 30.
fn master_keys() -> [MasterKey; 3] {
    [
        MasterKey::new(1, Algorithm::AesSivCmac256, &[0x51; 32]).unwrap(),
        MasterKey::new(2, Algorithm::AesSivCmac256, &[0x52; 32]).unwrap(),
        MasterKey::new(3, Algorithm::Aes128GcmSiv, &[0x53; 16]).unwrap(),
    ]
}

/// A buffer between two guard areas.
struct Guarded(Vec<u8>);

impl Guarded {
    fn new(inner: &[u8]) -> Self {
        Self([&[GUARD; GUARD_BYTES], inner, &[GUARD; GUARD_BYTES]].concat())
    }

    fn inner(&mut self) -> &mut [u8] {
        let end = self.0.len() - GUARD_BYTES;
        &mut self.0[GUARD_BYTES..end]
    }

    /// The buffer, once the guards are found unchanged.
    fn checked(&mut self) -> &[u8] {
        let guards = self.0[..GUARD_BYTES].iter().chain(&self.0[self.0.len() - GUARD_BYTES..]);
        assert!(guards.into_iter().all(|byte| *byte == GUARD), "written outside the buffer");
        self.inner()
    }
}

fn bytes(random: &mut NonceGenerator, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    random.fill(&mut bytes);
    bytes
}

/// The algorithms that have kernels.
const BATCHED: [Algorithm; 2] = [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv];

const GUARD: u8 = 0xa5;
const GUARD_BYTES: usize = 80;
