//! AES-128-GCM-SIV for a group of lanes, written once over [`Lanes`].
//!
//! A lane is one message, as in `siv.rs`, whose tricks with lanes hold here too. All keys but a
//! master key differ from lane to lane; the keys that a message is sealed under always do.
//!
//! ```text
//! derive(K, nonce):                                          RFC 8452 section 4
//!     B(i) = the first 8 bytes of E(K, i as 4 bytes, little-endian ‖ nonce)
//!     authentication key H = B(0) ‖ B(1), encryption key E = B(2) ‖ B(3)
//! POLYVAL(H, X1 … Xn):                                       RFC 8452 section 3
//!     S = 0
//!     S = (S ^ Xi) · H · x⁻¹²⁸                                for every block
//! seal:                                                      RFC 8452 section 4
//!     S = POLYVAL(H, AD ‖ 0* ‖ P ‖ 0* ‖ bits of AD ‖ bits of P)
//!     tag = E(E, (S ^ nonce) without the top bit of its last byte)
//!     C = P ^ CTR(E, tag with that bit set), of which the first 32 bits count, little-endian
//! ```
//!
//! The tricks, and why:
//!
//! - **Multiplication by H and by H·x⁻⁶⁴.** With S = s₀ + s₁·x⁶⁴, S·H·x⁻¹²⁸ is
//!   (s₀·(H·x⁻⁶⁴) + s₁·H)·x⁻⁶⁴: the upper half of S goes through one division by x⁶⁴ less than the
//!   lower one, which takes its own in H·x⁻⁶⁴, once a message. A block costs five products of 64
//!   bits and a message one more. The usual way takes six (four, and a division by x¹²⁸ is two),
//!   or five with the trick of Karatsuba and its exclusive ors. It is also shorter as a chain: a
//!   product and a division, which matters where one request runs alone.
//! - **No lazy reduction.** Two blocks at a time, under H² and H, would save one product for two
//!   blocks and cost five for H²: requests of today have about ten blocks. The keys of a message
//!   die with it, so that nothing pays for tables of powers.
//! - **Division by x⁶⁴** (Montgomery): P = 1 + x⁶⁴·(x⁵⁷ + x⁶² + x⁶³ + x⁶⁴), so adding P as often as
//!   the lower word says clears that word; what is left to do is one product and an exchange of
//!   the words.
//! - **Nothing is reversed.** POLYVAL takes bits and bytes as they lie in memory.
//! - **Four blocks of derivation** depend on nothing but the nonce: they go through AES two by two
//!   beside each other.
//! - **Nonces at the end of a block**, with zeros in front: adding the number of a derivation block
//!   makes it.
//! - **The key schedule of the encryption key is a chain, POLYVAL another;** neither waits for the
//!   other, and they use different units.
//! - **Master keys are shared:** their schedules come ready from [`GcmSivConstants`].
//! - **Tails:** the last 16 bytes are loaded and shifted down, with zeros behind: padding costs
//!   nothing.

#![allow(clippy::needless_range_loop, reason = "closures do not inherit the instruction set")]

use super::Algorithm;
use super::arch::{BLOCK_BYTES, Lanes, Read, Sinks, Sources};
use super::blocks::{
    Keys, LaneKeys, OneSchedule, Schedule, SharedKey, VECTORS_MAX, encrypt, encrypt_two, expand,
    load, load_four, shift_down, store, xor,
};
use super::counter_mode::{Counter, Crypt};
use super::group::{Make, Mode, Nonces, Open, Scratch, Seal, Verify};
use super::master::GcmSivConstants;

/// The algorithm.
pub(super) struct GcmSiv;

