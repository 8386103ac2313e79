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

mod blocks;

use zeroize::Zeroize;

use super::arch::{BLOCK_BYTES, LANES_MAX, Lanes, Read, SPARE_BYTES, Sinks, Sources};
use super::master::SivConstants;
use blocks::{
    Constants, Keys, LaneKeys, OneSchedule, Schedule, SharedKey, VECTORS_MAX, double, encrypt,
    encrypt_two, expand, expand_both, load, load_four, pad_of, shift_down, shift_up, top_bytes,
    xor,
};

/// Least bytes of associated data that the kernels take: three full blocks and something more, for
/// the three side chains to ride beside. Every NTP packet with an extension field has it.
pub(super) const ASSOCIATED_BYTES_MIN: usize = 3 * BLOCK_BYTES + 1;

/// Least bytes of plaintext that the kernels take, so that the block before the last one exists.
pub(super) const PLAIN_BYTES_MIN: usize = 2 * BLOCK_BYTES;

/// Tags of a group, one a lane.
pub(super) type Tags = [[u8; BLOCK_BYTES]; LANES_MAX];

/// Key schedules of a group, reused from group to group; wiped by the owner.
pub(super) struct Scratch<V> {
    mac: [Schedule<V>; VECTORS_MAX],
    ctr: [Schedule<V>; VECTORS_MAX],
}

/// What lanes without a message write: lane 0's plaintext among it.
pub(super) type Spare = [u8; SPARE_BYTES];

impl<V: Lanes> Scratch<V> {
    pub(super) fn new(token: V::Token) -> Self {
        let zero = V::splat(token, &[0; BLOCK_BYTES]);
        Self { mac: [[zero; _]; _], ctr: [[zero; _]; _] }
    }
}

impl<V: Zeroize> Zeroize for Scratch<V> {
    fn zeroize(&mut self) {
        self.mac.zeroize();
        self.ctr.zeroize();
    }
}

/// A group of messages of one shape, a lane each.
pub(super) trait Group {
    /// Answers them; messages that are opened or verified leave in `tags` what their tags should
    /// be. `N` registers hold the lanes.
    fn run<V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    );
}

/// Opens cookies: decrypts `sealed` into `plain`.
pub(super) struct Open<'g> {
    pub(super) master: &'g SivConstants,
    pub(super) nonces: Sources<'g>,
    pub(super) sealed: Sources<'g>,
    pub(super) plain: Sinks<'g>,
    pub(super) plain_bytes: usize,
}

impl Group for Open<'_> {
    #[inline(always)]
    fn run<V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        _: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        let constants = Constants::new(token);
        let ctr = SharedKey(token, &self.master.ctr_round_keys);
        for vector in 0..N {
            let tag = self.sealed.block(token, vector, 0);
            let crypt = Crypt { vector, bytes: self.plain_bytes, offset: 0 };
            let source = Some((&self.sealed, BLOCK_BYTES));
            crypt.run(token, &constants, &ctr, tag, source, &mut self.plain);
        }
        let mac = Master::<V, N>::new(token, self.master, &self.nonces);
        store_tags(tags, mac.tags(token, &constants, &self.plain, self.plain_bytes));
    }
}

/// Makes cookies: encrypts `plain` into `sealed`.
pub(super) struct Make<'g> {
    pub(super) master: &'g SivConstants,
    pub(super) nonces: Sources<'g>,
    pub(super) plain: Sources<'g>,
    pub(super) plain_bytes: usize,
    pub(super) sealed: Sinks<'g>,
}

impl Group for Make<'_> {
    #[inline(always)]
    fn run<V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        _: &mut Scratch<V>,
        _: &mut Sinks<'_>,
    ) {
        let constants = Constants::new(token);
        let mac = Master::<V, N>::new(token, self.master, &self.nonces);
        let tags = mac.tags(token, &constants, &self.plain, self.plain_bytes);
        let ctr = SharedKey(token, &self.master.ctr_round_keys);
        store_tags(&mut self.sealed, tags);
        for vector in 0..N {
            let crypt = Crypt { vector, bytes: self.plain_bytes, offset: BLOCK_BYTES };
            let source = Some((&self.plain, 0));
            crypt.run(token, &constants, &ctr, tags[vector], source, &mut self.sealed);
        }
    }
}

