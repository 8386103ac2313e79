//! Published vectors, through every operation of every back end this machine has.

use timeball::aead::{
    Aead, Algorithm, Backend, CookieMake, CookieOpen, MasterKey, ReplySeal, RequestVerify,
    open_one, seal_one, self_test,
};

/// One vector; all but the algorithm in hexadecimal. `sealed` is tag ‖ ciphertext for AES-SIV,
/// ciphertext ‖ tag for AES-GCM-SIV.
struct Vector {
    source: &'static str,
    algorithm: Algorithm,
    key: &'static str,
    nonce: &'static str,
    associated_data: &'static str,
    plain: &'static str,
    sealed: &'static str,
}

#[test]
fn one_shot_gives_the_published_answers() {
    for vector in VECTORS {
        let (key, nonce) = (hex(vector.key), hex(vector.nonce));
        let (data, sealed) = (hex(vector.associated_data), hex(vector.sealed));
        let mut text = with_room(vector.algorithm, &hex(vector.plain));
        seal_one(vector.algorithm, &key, &nonce, &data, &mut text).unwrap();
        assert_eq!(text, sealed, "{}", vector.source);
        open_one(vector.algorithm, &key, &nonce, &data, &mut text).unwrap();
        let offset = vector.algorithm.plaintext_offset();
        assert_eq!(text[offset..][..sealed.len() - 16], hex(vector.plain), "{}", vector.source);
    }
}

#[test]
fn replies_and_requests_give_the_published_answers() {
    for backend in Backend::available() {
        for vector in VECTORS {
            for lanes in LANES {
                messages(&mut Aead::with_backend(backend).unwrap(), vector, lanes);
            }
        }
    }
}

/// The vector in all of so many lanes.
fn messages(aead: &mut Aead, vector: &Vector, lanes: usize) {
    let (key, nonce) = (hex(vector.key), hex(vector.nonce));
    let (data, plain) = (hex(vector.associated_data), hex(vector.plain));
    let (algorithm, sealed) = (vector.algorithm, hex(vector.sealed));
    let mut texts = vec![with_room(algorithm, &plain); lanes];
    let jobs = texts.iter_mut().map(|text| ReplySeal {
        algorithm,
        key: &key,
        nonce: &nonce,
        associated_data: &data,
        text,
    });
    aead.seal_replies(&mut jobs.collect::<Vec<_>>());
    let place = format!("{} on {}", vector.source, aead.backend());
    assert!(texts.iter().all(|text| *text == sealed), "{place}");
    let jobs = texts.iter_mut().map(|sealed| RequestVerify {
        algorithm,
        key: &key,
        nonce: &nonce,
        associated_data: &data,
        sealed,
        passed: false,
    });
    let mut jobs: Vec<_> = jobs.collect();
    aead.verify_requests(&mut jobs);
    assert!(jobs.iter().all(|job| job.passed), "{place}");
    let opened = |text: &Vec<u8>| text[algorithm.plaintext_offset()..][..plain.len()] == plain;
    assert!(texts.iter().all(opened), "{place}");
}

#[test]
fn cookies_give_the_published_answers() {
    let is_cookie = |vector: &&Vector| {
        vector.associated_data.is_empty() && vector.algorithm != Algorithm::AesSivCmac512
    };
    for backend in Backend::available() {
        for vector in VECTORS.iter().filter(is_cookie) {
            for lanes in LANES {
                cookies(&mut Aead::with_backend(backend).unwrap(), vector, lanes);
            }
        }
    }
}

/// The vector in all of so many lanes.
fn cookies(aead: &mut Aead, vector: &Vector, lanes: usize) {
    let key = MasterKey::new(1, vector.algorithm, &hex(vector.key)).unwrap();
    let (nonce, plain) = (hex(vector.nonce), hex(vector.plain));
    let mut sealed = vec![vec![0xee; plain.len() + 16]; lanes];
    let jobs = (sealed.iter_mut()).map(|sealed| CookieMake {
        key: &key,
        nonce: &nonce,
        plain: &plain,
        sealed,
    });
    aead.make_cookies(&mut jobs.collect::<Vec<_>>());
    let place = format!("{} on {}", vector.source, aead.backend());
    assert!(sealed.iter().all(|sealed| *sealed == hex(vector.sealed)), "{place}");
    let mut opened = vec![vec![0xee; plain.len()]; lanes];
    let jobs = sealed.iter().zip(&mut opened).map(|(sealed, plain)| CookieOpen {
        key: &key,
        nonce: &nonce,
        sealed,
        plain,
        passed: false,
    });
    let mut jobs: Vec<_> = jobs.collect();
    aead.open_cookies(&mut jobs);
    assert!(jobs.iter().all(|job| job.passed), "{place}");
    assert!(opened.iter().all(|opened| *opened == plain), "{place}");
}

