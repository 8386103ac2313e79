//! AES-SIV-CMAC-256 for a group of lanes, written once over [`Lanes`].
//!
//! A lane is one message; a group is up to 32 messages of one shape, in `N` registers of one
//! block a lane. All keys but a master key differ from lane to lane.
//!
//! ```text
//! S2V(K, AD, nonce, P):                                      RFC 5297 section 2.4
//!     D = CMAC(K, 0)
//!     D = dbl(D) ^ CMAC(K, AD)
//!     D = dbl(D) ^ CMAC(K, nonce)
//!     T = P with D xored into its last 16 bytes              if P has 16 bytes or more
//!     T = dbl(D) ^ 10*                                       if P is empty
//!     V = CMAC(K, T)
//! seal: V = S2V(MAC key, …), C = P ^ CTR(CTR key, V without bits 31 and 63)
//! CMAC(K, M): L = E(K, 0), K1 = dbl(L), K2 = dbl(K1)         RFC 4493 section 2.4
//!     X = E(K, X ^ block) for every block; the last one is xored with K1 if it is full, else
//!     padded with 10* and xored with K2
//! ```
//!
//! The tricks, and why:
//!
//! - **Lanes, not blocks.** CMAC is one long chain; a chain leaves the AES unit idle for all but
//!   one cycle of the instruction's latency. The chains of other requests fill the gaps.
//! - **Nothing is transposed.** A lane's key, counter and message block are 16 bytes each, the
//!   size of a lane, so a decrypted cookie *is* the lanes' keys.
//! - **Key schedules in lanes:** SubWord by `aesenclast` of a block with four equal columns
//!   (ShiftRows then changes nothing), its round key being the round constant; four words' running
//!   exclusive or by two byte shifts. `aeskeygenassist` is microcoded and has no wide form.
//! - **Master keys are shared:** round keys, K1, K2 and dbl(dbl(CMAC(0)) ^ CMAC("")) come ready
//!   from [`SivConstants`], so a cookie's S2V starts at the nonce.
//! - **The CTR key of C2S is never scheduled:** an NTS request without enclosed fields has an
//!   empty plaintext. (With such fields the portable path answers.)
//! - **Side chains:** E(0), CMAC(0) and CMAC(nonce) depend on each other but not on the
//!   associated data, so they ride beside its first three blocks, sharing the loads of the round
//!   keys. A reply's plaintext rides beside the rest of the associated data until D is due.
//! - **The compiler keeps the order** of AES rounds (`Lanes::in_order`): it would undo the trick
//!   above.
//! - **Four blocks at a time**, transposed in registers, where each lane has its own keys: four
//!   loads for 16 blocks instead of 16, while round keys fill the load unit.
//! - **One shape a group.** With equal lengths every tail, pad and counter is the same for all
//!   lanes: no masks, no per-lane control tables. Shapes that occur once take the narrow path.
//! - **Tails:** the last 16 bytes of a message are loaded and shifted within the lane, so nothing
//!   is read or written beyond a message.

#![allow(clippy::needless_range_loop, reason = "closures do not inherit the instruction set")]

use super::arch::{BLOCK_BYTES, Lanes, Read, Sinks, Sources};
use super::blocks::{
    Constants, Keys, LaneKeys, OneSchedule, SharedKey, double, encrypt, encrypt_two, expand,
    expand_both, load, load_four, pad_of, shift_down, shift_up, store, xor,
};
use super::counter_mode::{Counter, Crypt};
use super::group::{ASSOCIATED_BYTES_MIN, Make, Mode, Open, Scratch, Seal, Verify};
use super::master::SivConstants;

/// The algorithm.
pub(super) struct Siv;

