//! The inner loops: pure functions over slices.
//!
//! Owns: quantization arithmetic. Must not know: files, recipes.
//! Invariant: the same bits on every CPU and for any number of threads.

pub mod affine;
pub mod float8;
pub mod ggml;
pub mod nf4;
mod wide;

use crate::error::{Error, Result};

/// Refuses NaN and infinities; `first` is the flat index of `values[0]`.
pub fn check_finite(values: &[f32], first: usize) -> Result<()> {
    // The sum of magnitudes is finite only if every value is, short of overflow, which the search settles.
    let sum: f32 = values.iter().map(|v| v.abs() * 1e-9).fold(0.0, |a, b| a + b);
    if sum.is_finite() {
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