impl Mode for GcmSiv {
    #[inline(always)]
    fn open<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Open<'_>,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        let master = master_keys(token, group.key.gcm_siv());
        let keys = MessageKeys::<V, N>::derive(token, &master, &group.nonces, &mut scratch.second);
        for vector in 0..N {
            let tag = group.sealed.block(token, vector, group.plain_bytes);
            let source = Some((&group.sealed, 0));
            keys.crypt(token, vector, tag, source, &mut group.plain, group.plain_bytes);
        }
        let (nothing, text) = (None::<(&Sources<'_>, _)>, (&group.plain, group.plain_bytes));
        store(tags, 0, keys.tags(token, nothing, Some(text)));
    }

    #[inline(always)]
    fn make<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Make<'_>,
        scratch: &mut Scratch<V>,
    ) {
        let master = master_keys(token, group.key.gcm_siv());
        let keys = MessageKeys::<V, N>::derive(token, &master, &group.nonces, &mut scratch.second);
        let (nothing, text) = (None::<(&Sources<'_>, _)>, (&group.plain, group.plain_bytes));
        let tags = keys.tags(token, nothing, Some(text));
        for vector in 0..N {
            let source = Some((&group.plain, 0));
            keys.crypt(token, vector, tags[vector], source, &mut group.sealed, group.plain_bytes);
        }
        store(&mut group.sealed, group.plain_bytes, tags);
    }

    #[inline(always)]
    fn verify<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Verify<'_>,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        expand::<V, N>(token, load(token, &group.keys, 0), &mut scratch.first);
        let client = LaneKeys(&scratch.first);
        let keys = MessageKeys::<V, N>::derive(token, &client, &group.nonces, &mut scratch.second);
        let associated = (&group.associated, group.associated_bytes);
        store(tags, 0, keys.tags(token, Some(associated), None::<(&Sources<'_>, _)>));
    }

    #[inline(always)]
    fn seal<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Seal<'_>,
        scratch: &mut Scratch<V>,
    ) {
        expand::<V, N>(token, load(token, &group.keys, 0), &mut scratch.first);
        let client = LaneKeys(&scratch.first);
        let keys = MessageKeys::<V, N>::derive(token, &client, &group.nonces, &mut scratch.second);
        let associated = (&group.associated, group.associated_bytes);
        let tags = keys.tags(token, Some(associated), Some((&group.text, group.plain_bytes)));
        for vector in 0..N {
            keys.crypt(token, vector, tags[vector], None, &mut group.text, group.plain_bytes);
        }
        store(&mut group.text, group.plain_bytes, tags);
    }

    #[inline(always)]
    fn unseal<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Seal<'_>,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        expand::<V, N>(token, load(token, &group.keys, 0), &mut scratch.first);
        let client = LaneKeys(&scratch.first);
        let keys = MessageKeys::<V, N>::derive(token, &client, &group.nonces, &mut scratch.second);
        for vector in 0..N {
            let tag = group.text.block(token, vector, group.plain_bytes);
            keys.crypt(token, vector, tag, None, &mut group.text, group.plain_bytes);
        }
        let associated = (&group.associated, group.associated_bytes);
        store(tags, 0, keys.tags(token, Some(associated), Some((&group.text, group.plain_bytes))));
    }
}

/// A master key's schedule, as the key-generating key.
#[inline(always)]
fn master_keys<V: Lanes>(token: V::Token, constants: Option<&GcmSivConstants>) -> SharedKey<'_, V> {
    SharedKey(token, &constants.expect("a key of the group's algorithm").round_keys)
}

/// The keys of each lane's message, and its nonce.
struct MessageKeys<'s, V, const N: usize> {
    /// H of POLYVAL.
    authentication: [V; N],
    encryption: &'s [Schedule<V>; VECTORS_MAX],
    /// At the start of a block, where the tag takes it in.
    nonces: [V; N],
}

