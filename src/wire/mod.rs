//! Wire formats: parse and emit, both directions, no panic on any input.
//!
//! The NTP part ([`timestamp`], [`ntp`], [`extension`], [`nts`]) allocates nothing and works on
//! the datagram where it lies: parsing records [`Span`]s, emitting writes into the caller's bytes.

pub mod candm;
pub mod extension;
pub mod ntp;
pub mod nts;
pub mod timestamp;

/// A stretch of a datagram, by offset: what parsing records instead of copying bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u16,
    length: u16,
}

impl Span {
    /// The stretch of `length` bytes from `start`. Both come from positions inside a datagram,
    /// which UDP keeps below 65,536.
    pub fn new(start: usize, length: usize) -> Self {
        debug_assert!(start + length <= usize::from(u16::MAX));
        Self { start: start as u16, length: length as u16 }
    }

    /// Offset of the first byte.
    pub fn start(self) -> usize {
        usize::from(self.start)
    }

    /// Offset after the last byte.
    pub fn end(self) -> usize {
        self.start() + self.len()
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        usize::from(self.length)
    }

    /// Whether no byte is covered.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    /// The offsets, for slicing.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start()..self.end()
    }
}

pub mod ke;
