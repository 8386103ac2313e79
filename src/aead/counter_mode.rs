//! Counter mode in lanes, for both algorithms: they differ in how they count.

#![allow(clippy::needless_range_loop, reason = "closures do not inherit the instruction set")]

use super::arch::{BLOCK_BYTES, Lanes, Read, Sinks, Sources};
use super::blocks::{Keys, encrypt, shift_up, top_bytes, xor};

/// Blocks to encrypt, one after the other.
pub(super) trait Counter<V> {
    /// The next one of each lane.
    fn next(&mut self) -> V;
}

/// Counter mode over the text of the lanes of one register.
pub(super) struct Crypt {
    pub(super) vector: usize,
    /// Bytes of the text, 16 or more.
    pub(super) bytes: usize,
    /// Where the text lies in the sink.
    pub(super) offset: usize,
}

impl Crypt {
    /// Reads at an offset in `source`, or in place.
    #[inline(always)]
    pub(super) fn run<V: Lanes, K: Keys<V>, C: Counter<V>>(
        &self,
        token: V::Token,
        keys: &K,
        mut counter: C,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
    ) {
        let mut done = 0;
        while self.bytes - done >= 4 * BLOCK_BYTES {
            self.mix_four(token, keys, &mut counter, source, sink, done);
            done += 4 * BLOCK_BYTES;
        }
        while self.bytes - done >= BLOCK_BYTES {
            self.mix(token, keys, &mut counter, source, sink, done);
            done += BLOCK_BYTES;
        }
        if done < self.bytes {
            let [stream] = keystream::<V, K, C, 1>(keys, &mut counter);
            self.mix_tail(token, stream, source, sink, self.bytes - done);
        }
    }

    /// Four blocks, `at` bytes into the text.
    #[inline(always)]
    fn mix_four<V: Lanes, K: Keys<V>, C: Counter<V>>(
        &self,
        token: V::Token,
        keys: &K,
        counter: &mut C,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
        at: usize,
    ) {
        let mut output = sink.run_mut::<4>(self.offset + at);
        let stream = keystream::<V, K, C, 4>(keys, counter);
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
    fn mix<V: Lanes, K: Keys<V>, C: Counter<V>>(
        &self,
        token: V::Token,
        keys: &K,
        counter: &mut C,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
        at: usize,
    ) {
        let [stream] = keystream::<V, K, C, 1>(keys, counter);
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

/// The next `COUNT` blocks of key stream.
#[inline(always)]
fn keystream<V: Lanes, K: Keys<V>, C: Counter<V>, const COUNT: usize>(
    keys: &K,
    counter: &mut C,
) -> [V; COUNT] {
    let mut blocks = [counter.next(); COUNT];
    for index in 1..COUNT {
        blocks[index] = counter.next();
    }
    encrypt(keys, blocks)
}