/// The two vectors of RFC 5297 appendix A have one and three associated components, NTS always
/// two: they cannot pass through our interface, but they prove the crate that is our oracle.
#[test]
fn the_oracle_gives_the_answers_of_rfc_5297() {
    use aes_siv::KeyInit;
    use aes_siv::siv::Aes128Siv;

    for (key, components, plain, sealed) in RFC_5297 {
        let components: Vec<_> = components.iter().map(|component| hex(component)).collect();
        let mut text = hex(plain);
        let tag = Aes128Siv::new_from_slice(&hex(key))
            .unwrap()
            .encrypt_inout_detached(&components, text.as_mut_slice().into())
            .unwrap();
        assert_eq!([tag.as_slice(), &text].concat(), hex(sealed));
    }
}

#[test]
fn self_test_passes_on_every_back_end() {
    for backend in Backend::available() {
        self_test(&mut Aead::with_backend(backend).unwrap()).unwrap();
    }
}

/// Run it with `TIMEBALL_DENY_CPU` set to walk the lattice; without, the widest must be chosen.
#[test]
#[cfg(debug_assertions)]
fn detection_takes_the_widest_that_is_not_denied() {
    let denied = std::env::var("TIMEBALL_DENY_CPU").unwrap_or_default();
    let word = |backend: &Backend| backend.name().to_lowercase().replace('-', "");
    let allowed = |backend: &Backend| !denied.split(',').any(|it| it == word(backend));
    let widest = Backend::available().into_iter().rfind(allowed);
    assert_eq!(Some(Aead::detect().backend()), widest);
}

/// The plaintext where `algorithm` wants it, with room for the tag.
fn with_room(algorithm: Algorithm, plain: &[u8]) -> Vec<u8> {
    let mut text = vec![0xee; plain.len() + 16];
    text[algorithm.plaintext_offset()..][..plain.len()].copy_from_slice(plain);
    text
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let nibble = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
}

/// A group for each number of registers, and the narrow path.
const LANES: [usize; 5] = [1, 3, 5, 9, 17];