/// Verifies requests with empty plaintext.
pub(super) struct Verify<'g> {
    pub(super) keys: Sources<'g>,
    pub(super) nonces: Sources<'g>,
    pub(super) associated: Sources<'g>,
    pub(super) associated_bytes: usize,
}

impl Group for Verify<'_> {
    #[inline(always)]
    fn run<V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        let constants = Constants::new(token);
        expand::<V, N>(token, &self.keys, 0, &mut scratch.mac);
        let keys = LaneKeys(&scratch.mac);
        let start = Start::<V, N>::new(token, &constants, &keys, &self.associated, &self.nonces);
        let (front, last) = split_blocks(self.associated_bytes);
        let (done, rest) = (SIDE_BLOCKS * BLOCK_BYTES, front - SIDE_BLOCKS);
        let state = absorb(token, &keys, start.associated, &self.associated, done, rest);
        let delta = start.finish(token, &constants, &keys, state, &self.associated, last);
        let pad = V::splat(token, pad_of(0));
        let mut text = [pad; N];
        for vector in 0..N {
            let doubled = double(&constants, delta[vector]);
            text[vector] = doubled.xor(pad).xor(start.subkey_full[vector]);
        }
        store_tags(tags, encrypt(&keys, text));
    }
}

/// Seals replies in place: tag first, then the text of `plain_bytes`.
pub(super) struct Seal<'g> {
    pub(super) keys: Sources<'g>,
    pub(super) nonces: Sources<'g>,
    pub(super) associated: Sources<'g>,
    pub(super) associated_bytes: usize,
    pub(super) text: Sinks<'g>,
    pub(super) plain_bytes: usize,
}

impl Group for Seal<'_> {
    #[inline(always)]
    fn run<V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        _: &mut Sinks<'_>,
    ) {
        let constants = Constants::new(token);
        expand_both::<V, N>(token, &self.keys, &mut scratch.mac, &mut scratch.ctr);
        let keys = LaneKeys(&scratch.mac);
        let tags: [V; N] = self.tags(token, &constants, &keys);
        store_tags(&mut self.text, tags);
        for vector in 0..N {
            let keys = OneSchedule(&scratch.ctr[vector]);
            let crypt = Crypt { vector, bytes: self.plain_bytes, offset: BLOCK_BYTES };
            crypt.run(token, &constants, &keys, tags[vector], None, &mut self.text);
        }
    }
}

