//! What stands for the x86-64 instruction sets elsewhere: a token that cannot exist, so that the
//! compiler removes whatever would need it, and no other file asks which machine it is on.

use zeroize::Zeroize;

use super::{BLOCK_BYTES, Lanes, Task};

/// Proof of nothing: has no values.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Absent {}

impl Absent {
    /// Never finds it.
    pub(in super::super) fn detect() -> Option<Self> {
        None
    }
}

/// Blocks that cannot exist.
#[derive(Clone, Copy)]
pub(in super::super) struct AbsentBlocks(Absent);

impl Lanes for AbsentBlocks {
    type Token = Absent;
    const WIDTH: usize = 1;
    const VECTORS: usize = 1;
    const STATES: usize = 2;

    fn in_order(self) -> Self {
        match self.0 {}
    }

    fn enter<T: Task<Self>>(token: Absent, _: T) {
        match token {}
    }

    fn splat(token: Absent, _: &[u8; BLOCK_BYTES]) -> Self {
        match token {}
    }

    unsafe fn gather(token: Absent, _: &[*mut u8], _: usize) -> Self {
        match token {}
    }

    unsafe fn scatter(self, _: &[*mut u8], _: usize) {
        match self.0 {}
    }

    fn xor(self, _: Self) -> Self {
        match self.0 {}
    }

    fn and(self, _: Self) -> Self {
        match self.0 {}
    }

    fn aes_round(self, _: Self) -> Self {
        match self.0 {}
    }

    fn aes_last_round(self, _: Self) -> Self {
        match self.0 {}
    }

    fn shuffle_bytes(self, _: Self) -> Self {
        match self.0 {}
    }

    fn shift_bytes<const BYTES: i32>(self) -> Self {
        match self.0 {}
    }

    fn add_words(self, _: Self) -> Self {
        match self.0 {}
    }

    fn add_halves(self, _: Self) -> Self {
        match self.0 {}
    }

    fn multiply_words<const WORDS: i32>(self, _: Self) -> Self {
        match self.0 {}
    }

    fn sign_words(self) -> Self {
        match self.0 {}
    }

    fn shuffle_words<const ORDER: i32>(self) -> Self {
        match self.0 {}
    }
}

impl Zeroize for AbsentBlocks {
    fn zeroize(&mut self) {
        match self.0 {}
    }
}
