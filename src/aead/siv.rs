//! AES-SIV-CMAC-256 for a group of lanes, written once over [`Lanes`].
//!
//! A lane is one message; a group is up to 16 messages of one shape, in `N` registers of one
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
//! - **One shape a group.** With equal lengths every tail, pad and counter is the same for all
//!   lanes: no masks, no per-lane control tables. Shapes that occur once take the narrow path.
//! - **Tails:** the last 16 bytes of a message are loaded and shifted within the lane, so nothing
//!   is read or written beyond a message.

#![allow(clippy::needless_range_loop, reason = "closures do not inherit the instruction set")]

use std::hint::black_box;

use zeroize::Zeroize;

use super::arch::{BLOCK_BYTES, LANES_MAX, Lanes, Read, SPARE_BYTES, Sinks, Sources, Task};
use super::master::SivConstants;

/// Least bytes of associated data that the kernels take: three full blocks and something more, for
/// the three side chains to ride beside. Every NTP packet with an extension field has it.
pub(super) const ASSOCIATED_BYTES_MIN: usize = 3 * BLOCK_BYTES + 1;

/// Least bytes of plaintext that the kernels take, so that the block before the last one exists.
pub(super) const PLAIN_BYTES_MIN: usize = 2 * BLOCK_BYTES;

/// Tags of a group, one a lane.
pub(super) type Tags = [[u8; BLOCK_BYTES]; LANES_MAX];

/// Key schedules of a group, reused from group to group; wiped by the owner.
pub(super) struct Scratch<V> {
    mac: [V; ROUND_KEYS * VECTORS_MAX],
    ctr: [V; ROUND_KEYS * VECTORS_MAX],
}

/// What lanes without a message write: lane 0's plaintext among it.
pub(super) type Spare = [u8; SPARE_BYTES];

impl<V: Lanes> Scratch<V> {
    pub(super) fn new(token: V::Token) -> Self {
        let zero = V::splat(token, &[0; BLOCK_BYTES]);
        Self { mac: [zero; _], ctr: [zero; _] }
    }
}

impl<V: Zeroize> Zeroize for Scratch<V> {
    fn zeroize(&mut self) {
        self.mac.zeroize();
        self.ctr.zeroize();
    }
}

/// Opens cookies: decrypts `sealed` into `plain`; `tags` take what the tags should have been.
pub(super) struct Open<'a, const N: usize> {
    pub(super) master: &'a SivConstants,
    pub(super) nonces: &'a Sources<'a>,
    pub(super) sealed: &'a Sources<'a>,
    pub(super) plain: &'a mut Sinks<'a>,
    pub(super) plain_bytes: usize,
    pub(super) tags: &'a mut Sinks<'a>,
}

impl<V: Lanes, const N: usize> Task<V> for Open<'_, N> {
    #[inline(always)]
    fn run(self, token: V::Token) {
        let constants = Constants::new(token);
        let ctr = SharedKeys::new(token, &self.master.ctr_round_keys);
        for vector in 0..N {
            let tag = self.sealed.block(token, vector, 0);
            let crypt = Crypt { vector, bytes: self.plain_bytes, offset: 0 };
            let source = Some((self.sealed, BLOCK_BYTES));
            crypt.run(token, &constants, &ctr, tag, source, self.plain);
        }
        let mac = Master::<V, N>::new(token, &constants, self.master, self.nonces);
        let tags = mac.tags(token, &constants, self.plain, self.plain_bytes);
        store_tags(self.tags, tags);
    }
}

/// Makes cookies: encrypts `plain` into `sealed`.
pub(super) struct Make<'a, const N: usize> {
    pub(super) master: &'a SivConstants,
    pub(super) nonces: &'a Sources<'a>,
    pub(super) plain: &'a Sources<'a>,
    pub(super) plain_bytes: usize,
    pub(super) sealed: &'a mut Sinks<'a>,
}