type WithComponents = (&'static str, &'static [&'static str], &'static str, &'static str);

/// Key, components, plaintext, tag ‖ ciphertext.
const RFC_5297: [WithComponents; 2] = [
    (
        "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        &["101112131415161718191a1b1c1d1e1f2021222324252627"],
        "112233445566778899aabbccddee",
        "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c",
    ),
    (
        "7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
        &[
            "00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
            "102030405060708090a0",
            "09f911029d74e35bd84156c5635688c0",
        ],
        "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e6720534956\
         2d414553",
        "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f7\
         48ba8af829ea64ad544a272e9c485b62a3fd5c0d",
    ),
];

const VECTORS: &[Vector] = &[
    // Two associated components, as NTS has them: the collection in nettle's test suite
    // (checked there against libaes_siv and miscreant), and chrony's unit tests.
    Vector {
        source: "RFC 5297 A.2 with its first component and nonce only",
        algorithm: Algorithm::AesSivCmac256,
        key: "7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
        nonce: "09f911029d74e35bd84156c5635688c0",
        associated_data: "00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa9988\
                          7766554433221100",
        plain: "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67\
                205349562d414553",
        sealed: "85825e22e90cf2ddda2c548dc7c1b6310dcdaca0cebf9dc6cb90583f5bf1506e02cd48832b00e4\
                 e598b2b22a53e6199d4df0c1666a35a0433b250dc134d776",
    },
    Vector {
        source: "nettle, short nonce and no plaintext",
        algorithm: Algorithm::AesSivCmac256,
        key: "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        nonce: "01",
        associated_data: "",
        plain: "",
        sealed: "c696f84fdf92aba3c31c23d5f2087513",
    },
    Vector {
        source: "nettle, no associated data",
        algorithm: Algorithm::AesSivCmac256,
        key: "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        nonce: "02",
        associated_data: "",
        plain: "00112233445566778899aabbccddeeff",
        sealed: "5027b101589747b8865a9790d3fd51d71f259d405bfa260b9ba1d60aa287fd0b",
    },
    Vector {
        source: "nettle, 24-byte nonce, text shorter than a block",
        algorithm: Algorithm::AesSivCmac256,
        key: "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        nonce: "101112131415161718191a1b1c1d1e1f2021222324252627",
        associated_data: "",
        plain: "112233445566778899aabbccddee",
        sealed: "4b3d0f15ae9ffa9e65b949421582ef70e410910d6446c7759ebff9b5385a",
    },
    Vector {
        source: "nettle, 16-byte nonce, text shorter than a block",
        algorithm: Algorithm::AesSivCmac256,
        key: "7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
        nonce: "09f911029d74e35bd84156c5635688c0",
        associated_data: "00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa9988\
                          7766554433221100",
        plain: "112233445566778899aabbccddee",
        sealed: "15f8388214bdc94e3ec4c7c369863746cd72d3174b20a1e4a0894fb7cd78",
    },
    Vector {
        source: "chrony, everything empty but the nonce",
        algorithm: Algorithm::AesSivCmac256,
        key: "0123456789abcdeff0123456789abcdeef0123456789abcddef0123456789abc",
        nonce: "101112131415161718191a1b1c1d1e1f",
        associated_data: "",
        plain: "",
        sealed: "223eb594e0e0254b00258e219a1ca421",
    },
    Vector {
        source: "chrony, no plaintext",
        algorithm: Algorithm::AesSivCmac256,
        key: "0123456789abcdeff0123456789abcdeef0123456789abcddef0123456789abc",
        nonce: "101112131415161718191a1b1c1d1e1f",
        associated_data: "4c9d4fcaed8ae2baad3f3ea6e93c8c8b",
        plain: "",
        sealed: "d7201989c6dbc6d661fc62bc865eeeef",
    },
    Vector {
        source: "chrony, no associated data",
        algorithm: Algorithm::AesSivCmac256,
        key: "0123456789abcdeff0123456789abcdeef0123456789abcddef0123456789abc",
        nonce: "101112131415161718191a1b1c1d1e1f",
        associated_data: "",
        plain: "4c9d4fcaed8ae2baad3f3ea6e93c8c8b",
        sealed: "b6c160e9c2fd2ae8dec5368b2a33ede114ffb397345ccbe44aa4deacd9369046",
    },
    Vector {
        source: "dchest/siv, AES-256",
        algorithm: Algorithm::AesSivCmac512,
        key: "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f06f6e6d6c6b6a69686766656463626160\
              f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f",
        nonce: "02",
        associated_data: "101112131415161718191a1b1c1d1e1f2021222324252627",
        plain: "112233445566778899aabbccddee",
        sealed: "6f740b421e2972d85e76189e99842843ad9e6ff14ea97c32ab315e67464c",
    },
    // RFC 8452 appendix C.1.
    Vector {
        source: "RFC 8452 C.1, everything empty",
        algorithm: Algorithm::Aes128GcmSiv,
        key: "01000000000000000000000000000000",
        nonce: "030000000000000000000000",
        associated_data: "",
        plain: "",
        sealed: "dc20e2d83f25705bb49e439eca56de25",
    },
    Vector {
        source: "RFC 8452 C.1, two blocks",
        algorithm: Algorithm::Aes128GcmSiv,
        key: "01000000000000000000000000000000",
        nonce: "030000000000000000000000",
        associated_data: "",
        plain: "0100000000000000000000000000000002000000000000000000000000000000",
        sealed: "84e07e62ba83a6585417245d7ec413a9fe427d6315c09b57ce45f2e3936a94451a8e45dcd4578c\
                 667cd86847bf6155ff",
    },
    Vector {
        source: "RFC 8452 C.1, associated data and half a block",
        algorithm: Algorithm::Aes128GcmSiv,
        key: "01000000000000000000000000000000",
        nonce: "030000000000000000000000",
        associated_data: "01",
        plain: "0200000000000000",
        sealed: "1e6daba35669f4273b0a1a2560969cdf790d99759abd1508",
    },
    // The first block of the plaintext was chosen so that the tag begins with 32 ones.
    Vector {
        source: "OpenSSL, a reply whose counter wraps around after one block",
        algorithm: Algorithm::Aes128GcmSiv,
        key: "000102030405060708090a0b0c0d0e0f",
        nonce: "c8c9cacbcccdcecfd0d1d2d3",
        associated_data: "\
                 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425\
                 262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b\
                 4c4d4e4f50515253",
        plain: "ccedd83be2822a146695ca77a50ef3b8101112131415161718191a1b1c1d1e1f20212223242526\
                2728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d\
                4e4f505152535455565758595a5b5c5d5e5f6061626364656667",
        sealed: "01d915b244d6f835f50856a90fcff8285eb992066b5fad1dc049a878d96af9c317217d8aed62d6\
                71474ac22617f18b092e3263970e2a7773c39d8d9259b7437dd31379fb39c6c95d406efb0fef6e\
                c5156180feeefc95760dcb898921b65b4e46190d01b139e324baffffffff020304050607080900\
                010203",
    },
    Vector {
        source: "OpenSSL, a cookie whose counter wraps around after one block",
        algorithm: Algorithm::Aes128GcmSiv,
        key: "000102030405060708090a0b0c0d0e0f",
        nonce: "c8c9cacbcccdcecfd0d1d2d3",
        associated_data: "",
        plain: "e744f74243a0921bf27e65695d380b74101112131415161718191a1b1c1d1e1f20212223242526\
                2728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
        sealed: "2a703acbe5f4403a61e3f9b7f7f900e45eb992066b5fad1dc049a878d96af9c317217d8aed62d6\
                71474ac22617f18b092e3263970e2a7773c39d8d9259b7437dffffffff02030405060708090001\
                0203",
    },
];
