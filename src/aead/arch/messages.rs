//! The messages of a group of lanes: where [`Lanes`] values are loaded from and stored to.

use std::marker::PhantomData;

use super::{BLOCK_BYTES, Lanes};

/// Lanes that a group has at most: eight 512-bit registers.
pub(in super::super) const LANES_MAX: usize = 32;

/// Bytes of the spare message that lanes without a message write to. Longest message to write.
pub(in super::super) const SPARE_BYTES: usize = 1024;

/// Messages that blocks can be read from.
pub(in super::super) trait Read {
    /// `BLOCKS` consecutive blocks of every lane, from `offset` on.
    ///
    /// # Panics
    /// If they do not lie inside the messages.
    fn run<const BLOCKS: usize>(&self, offset: usize) -> Run<'_, BLOCKS>;

    /// The blocks at `offset` of the lanes of register `vector`.
    ///
    /// # Panics
    /// If the block does not lie inside the messages.
    #[inline(always)]
    fn block<V: Lanes>(&self, token: V::Token, vector: usize, offset: usize) -> V {
        self.run::<1>(offset).block(token, vector, 0)
    }
}

/// Consecutive blocks of every lane, checked once: code between two blocks that could fail would
/// let LLVM pull apart the chains that belong side by side.
pub(in super::super) struct Run<'a, const BLOCKS: usize> {
    pointers: &'a [*mut u8; LANES_MAX],
    offset: usize,
}

impl<const BLOCKS: usize> Run<'_, BLOCKS> {
    /// Block `index` of the lanes of register `vector`.
    #[inline(always)]
    pub(in super::super) fn block<V: Lanes>(
        &self,
        token: V::Token,
        vector: usize,
        index: usize,
    ) -> V {
        assert!(index < BLOCKS);
        let pointers = &self.pointers[vector * V::WIDTH..][..V::WIDTH];
        // SAFETY: whoever made `self` borrowed the messages behind the pointers and compared
        // `offset` and `BLOCKS` with their length.
        unsafe { V::gather(token, pointers, self.offset + index * BLOCK_BYTES) }
    }
}

impl Run<'_, 4> {
    /// All blocks of the lanes of register `vector`.
    #[inline(always)]
    pub(in super::super) fn blocks<V: Lanes>(&self, token: V::Token, vector: usize) -> [V; 4] {
        let pointers = &self.pointers[vector * V::WIDTH..][..V::WIDTH];
        // SAFETY: as in `block`.
        unsafe { V::gather_four(token, pointers, self.offset) }
    }
}

/// The same to write.
pub(in super::super) struct RunMut<'a, const BLOCKS: usize>(Run<'a, BLOCKS>);

impl<const BLOCKS: usize> RunMut<'_, BLOCKS> {
    /// Stores block `index` of the lanes of register `vector`.
    #[inline(always)]
    pub(in super::super) fn store<V: Lanes>(&mut self, vector: usize, index: usize, value: V) {
        assert!(index < BLOCKS);
        let pointers = &self.0.pointers[vector * V::WIDTH..][..V::WIDTH];
        // SAFETY: only `Sinks` makes a `RunMut`, while it is borrowed mutably; it borrowed the
        // messages mutably and compared `offset` and `BLOCKS` with their length.
        unsafe { value.scatter(pointers, self.0.offset + index * BLOCK_BYTES) }
    }
}

impl RunMut<'_, 4> {
    /// Stores all blocks of the lanes of register `vector`.
    #[inline(always)]
    pub(in super::super) fn store_blocks<V: Lanes>(&mut self, vector: usize, blocks: [V; 4]) {
        let pointers = &self.0.pointers[vector * V::WIDTH..][..V::WIDTH];
        // SAFETY: as in `store`.
        unsafe { V::scatter_four(blocks, pointers, self.0.offset) }
    }
}

/// Messages to read: one slice a lane, all of the same length.
///
/// Filled where it stays (`set`) and passed by reference: the pointers are written one by one,
/// and a copy would load them in wide pieces, which stalls until those stores have reached the
/// cache.
pub(in super::super) struct Sources<'a> {
    /// Never written through: the slices are shared.
    pointers: [*mut u8; LANES_MAX],
    bytes: usize,
    borrowed: PhantomData<&'a [u8]>,
}

