//! The blocks that both algorithms are made of: AES and its key schedule in lanes, doubling, and
//! the constants that shift and pad the ends of messages.

#![allow(clippy::needless_range_loop, reason = "closures do not inherit the instruction set")]

use super::arch::{BLOCK_BYTES, Lanes, Read, Sinks, Sources};

/// AES-128 of one block of each lane (FIPS 197 section 5.1). The registers go side by side: a
/// round of one fills the latency of the others.
#[inline(always)]
pub(super) fn encrypt<V: Lanes, K: Keys<V>, const N: usize>(
    keys: &K,
    mut states: [V; N],
) -> [V; N] {
    for vector in 0..N {
        states[vector] = states[vector].xor(keys.get(0, vector));
    }
    for round in 1..ROUND_KEYS - 1 {
        for vector in 0..N {
            states[vector] = states[vector].aes_round(keys.get(round, vector)).in_order();
        }
    }
    for vector in 0..N {
        states[vector] = states[vector].aes_last_round(keys.get(ROUND_KEYS - 1, vector));
    }
    states
}

/// Two blocks of each lane under the same keys, side by side if the registers suffice.
#[inline(always)]
pub(super) fn encrypt_two<V: Lanes, K: Keys<V>, const N: usize>(
    keys: &K,
    mut one: [V; N],
    mut two: [V; N],
) -> ([V; N], [V; N]) {
    if 2 * N > V::STATES {
        return (encrypt(keys, one), encrypt(keys, two));
    }
    for vector in 0..N {
        one[vector] = one[vector].xor(keys.get(0, vector));
        two[vector] = two[vector].xor(keys.get(0, vector));
    }
    for round in 1..ROUND_KEYS - 1 {
        for vector in 0..N {
            let key = keys.get(round, vector).in_order();
            one[vector] = one[vector].aes_round(key).in_order();
            two[vector] = two[vector].aes_round(key).in_order();
        }
    }
    for vector in 0..N {
        one[vector] = one[vector].aes_last_round(keys.get(ROUND_KEYS - 1, vector));
        two[vector] = two[vector].aes_last_round(keys.get(ROUND_KEYS - 1, vector));
    }
    (one, two)
}

/// Schedules a key of each lane (FIPS 197 section 5.2).
#[inline(always)]
pub(super) fn expand<V: Lanes, const N: usize>(
    token: V::Token,
    mut key: [V; N],
    schedules: &mut [Schedule<V>; VECTORS_MAX],
) {
    let step = KeyStep::new(token);
    for round in 0..ROUND_KEYS {
        for vector in 0..N {
            schedules[vector][round] = key[vector];
            key[vector] = step.next(token, round, key[vector]);
        }
    }
}

/// Schedules both keys of each lane side by side: a round of a schedule waits for the one before.
#[inline(always)]
pub(super) fn expand_both<V: Lanes, const N: usize>(
    token: V::Token,
    keys: &Sources<'_>,
    mac: &mut [Schedule<V>; VECTORS_MAX],
    ctr: &mut [Schedule<V>; VECTORS_MAX],
) {
    let step = KeyStep::new(token);
    let mut mac_key: [V; N] = load(token, keys, 0);
    let mut ctr_key: [V; N] = load(token, keys, BLOCK_BYTES);
    for round in 0..ROUND_KEYS {
        for vector in 0..N {
            mac[vector][round] = mac_key[vector];
            mac_key[vector] = step.next(token, round, mac_key[vector]);
            ctr[vector][round] = ctr_key[vector];
            ctr_key[vector] = step.next(token, round, ctr_key[vector]);
        }
    }
}

/// From a round key to the next one.
struct KeyStep<V> {
    last_word_rotated: V,
}

impl<V: Lanes> KeyStep<V> {
    #[inline(always)]
    fn new(token: V::Token) -> Self {
        Self { last_word_rotated: V::splat(token, &ROTATE_LAST_WORD) }
    }

    /// The key behind that of `round`; there is none behind the last.
    #[inline(always)]
    fn next(&self, token: V::Token, round: usize, key: V) -> V {
        let Some(constant) = ROUND_CONSTANTS.get(round) else { return key };
        let constant = V::splat(token, constant);
        let word = key.shuffle_bytes(self.last_word_rotated).aes_last_round(constant);
        let pairs = key.xor(key.shift_bytes::<4>());
        let running = pairs.xor(pairs.shift_bytes::<8>());
        running.xor(word)
    }
}

/// Doubling in GF(2¹²⁸) with the bytes in network order (RFC 5297 section 2.3).
#[inline(always)]
pub(super) fn double<V: Lanes>(constants: &Constants<V>, block: V) -> V {
    let block = block.shuffle_bytes(constants.reverse);
    let carries = block.sign_words().shuffle_words::<CARRIES>().and(constants.carries);
    block.add_words(block).xor(carries).shuffle_bytes(constants.reverse)
}

