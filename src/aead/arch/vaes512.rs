//! x86-64 with VAES, VPCLMULQDQ and AVX-512: four blocks an instruction.

use std::arch::asm;
use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::{BLOCK_BYTES, Lanes, Task};

/// Proof that the CPU has VAES, VPCLMULQDQ and AVX-512.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Vaes512(());

impl Vaes512 {
    /// Looks at the CPU.
    pub(in super::super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq");
        found.then_some(Self(()))
    }
}

/// One block of each of four lanes.
///
/// SAFETY of every intrinsic below: a value exists only where a [`Vaes512`] existed, hence the CPU
/// has the instruction.
#[derive(Clone, Copy)]
pub(in super::super) struct Blocks512(__m512i);

impl Lanes for Blocks512 {
    type Token = Vaes512;
    const WIDTH: usize = 4;
    const VECTORS: usize = 8;
    const STATES: usize = 16;

    #[inline(always)]
    fn in_order(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { in_order(self.0) })
    }

    #[inline(always)]
    fn enter<T: Task<Self>>(token: Vaes512, task: T) {
        #[inline(never)]
        #[target_feature(enable = "aes,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
        fn inside<T: Task<Blocks512>>(token: Vaes512, task: T) {
            task.run(token);
        }
        // SAFETY: `token` proves the features.
        unsafe { inside(token, task) }
    }

    #[inline(always)]
    fn splat(_: Vaes512, block: &[u8; BLOCK_BYTES]) -> Self {
        // SAFETY: 16 bytes of an array.
        let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
        // SAFETY: see the type; the token is an argument.
        Self(unsafe { _mm512_broadcast_i32x4(block) })
    }

    #[inline(always)]
    unsafe fn gather(_: Vaes512, pointers: &[*mut u8], offset: usize) -> Self {
        // Pairs first: inserting into 256 bits is half the work of inserting into 512.
        // SAFETY: the caller promises 16 readable bytes.
        let first = unsafe { _mm_loadu_si128(pointers[0].wrapping_add(offset).cast()) };
        // SAFETY: likewise.
        let second = unsafe { _mm_loadu_si128(pointers[1].wrapping_add(offset).cast()) };
        // SAFETY: likewise.
        let third = unsafe { _mm_loadu_si128(pointers[2].wrapping_add(offset).cast()) };
        // SAFETY: likewise.
        let fourth = unsafe { _mm_loadu_si128(pointers[3].wrapping_add(offset).cast()) };
        // SAFETY: see the type; the token is an argument.
        let low = unsafe { _mm256_set_m128i(second, first) };
        // SAFETY: likewise.
        let high = unsafe { _mm256_set_m128i(fourth, third) };
        // SAFETY: likewise.
        let low = unsafe { _mm512_castsi256_si512(low) };
        // SAFETY: likewise.
        Self(unsafe { _mm512_inserti64x4::<1>(low, high) })
    }

    #[inline(always)]
    unsafe fn gather_four(_: Vaes512, pointers: &[*mut u8], offset: usize) -> [Self; 4] {
        // Not by `map`: a closure does not inherit the instruction set, and its calls stay calls.
        // SAFETY: the caller promises 64 readable bytes.
        let first = unsafe { _mm512_loadu_si512(pointers[0].wrapping_add(offset).cast()) };
        // SAFETY: likewise.
        let second = unsafe { _mm512_loadu_si512(pointers[1].wrapping_add(offset).cast()) };
        // SAFETY: likewise.
        let third = unsafe { _mm512_loadu_si512(pointers[2].wrapping_add(offset).cast()) };
        // SAFETY: likewise.
        let fourth = unsafe { _mm512_loadu_si512(pointers[3].wrapping_add(offset).cast()) };
        // SAFETY: see the type; the token is an argument.
        let [a, b, c, d] = unsafe { transpose([first, second, third, fourth]) };
        [Self(a), Self(b), Self(c), Self(d)]
    }

    #[inline(always)]
    unsafe fn scatter_four([a, b, c, d]: [Self; 4], pointers: &[*mut u8], offset: usize) {
        // SAFETY: see the type.
        let rows = unsafe { transpose([a.0, b.0, c.0, d.0]) };
        for lane in 0..4 {
            // SAFETY: the caller promises 64 writable bytes.
            unsafe { _mm512_storeu_si512(pointers[lane].wrapping_add(offset).cast(), rows[lane]) }
        }
    }

    #[inline(always)]
    unsafe fn scatter(self, pointers: &[*mut u8], offset: usize) {
        // SAFETY: see the type.
        let block = unsafe { _mm512_extracti32x4_epi32::<0>(self.0) };
        // SAFETY: the caller promises 16 writable bytes.
        unsafe { _mm_storeu_si128(pointers[0].wrapping_add(offset).cast(), block) }
        // SAFETY: see the type.
        let block = unsafe { _mm512_extracti32x4_epi32::<1>(self.0) };
        // SAFETY: the caller promises 16 writable bytes.
        unsafe { _mm_storeu_si128(pointers[1].wrapping_add(offset).cast(), block) }
        // SAFETY: see the type.
        let block = unsafe { _mm512_extracti32x4_epi32::<2>(self.0) };
        // SAFETY: the caller promises 16 writable bytes.
        unsafe { _mm_storeu_si128(pointers[2].wrapping_add(offset).cast(), block) }
        // SAFETY: see the type.
        let block = unsafe { _mm512_extracti32x4_epi32::<3>(self.0) };
        // SAFETY: the caller promises 16 writable bytes.
        unsafe { _mm_storeu_si128(pointers[3].wrapping_add(offset).cast(), block) }
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_and_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn aes_round(self, key: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_aesenc_epi128(self.0, key.0) })
    }

    #[inline(always)]
    fn aes_last_round(self, key: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_aesenclast_epi128(self.0, key.0) })
    }

    #[inline(always)]
    fn shuffle_bytes(self, control: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_shuffle_epi8(self.0, control.0) })
    }

    #[inline(always)]
    fn shift_bytes<const BYTES: i32>(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_bslli_epi128::<BYTES>(self.0) })
    }

    #[inline(always)]
    fn add_words(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_add_epi64(self.0, other.0) })
    }

    #[inline(always)]
    fn add_halves(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn multiply_words<const WORDS: i32>(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_clmulepi64_epi128::<WORDS>(self.0, other.0) })
    }

    #[inline(always)]
    fn sign_words(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_srai_epi32::<31>(self.0) })
    }

    #[inline(always)]
    fn shuffle_words<const ORDER: i32>(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_shuffle_epi32::<ORDER>(self.0) })
    }
}

/// Blocks of lanes to lanes of blocks, and back.
#[inline]
#[target_feature(enable = "aes,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn transpose([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let low_ab = _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b);
    let low_cd = _mm512_shuffle_i64x2::<0b01_00_01_00>(c, d);
    let high_ab = _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b);
    let high_cd = _mm512_shuffle_i64x2::<0b11_10_11_10>(c, d);
    [
        _mm512_shuffle_i64x2::<0b10_00_10_00>(low_ab, low_cd),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(low_ab, low_cd),
        _mm512_shuffle_i64x2::<0b10_00_10_00>(high_ab, high_cd),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(high_ab, high_cd),
    ]
}

#[inline]
#[target_feature(enable = "aes,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn in_order(mut state: __m512i) -> __m512i {
    // SAFETY: no instruction.
    unsafe {
        asm!("/* {} */", inout(zmm_reg) state, options(nomem, nostack, preserves_flags));
    }
    state
}

impl Zeroize for Blocks512 {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}