impl<'s, V: Lanes, const N: usize> MessageKeys<'s, V, N> {
    /// From the key-generating keys; puts the schedules of the encryption keys into `schedules`.
    #[inline(always)]
    fn derive<K: Keys<V>>(
        token: V::Token,
        generating: &K,
        nonces: &Nonces,
        schedules: &'s mut [Schedule<V>; VECTORS_MAX],
    ) -> Self {
        let nonces: [V; N] = load(token, &nonces.sources(), 0);
        let numbered = |number: u128| [V::splat(token, &number.to_le_bytes()); N];
        let (first, second) = (nonces, xor(nonces, numbered(1)));
        let (first, second) = encrypt_two(generating, first, second);
        let (third, fourth) = (xor(nonces, numbered(2)), xor(nonces, numbered(3)));
        let (third, fourth) = encrypt_two(generating, third, fourth);
        expand(token, join_words(token, third, fourth), schedules);
        let down = V::splat(token, shift_down(BLOCK_BYTES - NONCE_BYTES));
        let mut at_start = nonces;
        for vector in 0..N {
            at_start[vector] = nonces[vector].shuffle_bytes(down);
        }
        let authentication = join_words(token, first, second);
        Self { authentication, encryption: schedules, nonces: at_start }
    }

    /// The tags of messages and their lengths in bytes.
    #[inline(always)]
    fn tags<A: Read, P: Read>(
        &self,
        token: V::Token,
        associated: Option<(&A, usize)>,
        plain: Option<(&P, usize)>,
    ) -> [V; N] {
        let mut hash = Polyval::new(token, self.authentication);
        let mut lengths = [0; BLOCK_BYTES];
        if let Some((messages, bytes)) = associated {
            hash.absorb_message(token, messages, bytes);
            lengths[..8].copy_from_slice(&bits(bytes));
        }
        if let Some((messages, bytes)) = plain {
            hash.absorb_message(token, messages, bytes);
            lengths[8..].copy_from_slice(&bits(bytes));
        }
        hash.absorb([V::splat(token, &lengths); N]);
        let mut blocks = xor(hash.state, self.nonces);
        for vector in 0..N {
            blocks[vector] = blocks[vector].and(V::splat(token, &ALL_BUT_LAST_BIT));
        }
        encrypt(&LaneKeys(self.encryption), blocks)
    }

    /// Encrypts or decrypts the text of the lanes of register `vector`: from an offset in `source`,
    /// or in place.
    #[inline(always)]
    fn crypt(
        &self,
        token: V::Token,
        vector: usize,
        tag: V,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
        bytes: usize,
    ) {
        let keys = OneSchedule(&self.encryption[vector]);
        let crypt = Crypt { vector, bytes, offset: 0 };
        crypt.run(token, &keys, Ctr::new(token, tag), source, sink);
    }
}

/// POLYVAL of a message of each lane.
struct Polyval<V, const N: usize> {
    key: [V; N],
    /// H·x⁻⁶⁴.
    key_divided: [V; N],
    modulus: V,
    state: [V; N],
}

impl<V: Lanes, const N: usize> Polyval<V, N> {
    #[inline(always)]
    fn new(token: V::Token, key: [V; N]) -> Self {
        let modulus = V::splat(token, &MODULUS);
        let mut key_divided = key;
        for vector in 0..N {
            key_divided[vector] = divide(key[vector], modulus);
        }
        Self { key, key_divided, modulus, state: [V::splat(token, &[0; BLOCK_BYTES]); N] }
    }

    /// A block of each lane.
    #[inline(always)]
    fn absorb(&mut self, blocks: [V; N]) {
        for vector in 0..N {
            let (key, key_divided) = (self.key[vector], self.key_divided[vector]);
            let sum = self.state[vector].xor(blocks[vector]);
            let low = sum.multiply_words::<LOW_LOW>(key_divided);
            let low = low.xor(sum.multiply_words::<HIGH_LOW>(key));
            let high = sum.multiply_words::<LOW_HIGH>(key_divided);
            let high = high.xor(sum.multiply_words::<HIGH_HIGH>(key));
            self.state[vector] = high.xor(divide(low, self.modulus));
        }
    }

