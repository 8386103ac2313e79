//! The fence: the only part of `aead` with `unsafe` code.
//!
//! A *lane* is one request. A [`Lanes`] value is one AES block of each of [`Lanes::WIDTH`]
//! lanes, in one register. There is one file per instruction set, each with the same two types:
//!
//! - a **token**, such as `Vaes512`, whose field is private and which only a successful look at
//!   the CPU makes: having one *is* the permission;
//! - a **value**, such as `Blocks512`, which only functions that take the token make, so that its
//!   methods are safe to call wherever one exists.
//!
//! The algorithms (`aead/siv.rs`, `aead/gcm_siv.rs`) are written once over [`Lanes`], without
//! `unsafe`. All of them is `#[inline(always)]` and ends up in [`Lanes::enter`], the one function
//! per instruction set that carries `#[target_feature]`: crossed once per group of lanes.
//!
//! Elsewhere than on x86-64 the tokens are types without values (`absent.rs`). `fork_mark.rs` is no
//! instruction set, but needs the fence as well.
//!
//! JUSTIFICATION: an NTS request costs 990 ns with the `aes-siv` crate in a native build, 98 ns
//! with `vaes512.rs`, 110 with `vaes256.rs` and 160 with `aesni.rs` (batches of 32 with one cookie
//! each, AMD Zen 4; `benches/record`); one of AEAD 30 840 ns with the `aes-gcm-siv` crate and 78
//! with `vaes512.rs` (AMD Zen 5). Safe Rust has no AES instructions.
//!
//! What could go wrong, and what prevents it:
//!
//! - An instruction that the CPU does not have: no token, hence no value, hence no call.
//! - A read or write outside a message: [`Sources`] and [`Sinks`] check every offset against the
//!   length that all their slices share. Lanes without a message
//!   read lane 0's and write a spare one.
//! - Two `&mut` to one message: `Sinks` holds raw pointers borrowed from `&mut` slices that the
//!   caller keeps borrowed as long as the `Sinks` lives.

#![allow(clippy::needless_range_loop, reason = "closures do not inherit the instruction set")]
#![allow(unsafe_code, reason = "instructions and memory beyond the reach of safe code")]

#[cfg(not(target_arch = "x86_64"))]
mod absent;
#[cfg(target_arch = "x86_64")]
mod aesni;
mod fork_mark;
mod messages;
#[cfg(target_arch = "x86_64")]
mod vaes256;
#[cfg(target_arch = "x86_64")]
mod vaes512;

use zeroize::Zeroize;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use absent::{
    Absent as AesNi, Absent as Vaes256, Absent as Vaes512, AbsentBlocks as Blocks128,
    AbsentBlocks as Blocks256, AbsentBlocks as Blocks512,
};
#[cfg(target_arch = "x86_64")]
pub(super) use aesni::{AesNi, Blocks128};
pub(super) use fork_mark::ForkMark;
pub(super) use messages::{LANES_MAX, Read, SPARE_BYTES, Sinks, Sources};
#[cfg(target_arch = "x86_64")]
pub(super) use vaes256::{Blocks256, Vaes256};
#[cfg(target_arch = "x86_64")]
pub(super) use vaes512::{Blocks512, Vaes512};

/// Bytes of an AES block.
pub(super) const BLOCK_BYTES: usize = 16;

/// One AES block of each of [`Self::WIDTH`] lanes. A value proves the CPU's features.
pub(super) trait Lanes: Copy + Zeroize {
    /// Proof that the CPU has the instructions.
    type Token: Copy;

    /// Lanes in one value.
    const WIDTH: usize;

    /// Values that a group has at most: enough to hide the latency of the AES unit.
    const VECTORS: usize;

    /// Values that fit the register file as AES states, with room for keys and messages.
    const STATES: usize;

