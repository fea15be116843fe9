//! Vectors of pairs of bf16 (AVX-512 BF16), for CPUs that have no tile units.
//!
//! Owns: whether they are there, the product of one block. Must not know: matrices.
//! Invariant: a block's values are added up in the order of the inner dimension.

use super::Parts;
use super::block::{Block, SIDE, steps};
use super::pack::Line;
use std::arch::x86_64::{
    __cpuid, __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};
use std::sync::OnceLock;

/// Rows whose sums lie in registers at a time, in both halves of the columns.
const ROWS: usize = 8;

/// True where the CPU has the instructions.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
}

/// True where they are faster than products of f32. AMD makes a vector of pairs in the time of a vector of f32, and so twice
/// as many products; a Xeon of the fourth generation 110 GFLOP/s a core, where it makes 140 in f32.
pub(super) fn pay() -> bool {
    static PAY: OnceLock<bool> = OnceLock::new();
    *PAY.get_or_init(|| {
        let vendor = __cpuid(0);
        available()
            && [vendor.ebx, vendor.edx, vendor.ecx]
                .map(u32::to_le_bytes)
                .as_flattened()
                == b"AuthenticAMD"
    })
}

/// The product of two panels of one part: 32 rows of the left side, 32 columns of the right one.
///
/// # Panics
/// Where the panels are not of one depth, or there are no such vectors.
pub(super) fn multiply(left: &[Line], right: &[Line], block: &mut Block) {
    let steps = steps(left, right, Parts::One);
    assert!(available(), "no vectors of pairs");
    for first in (0..SIDE).step_by(ROWS) {
        #[expect(unsafe_code, reason = "a function with target features is called")]
        // SAFETY: the CPU has them; both panels have that many steps of 32 lines, which were packed.
        unsafe {
            rows(
                left.as_ptr().add(first).cast(),
                right.as_ptr().cast(),
                steps,
                &mut block.values[first * SIDE..],
            );
        }
    }
}

/// Some rows of a block.
///
/// # Safety
/// Both panels have `steps` steps of 32 lines, of which `left` begins at one of the first 25, and all are initialised.
#[expect(unsafe_code, reason = "pointers into panels")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn rows(left: *const i32, right: *const __m512i, steps: usize, out: &mut [f32]) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for step in 0..steps {
        for pair in 0..SIDE / 2 {
            let line = step * SIDE + pair;
            // SAFETY: a step of the right side has 16 lines for either half of the columns.
            let (b, c) = unsafe { (halves(*right.add(line)), halves(*right.add(line + SIDE / 2))) };
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: a line of the left side has 16 pairs.
                let a = unsafe { *left.add((step * SIDE + row) * (SIDE / 2) + pair) };
                let a = halves(_mm512_set1_epi32(a));
                sums[0] = _mm512_dpbf16_ps(sums[0], a, b);
                sums[1] = _mm512_dpbf16_ps(sums[1], a, c);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(SIDE)) {
        write(sums, out);
    }
}

/// One row of a block.
#[inline]
#[target_feature(enable = "avx512f")]
fn write(sums: &[__m512; 2], out: &mut [f32]) {
    for (sums, out) in sums.iter().zip(out.as_chunks_mut::<16>().0) {
        #[expect(unsafe_code, reason = "a store takes a pointer")]
        // SAFETY: sixteen floats lie there.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), *sums);
        }
    }
}

#[inline(always)]
fn halves(x: __m512i) -> __m512bh {
    #[expect(unsafe_code, reason = "integers seen as thirty-two halves")]
    // SAFETY: both types are 64 bytes of any value.
    unsafe {
        std::mem::transmute::<__m512i, __m512bh>(x)
    }
}
