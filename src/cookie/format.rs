//! The bytes of a cookie: `key id (4, big endian) | nonce | AEAD(master key, nonce, C2S ‖ S2C)`.
//!
//! There is no associated data, and the client's AEAD is told by the length of the two keys.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::aead::{Algorithm, CookieMake, MasterKey, TAG_BYTES};
use crate::limits::CLIENT_KEYS_BYTES_MAX;

/// Master key identifier in front of a cookie.
const KEY_ID_BYTES: usize = 4;

/// Length in bytes of a cookie that a master key of one algorithm makes for a client of another.
/// Always a multiple of four, so that the cookie fills its extension field.
pub const fn cookie_bytes(master: Algorithm, client: Algorithm) -> usize {
    KEY_ID_BYTES + master.nonce_bytes() + TAG_BYTES + 2 * client.key_bytes()
}

/// The keys of one client: C2S and S2C, 16 to 64 bytes each.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ClientKeys {
    bytes: [u8; CLIENT_KEYS_BYTES_MAX],
    #[zeroize(skip)]
    algorithm: Algorithm,
}

impl ClientKeys {
    /// A place for keys to be opened into; its keys are zero.
    pub const fn empty() -> Self {
        Self { bytes: [0; CLIENT_KEYS_BYTES_MAX], algorithm: Algorithm::AesSivCmac256 }
    }

    /// From the two keys; `None` if their lengths are not those of `algorithm`.
    pub fn new(algorithm: Algorithm, c2s: &[u8], s2c: &[u8]) -> Option<Self> {
        let key_bytes = algorithm.key_bytes();
        if c2s.len() != key_bytes || s2c.len() != key_bytes {
            return None;
        }
        let mut keys = Self::empty();
        keys.algorithm = algorithm;
        keys.bytes[..key_bytes].copy_from_slice(c2s);
        keys.bytes[key_bytes..2 * key_bytes].copy_from_slice(s2c);
        Some(keys)
    }

    /// The AEAD both keys belong to.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Client to server: authenticates requests.
    pub fn c2s(&self) -> &[u8] {
        &self.bytes[..self.algorithm.key_bytes()]
    }

    /// Server to client: authenticates and encrypts replies.
    pub fn s2c(&self) -> &[u8] {
        let key_bytes = self.algorithm.key_bytes();
        &self.bytes[key_bytes..2 * key_bytes]
    }

    /// C2S ‖ S2C, what a cookie seals.
    pub fn pair(&self) -> &[u8] {
        &self.bytes[..2 * self.algorithm.key_bytes()]
    }

    /// Where a cookie for `algorithm` is opened into.
    pub fn pair_mut(&mut self, algorithm: Algorithm) -> &mut [u8] {
        self.algorithm = algorithm;
        &mut self.bytes[..2 * algorithm.key_bytes()]
    }
}

/// Says the algorithm, never the keys.
impl std::fmt::Debug for ClientKeys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ClientKeys").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// The master key identifier of a cookie; `None` if it is too short to hold one.
pub fn key_id(cookie: &[u8]) -> Option<u32> {
    cookie.first_chunk().map(|id| u32::from_be_bytes(*id))
}

/// A cookie taken apart, still sealed.
#[derive(Clone, Copy, Debug)]
pub struct SealedCookie<'a> {
    /// Nonce of the master key's algorithm.
    pub nonce: &'a [u8],
    /// Tag and encrypted keys.
    pub sealed: &'a [u8],
    /// The client's AEAD, told by the length.
    pub client: Algorithm,
}

/// Takes a cookie apart that names a master key of the algorithm `master`; `None` if no client's
/// keys have its length.
pub fn split(cookie: &[u8], master: Algorithm) -> Option<SealedCookie<'_>> {
    let (nonce, sealed) = cookie.get(KEY_ID_BYTES..)?.split_at_checked(master.nonce_bytes())?;
    let client = Algorithm::from_key_pair_bytes(sealed.len().checked_sub(TAG_BYTES)?)?;
    Some(SealedCookie { nonce, sealed, client })
}

/// Writes key identifier and nonce into `cookie` and returns the work that seals `keys` into the
/// rest. `cookie` has [`cookie_bytes`]; `nonce` is the master key's nonce length and never used
/// twice.
pub fn prepare<'a>(
    cookie: &'a mut [u8],
    master: &'a MasterKey,
    nonce: &[u8],
    keys: &'a ClientKeys,
) -> CookieMake<'a> {
    let (id, rest) = cookie.split_at_mut(KEY_ID_BYTES);
    let (nonce_place, sealed) = rest.split_at_mut(master.algorithm().nonce_bytes());
    id.copy_from_slice(&master.id().to_be_bytes());
    nonce_place.copy_from_slice(nonce);
    CookieMake { key: master, nonce: nonce_place, plain: keys.pair(), sealed }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table "Cookie bytes" of chrony's format.
    #[test]
    fn c031_lengths_are_chronys_and_multiples_of_four() {
        use Algorithm::{Aes128GcmSiv, AesSivCmac256, AesSivCmac512};
        assert_eq!(cookie_bytes(Aes128GcmSiv, Aes128GcmSiv), 64);
        assert_eq!(cookie_bytes(AesSivCmac256, Aes128GcmSiv), 68);
        assert_eq!(cookie_bytes(Aes128GcmSiv, AesSivCmac256), 96);
        assert_eq!(cookie_bytes(AesSivCmac256, AesSivCmac256), 100);
        assert_eq!(cookie_bytes(AesSivCmac256, AesSivCmac512), 164);
    }

    #[test]
    fn split_knows_the_client_by_the_length() {
        for master in [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv] {
            for bytes in 0..300 {
                let cookie = vec![0; bytes];
                let expected =
                    [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv]
                        .into_iter()
                        .find(|&client| cookie_bytes(master, client) == bytes);
                assert_eq!(split(&cookie, master).map(|cookie| cookie.client), expected);
            }
        }
    }

    #[test]
    fn client_keys_check_lengths_and_hide_themselves() {
        assert!(ClientKeys::new(Algorithm::AesSivCmac256, &[1; 32], &[2; 31]).is_none());
        let keys =
            ClientKeys::new(Algorithm::AesSivCmac256, &[1; 32], &[2; 32]).expect("lengths fit");
        assert_eq!((keys.c2s(), keys.s2c()), (&[1; 32][..], &[2; 32][..]));
        assert_eq!(format!("{keys:?}"), "ClientKeys { algorithm: AesSivCmac256, .. }");
    }
}
