//! x86-64 with VAES, VPCLMULQDQ and AVX2: two blocks an instruction.

use std::arch::asm;
use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::{BLOCK_BYTES, Lanes, Task};

/// Proof that the CPU has VAES, VPCLMULQDQ and AVX2.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Vaes256(());

impl Vaes256 {
    /// Looks at the CPU.
    pub(in super::super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq");
        found.then_some(Self(()))
    }
}

/// One block of each of two lanes.
///
/// SAFETY of every intrinsic below: a value exists only where a [`Vaes256`] existed, hence the CPU
/// has the instruction.
#[derive(Clone, Copy)]
pub(in super::super) struct Blocks256(__m256i);

impl Lanes for Blocks256 {
    type Token = Vaes256;
    const WIDTH: usize = 2;
    const VECTORS: usize = 8;
    const STATES: usize = 8;

    #[inline(always)]
    fn in_order(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { in_order(self.0) })
    }

    #[inline(always)]
    fn enter<T: Task<Self>>(token: Vaes256, task: T) {
        #[inline(never)]
        #[target_feature(enable = "aes,avx2,vaes,vpclmulqdq")]
        fn inside<T: Task<Blocks256>>(token: Vaes256, task: T) {
            task.run(token);
        }
        // SAFETY: `token` proves the features.
        unsafe { inside(token, task) }
    }

    #[inline(always)]
    fn splat(_: Vaes256, block: &[u8; BLOCK_BYTES]) -> Self {
        // SAFETY: 16 bytes of an array.
        let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
        // SAFETY: see the type; the token is an argument.
        Self(unsafe { _mm256_broadcastsi128_si256(block) })
    }

    #[inline(always)]
    unsafe fn gather(_: Vaes256, pointers: &[*mut u8], offset: usize) -> Self {
        // SAFETY: the caller promises 16 readable bytes.
        let low = unsafe { _mm_loadu_si128(pointers[0].wrapping_add(offset).cast()) };
        // SAFETY: likewise.
        let high = unsafe { _mm_loadu_si128(pointers[1].wrapping_add(offset).cast()) };
        // SAFETY: see the type; the token is an argument.
        Self(unsafe { _mm256_set_m128i(high, low) })
    }

    #[inline(always)]
    unsafe fn scatter(self, pointers: &[*mut u8], offset: usize) {
        // SAFETY: see the type.
        let block = unsafe { _mm256_extracti128_si256::<0>(self.0) };
        // SAFETY: the caller promises 16 writable bytes.
        unsafe { _mm_storeu_si128(pointers[0].wrapping_add(offset).cast(), block) }
        // SAFETY: see the type.
        let block = unsafe { _mm256_extracti128_si256::<1>(self.0) };
        // SAFETY: the caller promises 16 writable bytes.
        unsafe { _mm_storeu_si128(pointers[1].wrapping_add(offset).cast(), block) }
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_and_si256(self.0, other.0) })
    }

    #[inline(always)]
    fn aes_round(self, key: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_aesenc_epi128(self.0, key.0) })
    }

    #[inline(always)]
    fn aes_last_round(self, key: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_aesenclast_epi128(self.0, key.0) })
    }

    #[inline(always)]
    fn shuffle_bytes(self, control: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_shuffle_epi8(self.0, control.0) })
    }

    #[inline(always)]
    fn shift_bytes<const BYTES: i32>(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_bslli_epi128::<BYTES>(self.0) })
    }

    #[inline(always)]
    fn add_words(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_add_epi64(self.0, other.0) })
    }

    #[inline(always)]
    fn add_halves(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn multiply_words<const WORDS: i32>(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_clmulepi64_epi128::<WORDS>(self.0, other.0) })
    }

    #[inline(always)]
    fn sign_words(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_srai_epi32::<31>(self.0) })
    }

    #[inline(always)]
    fn shuffle_words<const ORDER: i32>(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_shuffle_epi32::<ORDER>(self.0) })
    }
}

#[inline]
#[target_feature(enable = "aes,avx2,vaes,vpclmulqdq")]
fn in_order(mut state: __m256i) -> __m256i {
    // SAFETY: no instruction.
    unsafe {
        asm!("/* {} */", inout(ymm_reg) state, options(nomem, nostack, preserves_flags));
    }
    state
}

impl Zeroize for Blocks256 {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}