#[inline(always)]
pub(super) fn load<V: Lanes, R: Read, const N: usize>(
    token: V::Token,
    messages: &R,
    offset: usize,
) -> [V; N] {
    let mut blocks = [V::splat(token, &[0; BLOCK_BYTES]); N];
    for vector in 0..N {
        blocks[vector] = messages.block(token, vector, offset);
    }
    blocks
}

/// Four blocks in a row of each lane.
#[inline(always)]
pub(super) fn load_four<V: Lanes, R: Read, const N: usize>(
    token: V::Token,
    messages: &R,
    offset: usize,
) -> [[V; N]; 4] {
    let run = messages.run::<4>(offset);
    let mut blocks = [[V::splat(token, &[0; BLOCK_BYTES]); N]; 4];
    for vector in 0..N {
        let four = run.blocks(token, vector);
        for index in 0..4 {
            blocks[index][vector] = four[index];
        }
    }
    blocks
}

/// A block to each lane.
#[inline(always)]
pub(super) fn store<V: Lanes, const N: usize>(
    messages: &mut Sinks<'_>,
    offset: usize,
    blocks: [V; N],
) {
    for vector in 0..N {
        messages.store(vector, offset, blocks[vector]);
    }
}

#[inline(always)]
pub(super) fn xor<V: Lanes, const N: usize>(mut one: [V; N], two: [V; N]) -> [V; N] {
    for vector in 0..N {
        one[vector] = one[vector].xor(two[vector]);
    }
    one
}

/// Where the round keys of a register come from.
pub(super) trait Keys<V> {
    /// Each register has its own: loading them keeps the load unit busy.
    const ARE_MANY: bool;

    /// The key of a round, for the lanes of register `vector`.
    fn get(&self, round: usize, vector: usize) -> V;
}

/// The round keys of AES-128 of the lanes of a register.
pub(super) type Schedule<V> = [V; ROUND_KEYS];

/// Keys of each lane, in the scratch: a schedule for each register.
pub(super) struct LaneKeys<'a, V>(pub(super) &'a [Schedule<V>; VECTORS_MAX]);

impl<V: Lanes> Keys<V> for LaneKeys<'_, V> {
    const ARE_MANY: bool = true;

    #[inline(always)]
    fn get(&self, round: usize, vector: usize) -> V {
        self.0[vector][round]
    }
}

/// The keys of one register of lanes.
pub(super) struct OneSchedule<'a, V>(pub(super) &'a Schedule<V>);

impl<V: Lanes> Keys<V> for OneSchedule<'_, V> {
    const ARE_MANY: bool = false;

    #[inline(always)]
    fn get(&self, round: usize, _: usize) -> V {
        self.0[round]
    }
}

/// The same key for all lanes: one of the server's own.
pub(super) struct SharedKey<'a, V: Lanes>(
    pub(super) V::Token,
    pub(super) &'a [[u8; BLOCK_BYTES]; ROUND_KEYS],
);

impl<V: Lanes> Keys<V> for SharedKey<'_, V> {
    const ARE_MANY: bool = false;

    #[inline(always)]
    fn get(&self, round: usize, _: usize) -> V {
        V::splat(self.0, &self.1[round])
    }
}

/// Constants in every lane.
pub(super) struct Constants<V> {
    pub(super) reverse: V,
    pub(super) carries: V,
    pub(super) counter_mask: V,
    pub(super) one: V,
}

impl<V: Lanes> Constants<V> {
    #[inline(always)]
    pub(super) fn new(token: V::Token) -> Self {
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
pub(super) fn shift_up(places: usize) -> &'static [u8; BLOCK_BYTES] {
    window(&SHIFTS, BLOCK_BYTES - places)
}

/// A shuffle that moves bytes down by `places`, 0 to 16.
#[inline(always)]
pub(super) fn shift_down(places: usize) -> &'static [u8; BLOCK_BYTES] {
    window(&SHIFTS, BLOCK_BYTES + places)
}

/// The padding behind `bytes`, fewer than 16.
#[inline(always)]
pub(super) fn pad_of(bytes: usize) -> &'static [u8; BLOCK_BYTES] {
    window(&PADS, BLOCK_BYTES - bytes)
}

/// Ones in the last `bytes`.
#[inline(always)]
pub(super) fn top_bytes(bytes: usize) -> &'static [u8; BLOCK_BYTES] {
    window(&TOPS, bytes)
}

#[inline(always)]
pub(super) fn window(table: &'static [u8; 48], start: usize) -> &'static [u8; BLOCK_BYTES] {
    table[start..start + BLOCK_BYTES].as_array().expect("16 bytes")
}

/// Round keys of AES-128.
const ROUND_KEYS: usize = 11;

/// Registers of the widest group.
pub(super) const VECTORS_MAX: usize = 8;

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
