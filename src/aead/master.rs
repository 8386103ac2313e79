//! The server's own keys, under which cookies are sealed.

use std::fmt;

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, hazmat};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Algorithm, TAG_BYTES};

/// A master key: its number, its algorithm, and everything that is derived from it once, so that
/// no cookie pays for it. Wiped on drop; `Debug` prints the number only.
pub struct MasterKey {
    id: u32,
    algorithm: Algorithm,
    bytes: Zeroizing<Vec<u8>>,
    derived: Box<Derived>,
}

impl MasterKey {
    /// Takes the raw bytes of a key for AEAD 15 (32 bytes) or AEAD 30 (16 bytes), the two kinds
    /// that chrony's `ntskeys` file can hold too.
    pub fn new(id: u32, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, MasterKeyError> {
        check(algorithm, bytes)?;
        let derived = Box::new(Derived::new(bytes));
        // Room for the longer kind, so that `replace` need not grow it.
        let mut place = Zeroizing::new(Vec::with_capacity(KEY_BYTES_MAX));
        place.extend_from_slice(bytes);
        Ok(Self { id, algorithm, bytes: place, derived })
    }

    /// Becomes another key in the same place, and wipes the old one: for a thread that must not
    /// allocate.
    pub fn replace(
        &mut self,
        id: u32,
        algorithm: Algorithm,
        bytes: &[u8],
    ) -> Result<(), MasterKeyError> {
        check(algorithm, bytes)?;
        (self.id, self.algorithm) = (id, algorithm);
        self.bytes.zeroize();
        self.bytes.extend_from_slice(bytes);
        *self.derived = Derived::new(bytes);
        Ok(())
    }

    /// The number that cookies carry.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The algorithm of the cookies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw key, for the file that stores it. Never log it.
    pub fn expose_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the kernels need; `None` if this is no key of AEAD 15.
    pub(super) fn siv(&self) -> Option<&SivConstants> {
        match &*self.derived {
            Derived::Siv(constants) => Some(constants),
            Derived::GcmSiv(_) => None,
        }
    }

    /// What the kernels need; `None` if this is no key of AEAD 30.
    pub(super) fn gcm_siv(&self) -> Option<&GcmSivConstants> {
        match &*self.derived {
            Derived::Siv(_) => None,
            Derived::GcmSiv(constants) => Some(constants),
        }
    }
}

/// Bytes of a key for AEAD 15, the longer kind.
const KEY_BYTES_MAX: usize = Algorithm::AesSivCmac256.key_bytes();

fn check(algorithm: Algorithm, bytes: &[u8]) -> Result<(), MasterKeyError> {
    if algorithm == Algorithm::AesSivCmac512 {
        return Err(MasterKeyError::Algorithm(algorithm));
    }
    let (expected, found) = (algorithm.key_bytes(), bytes.len());
    if found != expected {
        return Err(MasterKeyError::KeyBytes { algorithm, expected, found });
    }
    Ok(())
}

impl ZeroizeOnDrop for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why bytes cannot be a master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// Only AEAD 15 and 30 seal cookies: chrony knows no other.
    #[error("{} (AEAD {}) cannot be the algorithm of a master key; use 15 or 30", .0, .0.id())]
    Algorithm(Algorithm),
    /// The key does not have the length of its algorithm.
    #[error("a {algorithm} key has {expected} bytes, this one has {found}")]
    KeyBytes {
        /// The algorithm of the key.
        algorithm: Algorithm,
        /// Bytes such a key has.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
}

/// What is derived from a key once, in one place for both kinds.
#[expect(clippy::large_enum_variant, reason = "one follows the other without an allocation")]
enum Derived {
    Siv(SivConstants),
    GcmSiv(GcmSivConstants),
}

impl Derived {
    /// From a key whose length has been checked.
    fn new(key: &[u8]) -> Self {
        match key.try_into() {
            Ok(key) => Self::Siv(SivConstants::new(key)),
            Err(_) => Self::GcmSiv(GcmSivConstants::new(key.try_into().expect("16 bytes"))),
        }
    }
}

/// What AES-SIV-CMAC-256 derives from a key alone. In portable code, because it runs once a key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct SivConstants {
    pub(super) mac_round_keys: RoundKeys,
    pub(super) ctr_round_keys: RoundKeys,
    /// K1 of CMAC, for messages that end in a full block.
    pub(super) subkey_full: [u8; TAG_BYTES],
    /// dbl(dbl(CMAC(0)) ^ CMAC("")): S2V with the empty associated data of cookies taken in.
    pub(super) delta: [u8; TAG_BYTES],
}