impl Mode for Siv {
    #[inline(always)]
    fn open<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Open<'_>,
        _: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        let constants = Constants::new(token);
        let master = group.key.siv().expect("a key of the group's algorithm");
        let ctr = SharedKey(token, &master.ctr_round_keys);
        for vector in 0..N {
            let tag = group.sealed.block(token, vector, 0);
            let crypt = Crypt { vector, bytes: group.plain_bytes, offset: 0 };
            let source = Some((&group.sealed, BLOCK_BYTES));
            crypt.run(token, &ctr, Ctr::new(&constants, tag), source, &mut group.plain);
        }
        let mac = Master::<V, N>::new(token, master, &group.nonces.sources());
        let fresh = mac.tags(token, &constants, &group.plain, group.plain_bytes);
        store(tags, 0, fresh);
    }

    #[inline(always)]
    fn make<V: Lanes, const N: usize>(token: V::Token, group: &mut Make<'_>, _: &mut Scratch<V>) {
        let constants = Constants::new(token);
        let master = group.key.siv().expect("a key of the group's algorithm");
        let mac = Master::<V, N>::new(token, master, &group.nonces.sources());
        let tags = mac.tags(token, &constants, &group.plain, group.plain_bytes);
        let ctr = SharedKey(token, &master.ctr_round_keys);
        store(&mut group.sealed, 0, tags);
        for vector in 0..N {
            let crypt = Crypt { vector, bytes: group.plain_bytes, offset: BLOCK_BYTES };
            let source = Some((&group.plain, 0));
            let counter = Ctr::new(&constants, tags[vector]);
            crypt.run(token, &ctr, counter, source, &mut group.sealed);
        }
    }

    #[inline(always)]
    fn verify<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Verify<'_>,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        let (constants, associated) = (Constants::new(token), &group.associated);
        expand::<V, N>(token, load(token, &group.keys, 0), &mut scratch.first);
        let keys = LaneKeys(&scratch.first);
        let nonces = group.nonces.sources();
        let start = Start::<V, N>::new(token, &constants, &keys, associated, &nonces);
        let (front, last) = split_blocks(group.associated_bytes);
        let (done, rest) = (SIDE_BLOCKS * BLOCK_BYTES, front - SIDE_BLOCKS);
        let state = absorb(token, &keys, start.associated, associated, done, rest);
        let delta = start.finish(token, &constants, &keys, state, associated, last);
        let pad = V::splat(token, pad_of(0));
        let mut text = [pad; N];
        for vector in 0..N {
            let doubled = double(&constants, delta[vector]);
            text[vector] = doubled.xor(pad).xor(start.subkey_full[vector]);
        }
        store(tags, 0, encrypt(&keys, text));
    }

    #[inline(always)]
    fn seal<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Seal<'_>,
        scratch: &mut Scratch<V>,
    ) {
        let constants = Constants::new(token);
        expand_both::<V, N>(token, &group.keys, &mut scratch.first, &mut scratch.second);
        let keys = LaneKeys(&scratch.first);
        let tags: [V; N] = Self::tags(token, group, &constants, &keys);
        store(&mut group.text, 0, tags);
        for vector in 0..N {
            let keys = OneSchedule(&scratch.second[vector]);
            let crypt = Crypt { vector, bytes: group.plain_bytes, offset: BLOCK_BYTES };
            let counter = Ctr::new(&constants, tags[vector]);
            crypt.run(token, &keys, counter, None, &mut group.text);
        }
    }

    #[inline(always)]
    fn unseal<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Seal<'_>,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        let constants = Constants::new(token);
        expand_both::<V, N>(token, &group.keys, &mut scratch.first, &mut scratch.second);
        for vector in 0..N {
            let tag = group.text.block(token, vector, 0);
            let keys = OneSchedule(&scratch.second[vector]);
            let crypt = Crypt { vector, bytes: group.plain_bytes, offset: BLOCK_BYTES };
            crypt.run(token, &keys, Ctr::new(&constants, tag), None, &mut group.text);
        }
        let fresh: [V; N] = Self::tags(token, group, &constants, &LaneKeys(&scratch.first));
        store(tags, 0, fresh);
    }
}

impl Siv {
    /// Tags of replies.
    #[inline(always)]
    fn tags<V: Lanes, K: Keys<V>, const N: usize>(
        token: V::Token,
        group: &Seal<'_>,
        constants: &Constants<V>,
        keys: &K,
    ) -> [V; N] {
        let start =
            Start::<V, N>::new(token, constants, keys, &group.associated, &group.nonces.sources());
        let (associated_front, last) = split_blocks(group.associated_bytes);
        let (plain_front, _) = split_blocks(group.plain_bytes);
        let mut plain = [V::splat(token, &[0; BLOCK_BYTES]); N];
        let mut associated = start.associated;
        let mut done = SIDE_BLOCKS;
        let mut plain_done = 0;
        while done < associated_front && plain_done + 1 < plain_front {
            let blocks = load(token, &group.associated, done * BLOCK_BYTES);
            let more = load(token, &group.text, (1 + plain_done) * BLOCK_BYTES);
            (associated, plain) = encrypt_two(keys, xor(associated, blocks), xor(plain, more));
            done += 1;
            plain_done += 1;
        }
        let (offset, rest) = (done * BLOCK_BYTES, associated_front - done);
        let associated = absorb(token, keys, associated, &group.associated, offset, rest);
        let delta = start.finish(token, constants, keys, associated, &group.associated, last);
        let text = Text { bytes: group.plain_bytes, offset: BLOCK_BYTES, done: plain_done };
        text.tags(token, constants, keys, &group.text, plain, delta, start.subkey_full)
    }
}

