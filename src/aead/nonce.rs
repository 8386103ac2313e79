//! Nonces that never repeat and cannot be linked.
//!
//! A bare counter would do for uniqueness, but a client that polls from a new network with a
//! cookie whose nonce is near another's could be recognised; RFC 8915 section 6 asks that cookies
//! cannot be linked. So: a deterministic random bit generator, AES-256 in counter mode, keyed by
//! the kernel, with fast key erasure (each refill's first 32 bytes become the next key, and bytes
//! are zeroed as they are handed out, so a later theft tells nothing about earlier nonces).

use std::time::{Duration, Instant};

use aes::Aes256;
use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits::{NONCE_BUFFER_BYTES, NONCE_RESEED_REFILLS, NONCE_RESEED_SECONDS};

/// The nonces of one worker. Not shared: each worker owns one, keyed apart from all others.
pub struct NonceGenerator {
    key: [u8; SEED_BYTES],
    buffer: [u8; NONCE_BUFFER_BYTES],
    /// Bytes of `buffer` that have been handed out, the key's included.
    used: usize,
    source: Source,
    process: u32,
    refills: u32,
    seeded_at: Instant,
}

impl NonceGenerator {
    /// Keyed by the kernel (getrandom(2)).
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut generator = Self::keyed([0; SEED_BYTES], Source::Kernel);
        generator.reseed()?;
        Ok(generator)
    }

    /// Keyed by `seed` for ever, so that tests and benches can repeat a run. Never for real
    /// nonces.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        Self::keyed(*seed, Source::Seed)
    }

    /// Fills `nonces` with fresh random bytes.
    pub fn fill(&mut self, nonces: &mut [u8]) {
        let mut rest = nonces;
        while !rest.is_empty() {
            if self.used == NONCE_BUFFER_BYTES {
                self.refill();
            }
            let taken = rest.len().min(NONCE_BUFFER_BYTES - self.used);
            let (now, later) = rest.split_at_mut(taken);
            let fresh = &mut self.buffer[self.used..self.used + taken];
            now.copy_from_slice(fresh);
            fresh.fill(0);
            self.used += taken;
            rest = later;
        }
    }

    fn keyed(key: [u8; SEED_BYTES], source: Source) -> Self {
        Self {
            key,
            buffer: [0; NONCE_BUFFER_BYTES],
            used: NONCE_BUFFER_BYTES,
            source,
            process: std::process::id(),
            refills: 0,
            seeded_at: Instant::now(),
        }
    }

    /// Replaces the key and the whole buffer.
    fn refill(&mut self) {
        let forked = self.process != std::process::id();
        let old = self.refills >= NONCE_RESEED_REFILLS
            || self.seeded_at.elapsed() >= Duration::from_secs(NONCE_RESEED_SECONDS);
        if self.source == Source::Kernel && (old || forked) {
            // The kernel's generator cannot fail once it has worked (getrandom(2)), and going on
            // under the old key is as good as it was before; after a fork it is not.
            let reseeded = self.reseed();
            assert!(reseeded.is_ok() || !forked, "getrandom failed in a forked process");
        }
        let cipher = Aes256::new(&self.key.into());
        let (blocks, _) = Block::<Aes256>::slice_as_chunks_mut(&mut self.buffer);
        for (number, block) in (0u128..).zip(blocks.iter_mut()) {
            *block = number.to_le_bytes().into();
        }
        cipher.encrypt_blocks(blocks);
        let (key, _) = self.buffer.split_at_mut(SEED_BYTES);
        self.key.copy_from_slice(key);
        key.fill(0);
        self.used = SEED_BYTES;
        self.refills += 1;
    }

    fn reseed(&mut self) -> Result<(), getrandom::Error> {
        let mut fresh = [0; SEED_BYTES];
        getrandom::fill(&mut fresh)?;
        self.key = fresh;
        fresh.zeroize();
        self.process = std::process::id();
        self.refills = 0;
        self.seeded_at = Instant::now();
        Ok(())
    }
}

impl Drop for NonceGenerator {
    fn drop(&mut self) {
        self.key.zeroize();
        self.buffer.zeroize();
    }
}

impl ZeroizeOnDrop for NonceGenerator {}

/// Where the key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Kernel,
    Seed,
}

/// Bytes of an AES-256 key.
const SEED_BYTES: usize = 32;