    /// Itself. The compiler keeps such calls in the order in which they are written, and with them
    /// what makes the value in front of the call.
    ///
    /// JUSTIFICATION: LLVM schedules a long run of AES rounds chain after chain, so that each
    /// waits for itself, and loads all round keys first, which it then has to spill. In the order
    /// of the source a request takes 105 ns instead of 127 (VAES-512, batches of 32, one cookie).
    fn in_order(self) -> Self;

    /// Runs `task` with the instructions enabled.
    fn enter<T: Task<Self>>(token: Self::Token, task: T);

    /// The same block in every lane.
    fn splat(token: Self::Token, block: &[u8; BLOCK_BYTES]) -> Self;

    /// One block from each of `WIDTH` pointers, `offset` bytes behind it.
    ///
    /// # Safety
    /// 16 bytes must be readable at `offset` behind each of the first `WIDTH` pointers.
    unsafe fn gather(token: Self::Token, pointers: &[*mut u8], offset: usize) -> Self;

    /// Four blocks in a row from each of `WIDTH` pointers, `offset` bytes behind it.
    ///
    /// # Safety
    /// 64 bytes must be readable at `offset` behind each of the first `WIDTH` pointers.
    #[inline(always)]
    unsafe fn gather_four(token: Self::Token, pointers: &[*mut u8], offset: usize) -> [Self; 4] {
        let mut blocks = [Self::splat(token, &[0; BLOCK_BYTES]); 4];
        for index in 0..4 {
            // SAFETY: the caller promises four blocks.
            blocks[index] = unsafe { Self::gather(token, pointers, offset + index * BLOCK_BYTES) };
        }
        blocks
    }

    /// Four blocks in a row to each pointer, `offset` bytes behind it.
    ///
    /// # Safety
    /// 64 bytes must be writable at `offset` behind each of the first `WIDTH` pointers.
    #[inline(always)]
    unsafe fn scatter_four(blocks: [Self; 4], pointers: &[*mut u8], offset: usize) {
        for index in 0..4 {
            // SAFETY: the caller promises four blocks.
            unsafe { blocks[index].scatter(pointers, offset + index * BLOCK_BYTES) };
        }
    }

    /// One block to each pointer, `offset` bytes behind it.
    ///
    /// # Safety
    /// 16 bytes must be writable at `offset` behind each of the first `WIDTH` pointers.
    unsafe fn scatter(self, pointers: &[*mut u8], offset: usize);

    /// Bitwise exclusive or.
    fn xor(self, other: Self) -> Self;

    /// Bitwise and.
    fn and(self, other: Self) -> Self;

    /// One AES encryption round.
    fn aes_round(self, key: Self) -> Self;

    /// The last AES encryption round.
    fn aes_last_round(self, key: Self) -> Self;

    /// Byte `i` of each block becomes the byte numbered by `control`'s byte `i`; zero where that
    /// has its top bit set.
    fn shuffle_bytes(self, control: Self) -> Self;

    /// Moves each block's bytes up by `BYTES` places, zeros below.
    fn shift_bytes<const BYTES: i32>(self) -> Self;

    /// Adds the two 64-bit words of each block, little-endian, without carry between them.
    fn add_words(self, other: Self) -> Self;

    /// Adds the four 32-bit halves of the words of each block, little-endian, without carry between
    /// them.
    fn add_halves(self, other: Self) -> Self;

    /// The carry-less product, a whole block, of one 64-bit word of each block and one of the same
    /// block of `other`. `WORDS` says which: bit 0 for the upper one of `self`, bit 4 for that of
    /// `other`.
    fn multiply_words<const WORDS: i32>(self, other: Self) -> Self;

    /// Spreads the sign bit over each 32-bit word.
    fn sign_words(self) -> Self;

    /// Reorders each block's four 32-bit words; two bits of `ORDER` a word.
    fn shuffle_words<const ORDER: i32>(self) -> Self;
}

/// Something to run with an instruction set enabled. The method must be `#[inline(always)]`.
pub(super) trait Task<V: Lanes> {
    /// Runs it.
    fn run(self, token: V::Token);
}