/// S2V under a key of each lane, up to the third block of the associated data.
struct Start<V, const N: usize> {
    /// K1.
    subkey_full: [V; N],
    /// CMAC(0).
    zero: [V; N],
    /// CMAC(nonce).
    nonce: [V; N],
    /// The chain of the associated data.
    associated: [V; N],
}

impl<V: Lanes, const N: usize> Start<V, N> {
    #[inline(always)]
    fn new<K: Keys<V>>(
        token: V::Token,
        constants: &Constants<V>,
        keys: &K,
        associated: &Sources<'_>,
        nonces: &Sources<'_>,
    ) -> Self {
        let state = load(token, associated, 0);
        let (state, mut subkey_full) =
            encrypt_two(keys, state, [V::splat(token, &[0; BLOCK_BYTES]); N]);
        for vector in 0..N {
            subkey_full[vector] = double(constants, subkey_full[vector]);
        }
        let state = xor(state, load(token, associated, BLOCK_BYTES));
        let (state, zero) = encrypt_two(keys, state, subkey_full);
        let state = xor(state, load(token, associated, 2 * BLOCK_BYTES));
        let nonce = xor(subkey_full, load(token, nonces, 0));
        let (associated, nonce) = encrypt_two(keys, state, nonce);
        Self { subkey_full, zero, nonce, associated }
    }

    /// D after associated data and nonce; `state` has taken all blocks but the last one.
    #[inline(always)]
    fn finish<K: Keys<V>>(
        &self,
        token: V::Token,
        constants: &Constants<V>,
        keys: &K,
        state: [V; N],
        associated: &Sources<'_>,
        last: Last,
    ) -> [V; N] {
        let mut state = state;
        for vector in 0..N {
            let subkey = self.subkey_full[vector];
            let block = last.block(token, constants, associated, vector, subkey);
            state[vector] = state[vector].xor(block);
        }
        let mut delta = encrypt(keys, state);
        for vector in 0..N {
            let first = double(constants, self.zero[vector]).xor(delta[vector]);
            delta[vector] = double(constants, first).xor(self.nonce[vector]);
        }
        delta
    }
}

/// S2V under a master key, up to the nonce.
struct Master<'a, V: Lanes, const N: usize> {
    keys: SharedKey<'a, V>,
    subkey_full: [V; N],
    delta: [V; N],
}

impl<'a, V: Lanes, const N: usize> Master<'a, V, N> {
    #[inline(always)]
    fn new(token: V::Token, master: &'a SivConstants, nonces: &Sources<'_>) -> Self {
        let keys = SharedKey(token, &master.mac_round_keys);
        let subkey_full = [V::splat(token, &master.subkey_full); N];
        let nonce = encrypt(&keys, xor(subkey_full, load(token, nonces, 0)));
        let delta = xor(nonce, [V::splat(token, &master.delta); N]);
        Self { keys, subkey_full, delta }
    }

    #[inline(always)]
    fn tags<R: Read>(
        &self,
        token: V::Token,
        constants: &Constants<V>,
        plain: &R,
        plain_bytes: usize,
    ) -> [V; N] {
        let state = [V::splat(token, &[0; BLOCK_BYTES]); N];
        let text = Text { bytes: plain_bytes, offset: 0, done: 0 };
        text.tags(token, constants, &self.keys, plain, state, self.delta, self.subkey_full)
    }
}

/// CMAC of a plaintext of at least two blocks, D xored into its end.
struct Text {
    bytes: usize,
    offset: usize,
    /// Blocks that the state has taken already.
    done: usize,
}

