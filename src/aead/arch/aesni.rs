//! x86-64 with AES-NI and PCLMULQDQ: one block an instruction. Also the narrow path of the wider
//! files, for one or two requests.
//!
//! AVX is asked for as well: its three-operand forms save a move an instruction, and every CPU
//! with AES-NI since 2011 has it.

use std::arch::asm;
use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::{BLOCK_BYTES, Lanes, Task};

/// Proof that the CPU has AES-NI, PCLMULQDQ and AVX.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct AesNi(());

impl AesNi {
    /// Looks at the CPU.
    pub(in super::super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("avx");
        found.then_some(Self(()))
    }
}

/// One block of one lane.
///
/// SAFETY of every intrinsic below: a value exists only where a [`AesNi`] existed, hence the CPU
/// has the instruction.
#[derive(Clone, Copy)]
pub(in super::super) struct Blocks128(__m128i);

impl Lanes for Blocks128 {
    type Token = AesNi;
    const WIDTH: usize = 1;
    const VECTORS: usize = 8;
    const STATES: usize = 8;

    #[inline(always)]
    fn in_order(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { in_order(self.0) })
    }

    #[inline(always)]
    fn enter<T: Task<Self>>(token: AesNi, task: T) {
        #[inline(never)]
        #[target_feature(enable = "aes,avx,pclmulqdq")]
        fn inside<T: Task<Blocks128>>(token: AesNi, task: T) {
            task.run(token);
        }
        // SAFETY: `token` proves the features.
        unsafe { inside(token, task) }
    }

    #[inline(always)]
    fn splat(_: AesNi, block: &[u8; BLOCK_BYTES]) -> Self {
        // SAFETY: 16 bytes of an array.
        Self(unsafe { _mm_loadu_si128(block.as_ptr().cast()) })
    }

    #[inline(always)]
    unsafe fn gather(_: AesNi, pointers: &[*mut u8], offset: usize) -> Self {
        // SAFETY: the caller promises 16 readable bytes.
        Self(unsafe { _mm_loadu_si128(pointers[0].wrapping_add(offset).cast()) })
    }

    #[inline(always)]
    unsafe fn scatter(self, pointers: &[*mut u8], offset: usize) {
        // SAFETY: the caller promises 16 writable bytes.
        unsafe { _mm_storeu_si128(pointers[0].wrapping_add(offset).cast(), self.0) }
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_xor_si128(self.0, other.0) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_and_si128(self.0, other.0) })
    }

    #[inline(always)]
    fn aes_round(self, key: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_aesenc_si128(self.0, key.0) })
    }

    #[inline(always)]
    fn aes_last_round(self, key: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_aesenclast_si128(self.0, key.0) })
    }

    #[inline(always)]
    fn shuffle_bytes(self, control: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_shuffle_epi8(self.0, control.0) })
    }

    #[inline(always)]
    fn shift_bytes<const BYTES: i32>(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_bslli_si128::<BYTES>(self.0) })
    }

    #[inline(always)]
    fn add_words(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_add_epi64(self.0, other.0) })
    }

    #[inline(always)]
    fn add_halves(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn multiply_words<const WORDS: i32>(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_clmulepi64_si128::<WORDS>(self.0, other.0) })
    }

    #[inline(always)]
    fn sign_words(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_srai_epi32::<31>(self.0) })
    }

    #[inline(always)]
    fn shuffle_words<const ORDER: i32>(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm_shuffle_epi32::<ORDER>(self.0) })
    }
}

#[inline]
#[target_feature(enable = "aes,avx,pclmulqdq")]
fn in_order(mut state: __m128i) -> __m128i {
    // SAFETY: no instruction.
    unsafe {
        asm!("/* {} */", inout(xmm_reg) state, options(nomem, nostack, preserves_flags));
    }
    state
}

impl Zeroize for Blocks128 {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}