impl<V: Lanes, const N: usize> Task<V> for Make<'_, N> {
    #[inline(always)]
    fn run(self, token: V::Token) {
        let constants = Constants::new(token);
        let mac = Master::<V, N>::new(token, &constants, self.master, self.nonces);
        let tags = mac.tags(token, &constants, self.plain, self.plain_bytes);
        let ctr = SharedKeys::new(token, &self.master.ctr_round_keys);
        for vector in 0..N {
            self.sealed.store(vector, 0, tags[vector]);
            let crypt = Crypt { vector, bytes: self.plain_bytes, offset: BLOCK_BYTES };
            let source = Some((self.plain, 0));
            crypt.run(token, &constants, &ctr, tags[vector], source, self.sealed);
        }
    }
}

/// Verifies requests with empty plaintext: `tags` take what their tags should have been.
pub(super) struct Verify<'a, V, const N: usize> {
    pub(super) scratch: &'a mut Scratch<V>,
    pub(super) keys: &'a Sources<'a>,
    pub(super) nonces: &'a Sources<'a>,
    pub(super) associated: &'a Sources<'a>,
    pub(super) associated_bytes: usize,
    pub(super) tags: &'a mut Sinks<'a>,
}

impl<V: Lanes, const N: usize> Task<V> for Verify<'_, V, N> {
    #[inline(always)]
    fn run(self, token: V::Token) {
        let constants = Constants::new(token);
        expand::<V, N>(token, self.keys, 0, &mut self.scratch.mac);
        let keys = LaneKeys::<V, N>(&self.scratch.mac);
        let start = Start::<V, N>::new(token, &constants, &keys, self.associated, self.nonces);
        let (mut front, last) = split_blocks(self.associated_bytes);
        front -= SIDE_BLOCKS;
        let mut state = start.associated;
        for index in 0..front {
            let offset = (SIDE_BLOCKS + index) * BLOCK_BYTES;
            state = absorb(token, &keys, state, self.associated, offset);
        }
        let delta = start.finish(token, &constants, &keys, state, self.associated, last);
        let pad = V::splat(token, pad_of(0));
        let mut text = [pad; N];
        for vector in 0..N {
            let doubled = double(&constants, delta[vector]);
            text[vector] = doubled.xor(pad).xor(start.subkey_full[vector]);
        }
        store_tags(self.tags, encrypt(&keys, text));
    }
}

/// Seals replies in place: tag first, then the text of `plain_bytes`.
pub(super) struct Seal<'a, V, const N: usize> {
    pub(super) scratch: &'a mut Scratch<V>,
    pub(super) keys: &'a Sources<'a>,
    pub(super) nonces: &'a Sources<'a>,
    pub(super) associated: &'a Sources<'a>,
    pub(super) associated_bytes: usize,
    pub(super) text: &'a mut Sinks<'a>,
    pub(super) plain_bytes: usize,
}

impl<V: Lanes, const N: usize> Task<V> for Seal<'_, V, N> {
    #[inline(always)]
    fn run(self, token: V::Token) {
        let constants = Constants::new(token);
        expand::<V, N>(token, self.keys, 0, &mut self.scratch.mac);
        expand::<V, N>(token, self.keys, BLOCK_BYTES, &mut self.scratch.ctr);
        let keys = LaneKeys::<V, N>(&self.scratch.mac);
        let tags = self.tags(token, &constants, &keys);
        for vector in 0..N {
            self.text.store(vector, 0, tags[vector]);
            let keys = OneVector { keys: &LaneKeys::<V, N>(&self.scratch.ctr), vector };
            let crypt = Crypt { vector, bytes: self.plain_bytes, offset: BLOCK_BYTES };
            crypt.run(token, &constants, &keys, tags[vector], None, self.text);
        }
    }
}