impl Text {
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "registers, not memory")]
    fn tags<V: Lanes, K: Keys<V>, R: Read, const N: usize>(
        &self,
        token: V::Token,
        constants: &Constants<V>,
        keys: &K,
        plain: &R,
        state: [V; N],
        delta: [V; N],
        subkey_full: [V; N],
    ) -> [V; N] {
        let (front, last) = split_blocks(self.bytes);
        let offset = self.offset + self.done * BLOCK_BYTES;
        let mut state = absorb(token, keys, state, plain, offset, front - 1 - self.done);
        // D straddles the last two blocks unless the last one is full.
        let head = V::splat(token, shift_up(last.bytes));
        state = xor(state, load(token, plain, self.offset + (front - 1) * BLOCK_BYTES));
        for vector in 0..N {
            state[vector] = state[vector].xor(delta[vector].shuffle_bytes(head));
        }
        state = encrypt(keys, state);
        let tail = V::splat(token, shift_down(BLOCK_BYTES - last.bytes));
        let last = Last { end: self.offset + last.end, ..last };
        for vector in 0..N {
            let block = last.block(token, constants, plain, vector, subkey_full[vector]);
            state[vector] = state[vector].xor(block).xor(delta[vector].shuffle_bytes(tail));
        }
        encrypt(keys, state)
    }
}

/// The counter of AES-SIV (RFC 5297 section 2.5): 128 bits in network order, kept little-endian.
struct Ctr<'c, V> {
    constants: &'c Constants<V>,
    value: V,
}

impl<'c, V: Lanes> Ctr<'c, V> {
    #[inline(always)]
    fn new(constants: &'c Constants<V>, tag: V) -> Self {
        let value = tag.and(constants.counter_mask).shuffle_bytes(constants.reverse);
        Self { constants, value }
    }
}

impl<V: Lanes> Counter<V> for Ctr<'_, V> {
    #[inline(always)]
    fn next(&mut self) -> V {
        let block = self.value.shuffle_bytes(self.constants.reverse);
        self.value = self.value.add_words(self.constants.one);
        block
    }
}

/// The last block of a message, which CMAC treats apart.
#[derive(Clone, Copy)]
struct Last {
    /// Bytes of the message, plus its offset.
    end: usize,
    /// Bytes in the last block, 1 to 16.
    bytes: usize,
}

impl Last {
    /// The block, padded, with K1 or K2.
    #[inline(always)]
    fn block<V: Lanes, R: Read>(
        self,
        token: V::Token,
        constants: &Constants<V>,
        messages: &R,
        vector: usize,
        subkey_full: V,
    ) -> V {
        let block: V = messages.block(token, vector, self.end - BLOCK_BYTES);
        if self.bytes == BLOCK_BYTES {
            return block.xor(subkey_full);
        }
        let down = V::splat(token, shift_down(BLOCK_BYTES - self.bytes));
        let pad = V::splat(token, pad_of(self.bytes));
        block.shuffle_bytes(down).xor(pad).xor(double(constants, subkey_full))
    }
}

/// Blocks in front of the last one, and the last one.
#[inline(always)]
fn split_blocks(bytes: usize) -> (usize, Last) {
    let front = (bytes - 1) / BLOCK_BYTES;
    (front, Last { end: bytes, bytes: bytes - front * BLOCK_BYTES })
}

/// A CMAC chain over `blocks` whole blocks from `offset` on.
#[inline(always)]
fn absorb<V: Lanes, K: Keys<V>, R: Read, const N: usize>(
    token: V::Token,
    keys: &K,
    mut state: [V; N],
    messages: &R,
    mut offset: usize,
    mut blocks: usize,
) -> [V; N] {
    while K::ARE_MANY && blocks >= 4 {
        for block in load_four(token, messages, offset) {
            state = encrypt(keys, xor(state, block));
        }
        offset += 4 * BLOCK_BYTES;
        blocks -= 4;
    }
    while blocks > 0 {
        state = encrypt(keys, xor(state, load(token, messages, offset)));
        offset += BLOCK_BYTES;
        blocks -= 1;
    }
    state
}

/// Blocks of associated data that the side chains ride beside.
const SIDE_BLOCKS: usize = 3;

const _: () = assert!(ASSOCIATED_BYTES_MIN > SIDE_BLOCKS * BLOCK_BYTES);