    /// A message of each lane, at least one block long, padded with zeros.
    #[inline(always)]
    fn absorb_message<R: Read>(&mut self, token: V::Token, messages: &R, bytes: usize) {
        let mut done = 0;
        while bytes - done >= 4 * BLOCK_BYTES {
            for blocks in load_four(token, messages, done) {
                self.absorb(blocks);
            }
            done += 4 * BLOCK_BYTES;
        }
        while bytes - done >= BLOCK_BYTES {
            self.absorb(load(token, messages, done));
            done += BLOCK_BYTES;
        }
        if done < bytes {
            let down = V::splat(token, shift_down(BLOCK_BYTES - (bytes - done)));
            let mut blocks = load(token, messages, bytes - BLOCK_BYTES);
            for vector in 0..N {
                blocks[vector] = V::shuffle_bytes(blocks[vector], down);
            }
            self.absorb(blocks);
        }
    }
}

/// Divides by x⁶⁴ modulo the polynomial of POLYVAL.
#[inline(always)]
fn divide<V: Lanes>(block: V, modulus: V) -> V {
    let exchanged = block.shuffle_words::<EXCHANGE_HALVES>();
    exchanged.xor(block.multiply_words::<LOW_LOW>(modulus))
}

/// The lower words of two blocks, one behind the other.
#[inline(always)]
fn join_words<V: Lanes, const N: usize>(token: V::Token, low: [V; N], high: [V; N]) -> [V; N] {
    let mut joined = low;
    for vector in 0..N {
        let low = low[vector].and(V::splat(token, &LOW_WORD));
        joined[vector] = low.xor(high[vector].shift_bytes::<8>());
    }
    joined
}

/// The counter of AES-GCM-SIV (RFC 8452 section 4): 32 bits at the start of the block, which wrap
/// around alone.
struct Ctr<V> {
    value: V,
    one: V,
}

impl<V: Lanes> Ctr<V> {
    #[inline(always)]
    fn new(token: V::Token, tag: V) -> Self {
        let cleared = tag.and(V::splat(token, &ALL_BUT_LAST_BIT));
        let value = cleared.xor(V::splat(token, &LAST_BIT));
        Self { value, one: V::splat(token, &1u128.to_le_bytes()) }
    }
}

impl<V: Lanes> Counter<V> for Ctr<V> {
    #[inline(always)]
    fn next(&mut self) -> V {
        let block = self.value;
        self.value = self.value.add_halves(self.one);
        block
    }
}

/// A length as POLYVAL takes it in.
#[inline(always)]
fn bits(bytes: usize) -> [u8; 8] {
    (8 * bytes as u64).to_le_bytes()
}

/// Bytes of a nonce.
const NONCE_BYTES: usize = Algorithm::Aes128GcmSiv.nonce_bytes();

/// For `multiply_words`: the lower words of both.
const LOW_LOW: i32 = 0x00;

/// The upper word of the first, the lower one of the second.
const HIGH_LOW: i32 = 0x01;

/// The lower word of the first, the upper one of the second.
const LOW_HIGH: i32 = 0x10;

/// The upper words of both.
const HIGH_HIGH: i32 = 0x11;

/// For `shuffle_words`: the words of 64 bits change places.
const EXCHANGE_HALVES: i32 = 0b01_00_11_10;

/// x⁵⁷ + x⁶² + x⁶³: what the polynomial of POLYVAL has between 1 and x¹²⁸, divided by x⁶⁴. The
/// exchange of words stands for x⁶⁴.
const MODULUS: [u8; BLOCK_BYTES] = [0, 0, 0, 0, 0, 0, 0, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0];

/// Ones in the lower word.
const LOW_WORD: [u8; BLOCK_BYTES] = (u64::MAX as u128).to_le_bytes();

/// The most significant bit of the last byte.
const LAST_BIT: [u8; BLOCK_BYTES] = (1u128 << 127).to_le_bytes();

/// All the others.
const ALL_BUT_LAST_BIT: [u8; BLOCK_BYTES] = (!(1u128 << 127)).to_le_bytes();
