//! Counter mode in lanes, for both algorithms: they differ in how they count.

#![allow(clippy::needless_range_loop, reason = "closures do not inherit the instruction set")]

use super::arch::{BLOCK_BYTES, Lanes, Read, Sinks, Sources};
use super::blocks::{Keys, encrypt, shift_down, shift_up, top_bytes, xor};

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
        let end: V = match source {
            Some((source, offset)) => {
                source.block(token, self.vector, offset + self.bytes - BLOCK_BYTES)
            }
            None => sink.block(token, self.vector, self.offset + self.bytes - BLOCK_BYTES),
        };
        let mut last = V::splat(token, &[0; BLOCK_BYTES]);
        let mut done = 0;
        while self.bytes - done >= 4 * BLOCK_BYTES {
            let stream = keystream::<V, K, C, 4>(keys, &mut counter);
            last = self.mix_four(token, stream, source, sink, done);
            done += 4 * BLOCK_BYTES;
        }
        match (self.bytes - done).div_ceil(BLOCK_BYTES) {
            0 => {}
            1 => self.mix_rest::<V, K, C, 1>(token, keys, counter, source, sink, done, last, end),
            2 => self.mix_rest::<V, K, C, 2>(token, keys, counter, source, sink, done, last, end),
            3 => self.mix_rest::<V, K, C, 3>(token, keys, counter, source, sink, done, last, end),
            _ => self.mix_rest::<V, K, C, 4>(token, keys, counter, source, sink, done, last, end),
        }
    }

    /// Four blocks, `at` bytes into the text; returns the last one.
    #[inline(always)]
    fn mix_four<V: Lanes>(
        &self,
        token: V::Token,
        stream: [V; 4],
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
        at: usize,
    ) -> V {
        let text = match source {
            Some((source, offset)) => source.run::<4>(offset + at).blocks(token, self.vector),
            None => sink.run::<4>(self.offset + at).blocks(token, self.vector),
        };
        let mixed = xor(stream, text);
        sink.run_mut::<4>(self.offset + at).store_blocks(self.vector, mixed);
        mixed[3]
    }

    /// The last `COUNT` blocks, `at` bytes into the text; the very last one may not be full. It is
    /// put together from registers, `last` being the block in front of them and `end` the last 16
    /// bytes of the text: bytes of two stores cannot be loaded before both have reached the cache.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "registers, not memory")]
    fn mix_rest<V: Lanes, K: Keys<V>, C: Counter<V>, const COUNT: usize>(
        &self,
        token: V::Token,
        keys: &K,
        mut counter: C,
        source: Option<(&Sources<'_>, usize)>,
        sink: &mut Sinks<'_>,
        at: usize,
        mut last: V,
        end: V,
    ) {
        let stream = keystream::<V, K, C, COUNT>(keys, &mut counter);
        for index in 0..COUNT - 1 {
            let at = at + index * BLOCK_BYTES;
            let text: V = match source {
                Some((source, offset)) => source.block(token, self.vector, offset + at),
                None => sink.block(token, self.vector, self.offset + at),
            };
            last = stream[index].xor(text);
            sink.store(self.vector, self.offset + at, last);
        }
        let bytes = self.bytes - at - (COUNT - 1) * BLOCK_BYTES;
        let text = end.and(V::splat(token, top_bytes(bytes)));
        let stream =
            stream[COUNT - 1].shuffle_bytes(V::splat(token, shift_up(BLOCK_BYTES - bytes)));
        let kept = last.shuffle_bytes(V::splat(token, shift_down(bytes)));
        let mixed = text.xor(stream).xor(kept);
        sink.store(self.vector, self.offset + self.bytes - BLOCK_BYTES, mixed);
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