impl<'a> Sources<'a> {
    /// A group of one lane.
    #[inline(always)]
    pub(in super::super) fn new(first: &'a [u8]) -> Self {
        Self {
            pointers: [first.as_ptr().cast_mut(); LANES_MAX],
            bytes: first.len(),
            borrowed: PhantomData,
        }
    }

    /// One block for each of all lanes.
    #[inline(always)]
    pub(in super::super) fn of_all(blocks: &'a [[u8; BLOCK_BYTES]; LANES_MAX]) -> Self {
        let mut pointers = [std::ptr::null_mut(); LANES_MAX];
        for (pointer, block) in pointers.iter_mut().zip(blocks) {
            *pointer = block.as_ptr().cast_mut();
        }
        Self { pointers, bytes: BLOCK_BYTES, borrowed: PhantomData }
    }

    /// Bytes of each message.
    #[inline(always)]
    pub(in super::super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The message of `lane`, 1 and up, as long as the first.
    #[inline(always)]
    pub(in super::super) fn set(&mut self, lane: usize, message: &'a [u8]) {
        assert_eq!(message.len(), self.bytes, "a group has one shape");
        self.pointers[lane] = message.as_ptr().cast_mut();
    }
}

impl Read for Sources<'_> {
    #[inline(always)]
    fn run<const BLOCKS: usize>(&self, offset: usize) -> Run<'_, BLOCKS> {
        assert!(offset <= self.bytes && BLOCKS * BLOCK_BYTES <= self.bytes - offset);
        Run { pointers: &self.pointers, offset }
    }
}

/// Messages to write, or to change in place: one slice a lane, all of the same length. Lanes
/// without one share a spare message, so that stores need no branch.
pub(in super::super) struct Sinks<'a> {
    pointers: [*mut u8; LANES_MAX],
    bytes: usize,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> Sinks<'a> {
    /// A group of one lane, whose message is not longer than the spare one.
    #[inline(always)]
    pub(in super::super) fn new(first: &'a mut [u8], spare: &'a mut [u8; SPARE_BYTES]) -> Self {
        assert!(first.len() <= SPARE_BYTES);
        let mut pointers = [spare.as_mut_ptr(); LANES_MAX];
        pointers[0] = first.as_mut_ptr();
        Self { pointers, bytes: first.len(), borrowed: PhantomData }
    }

    /// One block for each of all lanes.
    #[inline(always)]
    pub(in super::super) fn of_all(blocks: &'a mut [[u8; BLOCK_BYTES]; LANES_MAX]) -> Self {
        let mut pointers = [std::ptr::null_mut(); LANES_MAX];
        for (pointer, block) in pointers.iter_mut().zip(blocks) {
            *pointer = block.as_mut_ptr();
        }
        Self { pointers, bytes: BLOCK_BYTES, borrowed: PhantomData }
    }

    /// The message of `lane`, 1 and up, as long as the first.
    #[inline(always)]
    pub(in super::super) fn set(&mut self, lane: usize, message: &'a mut [u8]) {
        assert_eq!(message.len(), self.bytes, "a group has one shape");
        self.pointers[lane] = message.as_mut_ptr();
    }

    /// `BLOCKS` consecutive blocks of every lane, from `offset` on, to change.
    ///
    /// # Panics
    /// If they do not lie inside the messages.
    #[inline(always)]
    pub(in super::super) fn run_mut<const BLOCKS: usize>(
        &mut self,
        offset: usize,
    ) -> RunMut<'_, BLOCKS> {
        RunMut(self.run(offset))
    }

    /// Stores a block at `offset` of each lane of register `vector`.
    ///
    /// # Panics
    /// If the block does not lie inside the messages.
    #[inline(always)]
    pub(in super::super) fn store<V: Lanes>(&mut self, vector: usize, offset: usize, value: V) {
        self.run_mut::<1>(offset).store(vector, 0, value);
    }
}

impl Read for Sinks<'_> {
    #[inline(always)]
    fn run<const BLOCKS: usize>(&self, offset: usize) -> Run<'_, BLOCKS> {
        assert!(offset <= self.bytes && BLOCKS * BLOCK_BYTES <= self.bytes - offset);
        Run { pointers: &self.pointers, offset }
    }
}
