//! The ring of master keys: two previous, the current, the next.
//!
//! The slot of a key is its identifier modulo four; the rest of the identifier is random. A
//! rotation makes the next key current and puts a new next key into the oldest slot, so a cookie
//! lives for two to three rotations, and every server that shares the ring already knows the
//! next key when one of them starts to use it.

use crate::aead::{Algorithm, MasterKey};
use crate::limits::RING_KEYS;

/// Four master keys in order of their age, the third of them current.
#[derive(Debug)]
pub struct KeyRing {
    keys: [MasterKey; RING_KEYS],
}

/// Place of the current key among the four.
const CURRENT: usize = 2;

/// Four keys that are no ring: their identifiers do not follow each other modulo four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {second:08X} does not follow key {first:08X}: the last two bits must count up")]
pub struct OrderError {
    first: u32,
    second: u32,
}

impl KeyRing {
    /// From four keys, oldest first: two previous, current, next.
    pub fn new(keys: [MasterKey; RING_KEYS]) -> Result<Self, OrderError> {
        for pair in keys.windows(2) {
            let (first, second) = (pair[0].id(), pair[1].id());
            if second.wrapping_sub(first) % RING_KEYS as u32 != 1 {
                return Err(OrderError { first, second });
            }
        }
        Ok(Self { keys })
    }

    /// Four new keys of `algorithm` from `fill`, which must be a cryptographic source.
    pub fn generate(algorithm: Algorithm, mut fill: impl FnMut(&mut [u8])) -> Self {
        let keys = std::array::from_fn(|slot| generate(slot as u32, algorithm, &mut fill));
        Self { keys }
    }

    /// The next key becomes current, and a new one from `fill`, which must be a cryptographic
    /// source, becomes next in the slot of the oldest, which is gone. The new key's algorithm is
    /// that of the one before it: some clients refuse cookies of another length.
    pub fn rotate(&mut self, fill: impl FnMut(&mut [u8])) {
        let next = &self.keys[RING_KEYS - 1];
        let new = generate(next.id().wrapping_add(1), next.algorithm(), fill);
        self.keys.rotate_left(1);
        self.keys[RING_KEYS - 1] = new;
    }

    /// The key with this identifier, whatever its age.
    pub fn find(&self, id: u32) -> Option<&MasterKey> {
        self.keys.iter().find(|key| key.id() == id)
    }

    /// The place of the key with this identifier among all four, oldest first.
    pub fn place(&self, id: u32) -> Option<usize> {
        self.keys.iter().position(|key| key.id() == id)
    }

    /// The key that makes cookies.
    pub fn current(&self) -> &MasterKey {
        &self.keys[CURRENT]
    }

    /// All four, oldest first.
    pub fn keys(&self) -> &[MasterKey; RING_KEYS] {
        &self.keys
    }

    /// The keys' places. Who writes them keeps the order of their identifiers.
    pub(crate) fn keys_mut(&mut self) -> &mut [MasterKey; RING_KEYS] {
        &mut self.keys
    }
}

/// A new key for the slot that the last two bits of `slot` name.
fn generate(slot: u32, algorithm: Algorithm, mut fill: impl FnMut(&mut [u8])) -> MasterKey {
    let slots = RING_KEYS as u32 - 1;
    let mut id = [0; 4];
    fill(&mut id);
    let id = u32::from_be_bytes(id) & !slots | slot & slots;
    let mut bytes = zeroize::Zeroizing::new([0; 64]);
    let bytes = &mut bytes[..algorithm.key_bytes()];
    fill(bytes);
    MasterKey::new(id, algorithm, bytes).expect("the length is the algorithm's own")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> MasterKey {
        MasterKey::new(id, Algorithm::AesSivCmac256, &[7; 32]).expect("32 bytes")
    }

    #[test]
    fn identifiers_must_count_up_modulo_four() {
        assert!(KeyRing::new([key(0xfc), key(0x11), key(0xa2), key(0x3)]).is_ok());
        assert!(KeyRing::new([key(0xfd), key(0x12), key(0xa3), key(0x4)]).is_ok());
        let error = KeyRing::new([key(0), key(1), key(3), key(2)]).expect_err("1 then 3");
        assert_eq!(
            error.to_string(),
            "key 00000003 does not follow key 00000001: the last two bits must count up"
        );
    }

    #[test]
    fn a_generated_ring_is_in_order_and_its_keys_differ() {
        let mut byte = 0_u8;
        let ring = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| {
            for place in bytes {
                byte = byte.wrapping_add(37);
                *place = byte;
            }
        });
        let slots: Vec<u32> = ring.keys().iter().map(|key| key.id() & 3).collect();
        assert_eq!(slots, [0, 1, 2, 3]);
        assert_eq!(ring.current().id() & 3, 2);
        assert_ne!(ring.keys()[0].expose_bytes(), ring.keys()[1].expose_bytes());
        for key in ring.keys() {
            assert_eq!(ring.find(key.id()).map(MasterKey::id), Some(key.id()));
        }
        assert!(ring.find(ring.current().id() ^ 4).is_none());
    }

    #[test]
    fn a_rotation_moves_every_key_one_place_and_forgets_the_oldest() {
        let mut random = crate::aead::NonceGenerator::from_seed(&[5; 32]);
        for algorithm in [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv] {
            let mut ring = KeyRing::generate(algorithm, |bytes| random.fill(bytes));
            for _ in 0..9 {
                let before: Vec<(u32, Vec<u8>)> = ring.keys().iter().map(parts).collect();
                ring.rotate(|bytes| random.fill(bytes));
                let after: Vec<(u32, Vec<u8>)> = ring.keys().iter().map(parts).collect();
                assert_eq!(before[1..], after[..3]);
                assert_eq!(ring.current().id(), before[3].0, "the next one is current now");
                assert_eq!(after[3].0 & 3, before[0].0 & 3, "the slot of the oldest");
                assert!(before.iter().all(|(_, bytes)| *bytes != after[3].1));
                assert_eq!(ring.keys()[3].algorithm(), algorithm);
            }
        }
    }

    fn parts(key: &MasterKey) -> (u32, Vec<u8>) {
        (key.id(), key.expose_bytes().to_vec())
    }
}
