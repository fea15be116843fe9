//! The inner loops: pure functions over slices.
//!
//! Owns: quantization arithmetic. Must not know: files, recipes.
//! Invariant: the same bits for any number of threads and, matrix products (`linalg`) aside, on every CPU.

pub mod affine;
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), path = "bf16/none.rs")]
mod bf16;
mod cholesky;
pub mod clip;
pub mod entropy;
pub mod factor;
pub mod float8;
pub mod ggml;
pub mod gptq;
pub mod hadamard;
pub mod histogram;
pub mod hqq;
pub mod kmeans;
pub mod linalg;
pub mod nf4;
pub mod nn;
pub mod prune;
pub mod random;
pub mod sharing;
pub mod signround;
pub mod sparse;
pub mod symbols;
pub mod tokens;
mod wide;

pub(crate) use wide::wide;

use crate::error::{Error, Result};
use crate::tensor::{DType, round_to};

/// Refuses NaN and infinities; `first` is the flat index of `values[0]`.
pub fn check_finite(values: &[f32], first: usize) -> Result<()> {
    let mut bad = false;
    any_not_finite(values, &mut bad);
    if !bad {
        return Ok(());
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::numeric(
            "non_finite_values",
            format!(
                "element {} is {}: quantization needs finite weights",
                first + at,
                values[at]
            ),
        )),
    }
}

/// A step as it will be stored: 0 only if it is 0, infinite if the type cannot hold it. Where rounding would give 0, it
/// is the smallest step whose inverse is finite.
fn stored_step(scale_dtype: DType, step: f32) -> f32 {
    let stored = round_to(scale_dtype, step);
    if stored != 0.0 || step == 0.0 {
        return stored;
    }
    let smallest = match scale_dtype {
        DType::F16 => 5.960_464_5e-8,
        _ => f32::MIN_POSITIVE,
    };
    smallest.copysign(step)
}

/// Sum of a term over values, in a fixed order of sixteen partial sums, so that it vectorises.
#[inline(always)]
fn sum_over(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; 16];
    let (blocks, rest) = values.as_chunks::<16>();
    for block in blocks {
        for (sum, v) in sums.iter_mut().zip(block) {
            *sum += term(*v);
        }
    }
    for (sum, v) in sums.iter_mut().zip(rest) {
        *sum += term(*v);
    }
    sums.iter().sum()
}

/// Sum of products, in a fixed order of sixteen partial sums.
#[inline(always)]
fn sum_over_pairs(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f32; 16];
    let ((a16, a_rest), (b16, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a16.iter().zip(b16) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += a * b;
    }
    sums.iter().map(|sum| f64::from(*sum)).sum()
}

/// Refuses scales that overflowed the type they are stored in.
fn check_scales(scales: &[f32], scale_dtype: DType) -> Result<()> {
    if scales.iter().all(|scale| scale.is_finite()) {
        return Ok(());
    }
    Err(Error::numeric(
        "scale_overflow",
        format!("the weights are so large that a scale does not fit into {scale_dtype}"),
    ))
}

wide! {
    /// An all-ones exponent is a NaN or an infinity; the loop has no branch, so that it vectorises.
    fn any_not_finite(values: &[f32], bad: &mut bool) {
        let mut found = 0;
        for v in values {
            found |= u32::from(v.to_bits() & 0x7fff_ffff >= 0x7f80_0000);
        }
        *bad = found != 0;
    }
}
