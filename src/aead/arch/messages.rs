//! The messages of a group of lanes: where [`Lanes`] values are loaded from and stored to.

use std::marker::PhantomData;

use super::{BLOCK_BYTES, Lanes};

/// Lanes that a group has at most: four 512-bit registers, eight 256-bit ones.
pub(in super::super) const LANES_MAX: usize = 16;

/// Messages that blocks can be read from.
pub(in super::super) trait Read {
    /// The blocks at `offset` of the lanes of register `vector`.
    ///
    /// # Panics
    /// If the block does not lie inside the messages.
    fn block<V: Lanes>(&self, token: V::Token, vector: usize, offset: usize) -> V;
}

/// Messages to read: one slice a lane, all of the same length.
///
/// Filled where it stays (`extend`) and passed by reference: the pointers are written one by one,
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

    /// The messages of lanes 1 and up, at most [`LANES_MAX`] - 1, all as long as the first.
    #[inline(always)]
    pub(in super::super) fn extend(&mut self, slices: impl Iterator<Item = &'a [u8]>) {
        for (pointer, slice) in self.pointers[1..].iter_mut().zip(slices) {
            assert_eq!(slice.len(), self.bytes, "a group has one shape");
            *pointer = slice.as_ptr().cast_mut();
        }
    }
}

impl Read for Sources<'_> {
    #[inline(always)]
    fn block<V: Lanes>(&self, token: V::Token, vector: usize, offset: usize) -> V {
        assert!(offset <= self.bytes && BLOCK_BYTES <= self.bytes - offset);
        let pointers = &self.pointers[vector * V::WIDTH..][..V::WIDTH];
        // SAFETY: each pointer comes from a slice of `self.bytes` bytes that is borrowed for 'a
        // (`new` compared the lengths), and the block at `offset` lies inside.
        unsafe { V::gather(token, pointers, offset) }
    }
}

/// Messages to write, or to change in place: one slice a lane, all of the same length.
pub(in super::super) struct Sinks<'a> {
    pointers: [*mut u8; LANES_MAX],
    lanes: usize,
    bytes: usize,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> Sinks<'a> {
    /// A group of one lane.
    #[inline(always)]
    pub(in super::super) fn new(first: &'a mut [u8]) -> Self {
        Self {
            pointers: [first.as_mut_ptr(); LANES_MAX],
            lanes: 1,
            bytes: first.len(),
            borrowed: PhantomData,
        }
    }

    /// The messages of lanes 1 and up, at most [`LANES_MAX`] - 1, all as long as the first.
    #[inline(always)]
    pub(in super::super) fn extend(&mut self, slices: impl Iterator<Item = &'a mut [u8]>) {
        for slice in slices {
            assert_eq!(slice.len(), self.bytes, "a group has one shape");
            self.pointers[self.lanes] = slice.as_mut_ptr();
            self.lanes += 1;
        }
    }

    /// Stores a block at `offset` of each lane of register `vector` that has a message.
    ///
    /// # Panics
    /// If the block does not lie inside the messages.
    #[inline(always)]
    pub(in super::super) fn store<V: Lanes>(&mut self, vector: usize, offset: usize, value: V) {
        assert!(offset <= self.bytes && BLOCK_BYTES <= self.bytes - offset);
        let lanes = self.lanes.min((vector + 1) * V::WIDTH);
        let pointers = self.pointers[..lanes].get(vector * V::WIDTH..).unwrap_or(&[]);
        // SAFETY: each pointer comes from a `&mut` slice of `self.bytes` bytes that is borrowed
        // for 'a (`new` compared the lengths), the block at `offset` lies inside, and lanes
        // beyond `self.lanes`, which share lane 0's pointer, have been cut off.
        unsafe { value.scatter(pointers, offset) }
    }
}

impl Read for Sinks<'_> {
    #[inline(always)]
    fn block<V: Lanes>(&self, token: V::Token, vector: usize, offset: usize) -> V {
        assert!(offset <= self.bytes && BLOCK_BYTES <= self.bytes - offset);
        let pointers = &self.pointers[vector * V::WIDTH..][..V::WIDTH];
        // SAFETY: as in `store`; lanes without a message read lane 0's, which nobody writes to
        // meanwhile because `self` is borrowed.
        unsafe { V::gather(token, pointers, offset) }
    }
}