impl Seal<'_> {
    #[inline(always)]
    fn tags<V: Lanes, K: Keys<V>, const N: usize>(
        &self,
        token: V::Token,
        constants: &Constants<V>,
        keys: &K,
    ) -> [V; N] {
        let start = Start::<V, N>::new(token, constants, keys, &self.associated, &self.nonces);
        let (associated_front, last) = split_blocks(self.associated_bytes);
        let (plain_front, _) = split_blocks(self.plain_bytes);
        let mut plain = [V::splat(token, &[0; BLOCK_BYTES]); N];
        let mut associated = start.associated;
        let mut done = SIDE_BLOCKS;
        let mut plain_done = 0;
        while done < associated_front && plain_done + 1 < plain_front {
            let blocks = load(token, &self.associated, done * BLOCK_BYTES);
            let more = load(token, &self.text, (1 + plain_done) * BLOCK_BYTES);
            (associated, plain) = encrypt_two(keys, xor(associated, blocks), xor(plain, more));
            done += 1;
            plain_done += 1;
        }
        let (offset, rest) = (done * BLOCK_BYTES, associated_front - done);
        let associated = absorb(token, keys, associated, &self.associated, offset, rest);
        let delta = start.finish(token, constants, keys, associated, &self.associated, last);
        let text = Text { bytes: self.plain_bytes, offset: BLOCK_BYTES, done: plain_done };
        text.tags(token, constants, keys, &self.text, plain, delta, start.subkey_full)
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

/// Counter mode over the text of the lanes of one register.
struct Crypt {
    vector: usize,
    bytes: usize,
    /// Where the text lies in the sink.
    offset: usize,
}

impl Crypt {
    /// Reads at an offset in `source`, or in place.
    #[inline(always)]
    fn run<V: Lanes, K: Keys<V>>(
        &self,
        token: V::Token,
        constants: &Constants<V>,
        keys: &K,
        tag: V,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
    ) {
        let mut counter = tag.and(constants.counter_mask).shuffle_bytes(constants.reverse);
        let mut done = 0;
        while self.bytes - done >= 4 * BLOCK_BYTES {
            self.mix_four(token, constants, keys, &mut counter, source, sink, done);
            done += 4 * BLOCK_BYTES;
        }
        while self.bytes - done >= BLOCK_BYTES {
            self.mix(token, constants, keys, &mut counter, source, sink, done);
            done += BLOCK_BYTES;
        }
        if done < self.bytes {
            let [stream] = keystream::<V, K, 1>(constants, keys, &mut counter);
            self.mix_tail(token, stream, source, sink, self.bytes - done);
        }
    }

    /// Four blocks, `at` bytes into the text.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "registers, not memory")]
    fn mix_four<V: Lanes, K: Keys<V>>(
        &self,
        token: V::Token,
        constants: &Constants<V>,
        keys: &K,
        counter: &mut V,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
        at: usize,
    ) {
        let mut output = sink.run_mut::<4>(self.offset + at);
        let stream = keystream::<V, K, 4>(constants, keys, counter);
        let text = match source {
            Some((source, offset)) => {
                let run = source.run::<4>(offset + at);
                [0, 1, 2, 3].map(|index| run.block(token, self.vector, index))
            }
            None => [0, 1, 2, 3].map(|index| output.block(token, self.vector, index)),
        };
        output.store_blocks(self.vector, xor(stream, text));
    }

    /// One block, `at` bytes into the text.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "registers, not memory")]
    fn mix<V: Lanes, K: Keys<V>>(
        &self,
        token: V::Token,
        constants: &Constants<V>,
        keys: &K,
        counter: &mut V,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
        at: usize,
    ) {
        let [stream] = keystream::<V, K, 1>(constants, keys, counter);
        let text: V = match source {
            Some((source, offset)) => source.block(token, self.vector, offset + at),
            None => sink.block(token, self.vector, self.offset + at),
        };
        sink.store(self.vector, self.offset + at, stream.xor(text));
    }

    /// The last `bytes` of the text, fewer than a block: rewrites the last 16 bytes, of which the
    /// first ones keep what the sink holds.
    #[inline(always)]
    fn mix_tail<V: Lanes>(
        &self,
        token: V::Token,
        stream: V,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
        bytes: usize,
    ) {
        let end = self.bytes - BLOCK_BYTES;
        let stream = stream.shuffle_bytes(V::splat(token, shift_up(BLOCK_BYTES - bytes)));
        let kept: V = sink.block(token, self.vector, self.offset + end);
        let mixed = match source {
            Some((source, offset)) => {
                let block: V = source.block(token, self.vector, offset + end);
                let changed = V::splat(token, top_bytes(bytes));
                kept.xor(changed.and(kept.xor(block))).xor(stream)
            }
            None => kept.xor(stream),
        };
        sink.store(self.vector, self.offset + end, mixed);
    }
}

/// The next `COUNT` blocks of key stream; `counter` is little-endian.
#[inline(always)]
fn keystream<V: Lanes, K: Keys<V>, const COUNT: usize>(
    constants: &Constants<V>,
    keys: &K,
    counter: &mut V,
) -> [V; COUNT] {
    let mut blocks = [*counter; COUNT];
    for index in 0..COUNT {
        blocks[index] = counter.shuffle_bytes(constants.reverse);
        *counter = counter.add_words(constants.one);
    }
    encrypt(keys, blocks)
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

#[inline(always)]
fn store_tags<V: Lanes, const N: usize>(tags: &mut Sinks<'_>, values: [V; N]) {
    for vector in 0..N {
        tags.store(vector, 0, values[vector]);
    }
}

/// Blocks of associated data that the side chains ride beside.
const SIDE_BLOCKS: usize = 3;
