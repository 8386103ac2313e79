//! The page that holds the ring of master keys.
//!
//! The supervisor writes it, and no other process can. Workers look at it before every batch and
//! key establishment before every answer: one load when nothing has changed. A ring is published
//! with its next key, so every reader has that key long before it makes cookies; and a worker that
//! meets a cookie of a key published a moment ago looks at the page first, after the cookie came.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use zeroize::Zeroizing;

use super::{Reader, Writer};
use crate::aead::{Algorithm, MasterKey};
use crate::cookie::ring::KeyRing;
use crate::limits::RING_KEYS;

/// Words of one key: identifier and algorithm, then the bytes of the longer kind, AEAD 15.
const KEY_WORDS: usize = 1 + 4;
const WORDS: usize = RING_KEYS * KEY_WORDS;

/// Changes with the layout.
const LAYOUT: u64 = u64::from_be_bytes(*b"tb:key:1");

/// The writing end.
#[derive(Debug)]
pub struct KeyPage {
    page: Writer<WORDS>,
}

impl KeyPage {
    /// A new page that holds `ring`.
    pub fn create(ring: &KeyRing) -> io::Result<Self> {
        let mut page = Self { page: Writer::create("timeball-keys", LAYOUT)? };
        page.publish(ring);
        Ok(page)
    }

    /// Gives every reader this ring.
    pub fn publish(&mut self, ring: &KeyRing) {
        let mut words = Zeroizing::new([0; WORDS]);
        for (place, key) in words.chunks_exact_mut(KEY_WORDS).zip(ring.keys()) {
            place[0] = u64::from(key.id()) << 32 | u64::from(key.algorithm().id());
            for (word, bytes) in place[1..].iter_mut().zip(key.expose_bytes().chunks_exact(8)) {
                *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            }
        }
        self.page.write(&words);
    }

    /// The page, for handing over to readers.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.page.file()
    }
}

/// The ring as a reader has it: expanded, and never older than its last look at the page.
pub struct SharedRing {
    page: Reader<WORDS>,
    ring: KeyRing,
}

impl SharedRing {
    /// Maps the page and takes the ring; fails for any other file, or without a ring in it.
    pub fn open(file: impl AsFd) -> io::Result<Self> {
        let mut page = Reader::open(file, LAYOUT)?;
        let words = page.news().ok_or(io::ErrorKind::InvalidData)?;
        let mut keys = words
            .chunks_exact(KEY_WORDS)
            .map(|words| with_key(words, MasterKey::new).and_then(Result::ok));
        let keys: [Option<MasterKey>; RING_KEYS] = std::array::from_fn(|_| keys.next().flatten());
        let [Some(a), Some(b), Some(c), Some(d)] = keys else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let ring = KeyRing::new([a, b, c, d]).map_err(io::Error::other)?;
        page.wipe();
        Ok(Self { page, ring })
    }

    /// The ring, after a look at the page: one load when nothing has changed. A new ring is
    /// expanded in the place of the old one, without allocating.
    #[inline]
    pub fn latest(&mut self) -> &KeyRing {
        if let Some(words) = self.page.news() {
            // The supervisor publishes whole rings only, so each key is one, in its order.
            for (words, key) in words.chunks_exact(KEY_WORDS).zip(self.ring.keys_mut()) {
                with_key(words, |id, algorithm, bytes| key.replace(id, algorithm, bytes));
            }
            self.page.wipe();
        }
        &self.ring
    }
}

/// Calls `take` with what the words of a key say; not at all if they are none.
fn with_key<T>(words: &[u64], take: impl FnOnce(u32, Algorithm, &[u8]) -> T) -> Option<T> {
    let (head, words) = words.split_first()?;
    let id = (head >> 32) as u32;
    let algorithm = [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv]
        .into_iter()
        .find(|algorithm| u64::from(algorithm.id()) == head & 0xffff_ffff)?;
    let mut bytes = Zeroizing::new([0; 8 * (KEY_WORDS - 1)]);
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Some(take(id, algorithm, &bytes[..algorithm.key_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead::NonceGenerator;

    fn assert_same(shared: &mut SharedRing, ring: &KeyRing) {
        for (found, key) in shared.latest().keys().iter().zip(ring.keys()) {
            assert_eq!((found.id(), found.algorithm()), (key.id(), key.algorithm()));
            assert_eq!(found.expose_bytes(), key.expose_bytes());
        }
    }

    #[test]
    fn readers_have_the_ring_that_was_published_last() {
        let mut random = NonceGenerator::from_seed(&[3; 32]);
        let mut ring = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| random.fill(bytes));
        let mut page = KeyPage::create(&ring).expect("made");
        let mut readers = [0; 2].map(|_| SharedRing::open(page.file()).expect("mapped"));
        for _ in 0..6 {
            ring.rotate(|bytes| random.fill(bytes));
            page.publish(&ring);
            readers.iter_mut().for_each(|reader| assert_same(reader, &ring));
        }
        // The operator's change to keys of another length, and back.
        for algorithm in [Algorithm::Aes128GcmSiv, Algorithm::AesSivCmac256] {
            let other = KeyRing::generate(algorithm, |bytes| random.fill(bytes));
            page.publish(&other);
            readers.iter_mut().for_each(|reader| assert_same(reader, &other));
        }
    }

    #[test]
    fn what_is_no_key_page_is_refused() {
        let page = Writer::<WORDS>::create("timeball-test", LAYOUT).expect("made");
        assert!(SharedRing::open(page.file()).is_err(), "nothing is written yet");
        let mut page = Writer::<WORDS>::create("timeball-test", LAYOUT).expect("made");
        page.write(&[0; WORDS]);
        assert!(SharedRing::open(page.file()).is_err(), "no algorithm 0");
        assert!(SharedRing::open(std::fs::File::open("/dev/null").expect("open")).is_err());
    }
}