impl SivConstants {
    fn new(key: &[u8; 32]) -> Self {
        let (mac_key, ctr_key) = key.split_at(16);
        let mac = Aes128::new_from_slice(mac_key).expect("16 bytes");
        let encrypt = |block: u128| {
            let mut block = Array::from(block.to_be_bytes());
            mac.encrypt_block(&mut block);
            u128::from_be_bytes(block.into())
        };
        let subkey_full = double(encrypt(0));
        let subkey_padded = double(subkey_full);
        let of_zero = encrypt(subkey_full);
        let of_nothing = encrypt(subkey_padded ^ 1 << 127);
        Self {
            mac_round_keys: expand(mac_key.try_into().expect("16 bytes")),
            ctr_round_keys: expand(ctr_key.try_into().expect("16 bytes")),
            subkey_full: subkey_full.to_be_bytes(),
            delta: double(double(of_zero) ^ of_nothing).to_be_bytes(),
        }
    }
}

/// What AES-128-GCM-SIV derives from a key alone: all else depends on the nonce.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct GcmSivConstants {
    pub(super) round_keys: RoundKeys,
}

impl GcmSivConstants {
    fn new(key: &[u8; 16]) -> Self {
        Self { round_keys: expand(key) }
    }
}

/// Doubling in GF(2¹²⁸) (RFC 5297 section 2.3), without a branch on the secret.
fn double(block: u128) -> u128 {
    (block << 1) ^ ((block >> 127) * 0x87)
}

/// The key schedule of AES-128 (FIPS 197 section 5.2).
fn expand(key: &[u8; 16]) -> RoundKeys {
    let mut keys = [*key; 11];
    let mut constant = 1u8;
    for round in 1..keys.len() {
        let before = keys[round - 1];
        let [.., a, b, c, d] = before;
        let mut word = substitute([b, c, d, a]);
        word[0] ^= constant;
        for (index, byte) in keys[round].iter_mut().enumerate() {
            word[index % 4] ^= before[index];
            *byte = word[index % 4];
        }
        constant = (constant << 1) ^ ((constant >> 7) * 0x1b);
    }
    keys
}

/// SubWord without a table that the cache could betray: an AES round of a block with four equal
/// columns, which ShiftRows does not change, with MixColumns undone.
fn substitute(word: [u8; 4]) -> [u8; 4] {
    let mut block = Array::from([word; 4].as_flattened().try_into().unwrap_or([0; 16]));
    hazmat::cipher_round(&mut block, &Array::default());
    hazmat::inv_mix_columns(&mut block);
    [block[0], block[1], block[2], block[3]]
}

/// The round keys of AES-128.
type RoundKeys = [[u8; 16]; 11];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key() {
        let key = MasterKey::new(7, Algorithm::AesSivCmac256, &[0xa5; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "MasterKey { id: 7, .. }");
    }

    #[test]
    fn the_key_schedule_is_that_of_fips_197() {
        let key = 0x2b7e1516_28aed2a6_abf71588_09cf4f3c_u128.to_be_bytes();
        let last = 0xd014f9a8_c9ee2589_e13f0cc8_b6630ca6_u128.to_be_bytes();
        assert_eq!(expand(&key)[10], last);
    }

    #[test]
    fn wrong_lengths_and_algorithms_are_refused() {
        assert!(MasterKey::new(1, Algorithm::AesSivCmac256, &[0; 31]).is_err());
        assert!(MasterKey::new(1, Algorithm::Aes128GcmSiv, &[0; 32]).is_err());
        let refused = MasterKey::new(1, Algorithm::AesSivCmac512, &[0; 64]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "AES-SIV-CMAC-512 (AEAD 17) cannot be the algorithm of a master key; use 15 or 30"
        );
    }
}
