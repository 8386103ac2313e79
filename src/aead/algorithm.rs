//! The AEAD algorithms that NTS clients and servers use.

use std::fmt;

/// Bytes of the authentication tag, the same for all three algorithms. For AES-SIV this is the
/// synthetic initialisation vector (RFC 5297 section 2.6), for AES-GCM-SIV RFC 8452 section 4.
pub const TAG_BYTES: usize = 16;

/// An AEAD algorithm, by its number in the IANA registry "AEAD Algorithms" (RFC 5116 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Algorithm {
    /// AES-SIV with two 128-bit keys (RFC 5297 section 6.1); mandatory for NTS (RFC 8915
    /// section 5.1).
    AesSivCmac256 = 15,
    /// AES-SIV with two 256-bit keys (RFC 5297 section 6.3).
    AesSivCmac512 = 17,
    /// AES-GCM-SIV with a 128-bit key (RFC 8452 section 6).
    Aes128GcmSiv = 30,
}

impl Algorithm {
    /// The algorithm with this IANA number, if it is one of ours.
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            15 => Some(Self::AesSivCmac256),
            17 => Some(Self::AesSivCmac512),
            30 => Some(Self::Aes128GcmSiv),
            _ => None,
        }
    }

    /// The algorithm whose C2S and S2C keys take `bytes` together. A cookie does not name the
    /// client's algorithm: the length of its plaintext does.
    pub const fn from_key_pair_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            32 => Some(Self::Aes128GcmSiv),
            64 => Some(Self::AesSivCmac256),
            128 => Some(Self::AesSivCmac512),
            _ => None,
        }
    }

    /// The IANA number.
    pub const fn id(self) -> u16 {
        self as u16
    }

    /// The name in the IANA registry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesSivCmac256 => "AES-SIV-CMAC-256",
            Self::AesSivCmac512 => "AES-SIV-CMAC-512",
            Self::Aes128GcmSiv => "AES-128-GCM-SIV",
        }
    }

    /// Bytes of one key.
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::AesSivCmac256 => 32,
            Self::AesSivCmac512 => 64,
            Self::Aes128GcmSiv => 16,
        }
    }

    /// Bytes of the nonces we generate. AES-GCM-SIV takes no other length; for AES-SIV, which
    /// takes any, it is the least that RFC 8915 section 5.7 lets a client count on.
    pub const fn nonce_bytes(self) -> usize {
        match self {
            Self::AesSivCmac256 | Self::AesSivCmac512 => 16,
            Self::Aes128GcmSiv => 12,
        }
    }

    /// Where the plaintext, or the ciphertext, lies in a sealed text: behind the tag for AES-SIV,
    /// in front of it for AES-GCM-SIV.
    pub const fn plaintext_offset(self) -> usize {
        match self {
            Self::AesSivCmac256 | Self::AesSivCmac512 => TAG_BYTES,
            Self::Aes128GcmSiv => 0,
        }
    }

    /// Where the tag lies in a sealed text of `sealed_bytes`, which are at least [`TAG_BYTES`].
    pub const fn tag_offset(self, sealed_bytes: usize) -> usize {
        match self {
            Self::AesSivCmac256 | Self::AesSivCmac512 => 0,
            Self::Aes128GcmSiv => sealed_bytes - TAG_BYTES,
        }
    }

    /// Whether a nonce of this length can be used at all (RFC 5297 section 6: at least one byte;
    /// RFC 8452 section 6: exactly twelve).
    pub const fn accepts_nonce_bytes(self, bytes: usize) -> bool {
        match self {
            Self::AesSivCmac256 | Self::AesSivCmac512 => bytes >= 1,
            Self::Aes128GcmSiv => bytes == 12,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 3] =
        [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv];

    #[test]
    fn numbers_and_key_lengths_lead_back_to_the_algorithm() {
        for algorithm in ALL {
            assert_eq!(Algorithm::from_id(algorithm.id()), Some(algorithm));
            let pair_bytes = 2 * algorithm.key_bytes();
            assert_eq!(Algorithm::from_key_pair_bytes(pair_bytes), Some(algorithm));
        }
        assert_eq!(Algorithm::from_id(16), None);
        assert_eq!(Algorithm::from_key_pair_bytes(96), None);
    }

    #[test]
    fn tag_and_text_do_not_overlap() {
        for algorithm in ALL {
            let sealed_bytes = 120;
            let (tag, text) = (algorithm.tag_offset(sealed_bytes), algorithm.plaintext_offset());
            assert_eq!(tag + text, sealed_bytes - TAG_BYTES.max(if tag == 0 { 104 } else { 16 }));
        }
    }
}