impl<V: Lanes, const N: usize> Seal<'_, V, N> {
    #[inline(always)]
    fn tags<K: RoundKeys<V>>(&self, token: V::Token, constants: &Constants<V>, keys: &K) -> [V; N] {
        let start = Start::<V, N>::new(token, constants, keys, self.associated, self.nonces);
        let (associated_front, last) = split_blocks(self.associated_bytes);
        let (plain_front, _) = split_blocks(self.plain_bytes);
        let mut plain = [V::splat(token, &[0; BLOCK_BYTES]); N];
        let mut associated = start.associated;
        let mut done = SIDE_BLOCKS;
        let mut plain_done = 0;
        while done < associated_front && plain_done + 1 < plain_front {
            let blocks = load(token, self.associated, done * BLOCK_BYTES);
            let more = load(token, self.text, (1 + plain_done) * BLOCK_BYTES);
            (associated, plain) = encrypt_pair(keys, xor(associated, blocks), xor(plain, more));
            done += 1;
            plain_done += 1;
        }
        while done < associated_front {
            associated = absorb(token, keys, associated, self.associated, done * BLOCK_BYTES);
            done += 1;
        }
        let delta = start.finish(token, constants, keys, associated, self.associated, last);
        let text = Text { bytes: self.plain_bytes, offset: BLOCK_BYTES, done: plain_done };
        text.tags(token, constants, keys, self.text, plain, delta, start.subkey_full)
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
    fn new<K: RoundKeys<V>>(
        token: V::Token,
        constants: &Constants<V>,
        keys: &K,
        associated: &Sources<'_>,
        nonces: &Sources<'_>,
    ) -> Self {
        let state = load(token, associated, 0);
        let (state, mut subkey_full) =
            encrypt_pair(keys, state, [V::splat(token, &[0; BLOCK_BYTES]); N]);
        for vector in 0..N {
            subkey_full[vector] = double(constants, subkey_full[vector]);
        }
        let state = xor(state, load(token, associated, BLOCK_BYTES));
        let (state, zero) = encrypt_pair(keys, state, subkey_full);
        let state = xor(state, load(token, associated, 2 * BLOCK_BYTES));
        let nonce = xor(subkey_full, load(token, nonces, 0));
        let (associated, nonce) = encrypt_pair(keys, state, nonce);
        Self { subkey_full, zero, nonce, associated }
    }

    /// D after associated data and nonce; `state` has taken all blocks but the last one.
    #[inline(always)]
    fn finish<K: RoundKeys<V>>(
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
struct Master<V, const N: usize> {
    keys: SharedKeys<V>,
    subkey_full: [V; N],
    delta: [V; N],
}

impl<V: Lanes, const N: usize> Master<V, N> {
    #[inline(always)]
    fn new(token: V::Token, _: &Constants<V>, master: &SivConstants, nonces: &Sources<'_>) -> Self {
        let keys = SharedKeys::new(token, &master.mac_round_keys);
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
    fn tags<V: Lanes, K: RoundKeys<V>, R: Read, const N: usize>(
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
        let mut state = state;
        for index in self.done..front - 1 {
            state = absorb(token, keys, state, plain, self.offset + index * BLOCK_BYTES);
        }
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
    fn run<V: Lanes, K: RoundKeys<V>>(
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
            self.mix::<V, K, 4>(token, constants, keys, &mut counter, source, sink, done);
            done += 4 * BLOCK_BYTES;
        }
        while self.bytes - done >= BLOCK_BYTES {
            self.mix::<V, K, 1>(token, constants, keys, &mut counter, source, sink, done);
            done += BLOCK_BYTES;
        }
        if done < self.bytes {
            let [stream] = keystream::<V, K, 1>(constants, keys, &mut counter);
            self.mix_tail(token, stream, source, sink, self.bytes - done);
        }
    }

    /// `BLOCKS` whole blocks, `at` bytes into the text.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "registers, not memory")]
    fn mix<V: Lanes, K: RoundKeys<V>, const BLOCKS: usize>(
        &self,
        token: V::Token,
        constants: &Constants<V>,
        keys: &K,
        counter: &mut V,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
        at: usize,
    ) {
        let input = source.map(|(source, offset)| source.run::<BLOCKS>(offset + at));
        let mut output = sink.run_mut::<BLOCKS>(self.offset + at);
        let mut mixed = keystream::<V, K, BLOCKS>(constants, keys, counter);
        match input {
            Some(input) => {
                for index in 0..BLOCKS {
                    mixed[index] = mixed[index].xor(input.block(token, self.vector, index));
                }
            }
            None => {
                for index in 0..BLOCKS {
                    mixed[index] = mixed[index].xor(output.block(token, self.vector, index));
                }
            }
        }
        for index in 0..BLOCKS {
            output.store(self.vector, index, mixed[index]);
        }
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
fn keystream<V: Lanes, K: RoundKeys<V>, const COUNT: usize>(
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

/// One step of a CMAC chain.
#[inline(always)]
fn absorb<V: Lanes, K: RoundKeys<V>, R: Read, const N: usize>(
    token: V::Token,
    keys: &K,
    state: [V; N],
    messages: &R,
    offset: usize,
) -> [V; N] {
    encrypt(keys, xor(state, load(token, messages, offset)))
}

/// AES-128 of one block of each lane (FIPS 197 section 5.1).
#[inline(always)]
fn encrypt<V: Lanes, K: RoundKeys<V>, const N: usize>(keys: &K, mut state: [V; N]) -> [V; N] {
    let keys = keys.fresh();
    for vector in 0..N {
        state[vector] = state[vector].xor(keys.get(0, vector));
    }
    for round in 1..ROUND_KEYS - 1 {
        for vector in 0..N {
            state[vector] = state[vector].aes_round(keys.get(round, vector));
        }
    }
    for vector in 0..N {
        state[vector] = state[vector].aes_last_round(keys.get(ROUND_KEYS - 1, vector));
    }
    state
}

/// Two blocks of each lane under the same keys; side by side if the registers suffice.
#[inline(always)]
fn encrypt_pair<V: Lanes, K: RoundKeys<V>, const N: usize>(
    keys: &K,
    mut one: [V; N],
    mut two: [V; N],
) -> ([V; N], [V; N]) {
    if 2 * N > V::STATES {
        return (encrypt(keys, one), encrypt(keys, two));
    }
    let keys = keys.fresh();
    for vector in 0..N {
        one[vector] = one[vector].xor(keys.get(0, vector));
        two[vector] = two[vector].xor(keys.get(0, vector));
    }
    for round in 1..ROUND_KEYS - 1 {
        for vector in 0..N {
            one[vector] = one[vector].aes_round(keys.get(round, vector));
            two[vector] = two[vector].aes_round(keys.get(round, vector));
        }
    }
    for vector in 0..N {
        one[vector] = one[vector].aes_last_round(keys.get(ROUND_KEYS - 1, vector));
        two[vector] = two[vector].aes_last_round(keys.get(ROUND_KEYS - 1, vector));
    }
    (one, two)
}

/// Schedules the 16 key bytes at `offset` of each lane (FIPS 197 section 5.2).
#[inline(always)]
fn expand<V: Lanes, const N: usize>(
    token: V::Token,
    keys: &Sources<'_>,
    offset: usize,
    schedule: &mut [V; ROUND_KEYS * VECTORS_MAX],
) {
    let last_word_rotated = V::splat(token, &ROTATE_LAST_WORD);
    let mut key: [V; N] = load(token, keys, offset);
    schedule[..N].copy_from_slice(&key);
    for round in 1..ROUND_KEYS {
        let constant = V::splat(token, &ROUND_CONSTANTS[round - 1]);
        for vector in 0..N {
            let word = key[vector].shuffle_bytes(last_word_rotated).aes_last_round(constant);
            let pairs = key[vector].xor(key[vector].shift_bytes::<4>());
            let running = pairs.xor(pairs.shift_bytes::<8>());
            key[vector] = running.xor(word);
            schedule[round * N + vector] = key[vector];
        }
    }
}

/// Doubling in GF(2¹²⁸) with the bytes in network order (RFC 5297 section 2.3).
#[inline(always)]
fn double<V: Lanes>(constants: &Constants<V>, block: V) -> V {
    let block = block.shuffle_bytes(constants.reverse);
    let carries = block.sign_words().shuffle_words::<CARRIES>().and(constants.carries);
    block.add_words(block).xor(carries).shuffle_bytes(constants.reverse)
}

#[inline(always)]
fn load<V: Lanes, R: Read, const N: usize>(token: V::Token, messages: &R, offset: usize) -> [V; N] {
    let mut blocks = [V::splat(token, &[0; BLOCK_BYTES]); N];
    for vector in 0..N {
        blocks[vector] = messages.block(token, vector, offset);
    }
    blocks
}

#[inline(always)]
fn xor<V: Lanes, const N: usize>(mut one: [V; N], two: [V; N]) -> [V; N] {
    for vector in 0..N {
        one[vector] = one[vector].xor(two[vector]);
    }
    one
}

#[inline(always)]
fn store_tags<V: Lanes, const N: usize>(tags: &mut Sinks<'_>, values: [V; N]) {
    for vector in 0..N {
        tags.store(vector, 0, values[vector]);
    }
}

/// Where the round keys of a register come from.
trait RoundKeys<V> {
    /// The same keys, of which the compiler knows nothing from before.
    fn fresh(&self) -> Self;

    fn get(&self, round: usize, vector: usize) -> V;
}

/// The keys of each lane, in the scratch.
struct LaneKeys<'a, V, const N: usize>(&'a [V; ROUND_KEYS * VECTORS_MAX]);

impl<V: Lanes, const N: usize> RoundKeys<V> for LaneKeys<'_, V, N> {
    /// Four registers of lanes have 44 round keys. LLVM would load them once in front of a loop,
    /// find that 32 registers cannot hold them and spill them to a stack that is not aligned to
    /// cache lines, whereas in the scratch each is an aligned operand of its `aesenc`.
    #[inline(always)]
    fn fresh(&self) -> Self {
        Self(black_box(self.0))
    }

    #[inline(always)]
    fn get(&self, round: usize, vector: usize) -> V {
        self.0[round * N + vector]
    }
}

/// The keys of one register of lanes.
struct OneVector<'a, K> {
    keys: &'a K,
    vector: usize,
}

impl<V: Lanes, K: RoundKeys<V>> RoundKeys<V> for OneVector<'_, K> {
    #[inline(always)]
    fn fresh(&self) -> Self {
        Self { keys: self.keys, vector: self.vector }
    }

    #[inline(always)]
    fn get(&self, round: usize, _: usize) -> V {
        self.keys.get(round, self.vector)
    }
}

/// The same keys for all lanes.
struct SharedKeys<V>([V; ROUND_KEYS]);

impl<V: Lanes> SharedKeys<V> {
    #[inline(always)]
    fn new(token: V::Token, round_keys: &[[u8; BLOCK_BYTES]; ROUND_KEYS]) -> Self {
        let mut keys = [V::splat(token, &round_keys[0]); ROUND_KEYS];
        for round in 1..ROUND_KEYS {
            keys[round] = V::splat(token, &round_keys[round]);
        }
        Self(keys)
    }
}

impl<V: Lanes> RoundKeys<V> for SharedKeys<V> {
    #[inline(always)]
    fn fresh(&self) -> Self {
        Self(self.0)
    }

    #[inline(always)]
    fn get(&self, round: usize, _: usize) -> V {
        self.0[round]
    }
}

/// Constants in every lane.
struct Constants<V> {
    reverse: V,
    carries: V,
    counter_mask: V,
    one: V,
}

impl<V: Lanes> Constants<V> {
    #[inline(always)]
    fn new(token: V::Token) -> Self {
        Self {
            reverse: V::splat(token, &REVERSE),
            carries: V::splat(token, &CARRY_BITS),
            counter_mask: V::splat(token, &COUNTER_MASK),
            one: V::splat(token, &1u128.to_le_bytes()),
        }
    }
}

/// A shuffle that moves bytes up by `places`, 0 to 16.
#[inline(always)]
fn shift_up(places: usize) -> &'static [u8; BLOCK_BYTES] {
    window(&SHIFTS, BLOCK_BYTES - places)
}

/// A shuffle that moves bytes down by `places`, 0 to 16.
#[inline(always)]
fn shift_down(places: usize) -> &'static [u8; BLOCK_BYTES] {
    window(&SHIFTS, BLOCK_BYTES + places)
}

