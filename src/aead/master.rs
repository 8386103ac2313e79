//! The server's own keys, under which cookies are sealed.

use std::fmt;

use zeroize::Zeroizing;

use super::Algorithm;

/// A master key: its number, its algorithm, and everything that is derived from it once, so that
/// no cookie pays for it. Wiped on drop; `Debug` prints the number only.
pub struct MasterKey {
    id: u32,
    algorithm: Algorithm,
    bytes: Zeroizing<Vec<u8>>,
}

impl MasterKey {
    /// Takes the raw bytes of a key for AEAD 15 (32 bytes) or AEAD 30 (16 bytes), the two kinds
    /// that chrony's `ntskeys` file can hold too.
    pub fn new(id: u32, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, MasterKeyError> {
        if algorithm == Algorithm::AesSivCmac512 {
            return Err(MasterKeyError::Algorithm(algorithm));
        }
        if bytes.len() != algorithm.key_bytes() {
            return Err(MasterKeyError::KeyBytes {
                algorithm,
                expected: algorithm.key_bytes(),
                found: bytes.len(),
            });
        }
        Ok(Self { id, algorithm, bytes: Zeroizing::new(bytes.to_vec()) })
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
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key() {
        let key = MasterKey::new(7, Algorithm::AesSivCmac256, &[0xa5; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "MasterKey { id: 7, .. }");
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
