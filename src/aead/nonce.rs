//! Nonces that never repeat and cannot be linked.
//!
//! A bare counter would do for uniqueness, but a client that polls from a new network with a
//! cookie whose nonce is near another's could be recognised; RFC 8915 section 6 asks that cookies
//! cannot be linked. So: a deterministic random bit generator, AES-256 in counter mode, keyed by
//! the kernel, with fast key erasure (each refill's first 32 bytes become the next key, and bytes
//! are zeroed as they are handed out, so a later theft tells nothing about earlier nonces).
//!
//! Fork-safe: a page that the kernel wipes in children (MADV_WIPEONFORK) is looked at for every
//! nonce, so that a child throws its copy of the buffer away. Role processes are executed anew and
//! never fork after their start: this is the second line.

use std::time::{Duration, Instant};

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::arch::ForkMark;
use crate::limits::{NONCE_BUFFER_BYTES, NONCE_RESEED_REFILLS, NONCE_RESEED_SECONDS};

/// The nonces of one worker. Not shared: each worker owns one, keyed apart from all others.
pub struct NonceGenerator {
    key: [u8; SEED_BYTES],
    buffer: [[u8; BLOCK_BYTES]; BLOCKS],
    /// Blocks of `buffer` that have been handed out, the key's included.
    used: usize,
    source: Source,
    /// Every generator has one but those from a seed, which a fork may repeat like any run.
    fork_mark: Option<ForkMark>,
    refills: u32,
    seeded_at: Instant,
}

impl NonceGenerator {
    /// Keyed by the kernel (getrandom(2)). Fails too where the kernel cannot tell us about forks
    /// (before Linux 4.14).
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut generator = Self::keyed([0; SEED_BYTES], Source::Kernel);
        generator.fork_mark = Some(ForkMark::new().map_err(|_| getrandom::Error::UNSUPPORTED)?);
        generator.reseed()?;
        Ok(generator)
    }

    /// Keyed by `seed` for ever, so that tests and benches can repeat a run. Never for real
    /// nonces.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        Self::keyed(*seed, Source::Seed)
    }

    /// Fills `nonces` with fresh random bytes.
    #[inline]
    pub fn fill(&mut self, nonces: &mut [u8]) {
        match <&mut [u8; BLOCK_BYTES]>::try_from(&mut *nonces) {
            // A length known in advance: a load and two stores instead of two calls.
            Ok(nonce) => *nonce = self.block(),
            Err(_) => self.fill_any(nonces),
        }
    }

    /// The next whole block.
    #[inline]
    fn block(&mut self) -> [u8; BLOCK_BYTES] {
        if self.used >= BLOCKS || self.fork_mark.as_ref().is_some_and(ForkMark::is_wiped) {
            self.refill();
        }
        let block = self.buffer[self.used];
        self.buffer[self.used] = [0; BLOCK_BYTES];
        self.used += 1;
        block
    }

    fn fill_any(&mut self, nonces: &mut [u8]) {
        for nonce in nonces.chunks_mut(BLOCK_BYTES) {
            let block = self.block();
            nonce.copy_from_slice(&block[..nonce.len()]);
        }
    }

    fn keyed(key: [u8; SEED_BYTES], source: Source) -> Self {
        Self {
            key,
            buffer: [[0; BLOCK_BYTES]; BLOCKS],
            used: BLOCKS,
            source,
            fork_mark: None,
            refills: 0,
            seeded_at: Instant::now(),
        }
    }

    /// Replaces the key and the whole buffer.
    #[cold]
    fn refill(&mut self) {
        let forked = self.fork_mark.as_ref().is_some_and(ForkMark::is_wiped);
        let old = self.refills >= NONCE_RESEED_REFILLS
            || self.seeded_at.elapsed() >= Duration::from_secs(NONCE_RESEED_SECONDS);
        if self.source == Source::Kernel && (old || forked) {
            // The kernel's generator cannot fail once it has worked (getrandom(2)), and going on
            // under the old key is as good as it was before; after a fork it is not.
            let reseeded = self.reseed();
            assert!(reseeded.is_ok() || !forked, "getrandom failed in a forked process");
        }
        let cipher = Aes256::new(&self.key.into());
        for (number, block) in (0u128..).zip(&mut self.buffer) {
            *block = number.to_le_bytes();
        }
        cipher.encrypt_blocks(Array::cast_slice_from_core_mut(&mut self.buffer));
        self.key.copy_from_slice(self.buffer[..KEY_BLOCKS].as_flattened());
        self.buffer[..KEY_BLOCKS].fill([0; BLOCK_BYTES]);
        self.used = KEY_BLOCKS;
        self.refills += 1;
    }

    fn reseed(&mut self) -> Result<(), getrandom::Error> {
        let mut fresh = [0; SEED_BYTES];
        getrandom::fill(&mut fresh)?;
        self.key = fresh;
        fresh.zeroize();
        self.fork_mark.iter().for_each(ForkMark::set);
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

/// Bytes of an AES block.
const BLOCK_BYTES: usize = 16;

/// Blocks of the buffer.
const BLOCKS: usize = NONCE_BUFFER_BYTES / BLOCK_BYTES;

/// Blocks of a refill that become the next key.
const KEY_BLOCKS: usize = SEED_BYTES / BLOCK_BYTES;