/// The padding behind `bytes`, fewer than 16.
#[inline(always)]
fn pad_of(bytes: usize) -> &'static [u8; BLOCK_BYTES] {
    window(&PADS, BLOCK_BYTES - bytes)
}

/// Ones in the last `bytes`.
#[inline(always)]
fn top_bytes(bytes: usize) -> &'static [u8; BLOCK_BYTES] {
    window(&TOPS, bytes)
}

#[inline(always)]
fn window(table: &'static [u8; 48], start: usize) -> &'static [u8; BLOCK_BYTES] {
    table[start..start + BLOCK_BYTES].as_array().expect("16 bytes")
}

/// Round keys of AES-128.
pub(super) const ROUND_KEYS: usize = 11;

/// Registers of the widest group.
const VECTORS_MAX: usize = 8;

/// Blocks of associated data that the side chains ride beside.
const SIDE_BLOCKS: usize = 3;

/// Network order to little-endian and back.
const REVERSE: [u8; BLOCK_BYTES] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

/// Word 0 takes the sign of word 3 (the reduction), word 2 that of word 1 (the carry).
const CARRIES: i32 = 0b00_01_00_11;

/// x¹²⁸ = x⁷ + x² + x + 1, and the carry between the halves.
const CARRY_BITS: [u8; BLOCK_BYTES] = [0x87, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

/// Bits 31 and 63 of the counter are cleared (RFC 5297 section 2.5): the lower half cannot carry.
const COUNTER_MASK: [u8; BLOCK_BYTES] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff,
];

/// RotWord of the last word, in all four columns.
const ROTATE_LAST_WORD: [u8; BLOCK_BYTES] =
    [13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12];

/// Rcon of each round (FIPS 197 section 5.2), in all four columns.
const ROUND_CONSTANTS: [[u8; BLOCK_BYTES]; ROUND_KEYS - 1] = {
    let values = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36];
    let mut blocks = [[0; BLOCK_BYTES]; ROUND_KEYS - 1];
    let mut index = 0;
    while index < 40 {
        blocks[index / 4][index % 4 * 4] = values[index / 4];
        index += 1;
    }
    blocks
};

/// Zeros, the identity, zeros, for `shuffle_bytes`.
const SHIFTS: [u8; 48] = {
    let mut table = [0x80; 48];
    let mut index = 0;
    while index < BLOCK_BYTES {
        table[BLOCK_BYTES + index] = index as u8;
        index += 1;
    }
    table
};

/// 10*, with zeros in front.
const PADS: [u8; 48] = {
    let mut table = [0; 48];
    table[BLOCK_BYTES] = 0x80;
    table
};

/// Zeros, then ones.
const TOPS: [u8; 48] = {
    let mut table = [0xff; 48];
    let mut index = 0;
    while index < BLOCK_BYTES {
        table[index] = 0;
        index += 1;
    }
    table
};
