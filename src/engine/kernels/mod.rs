//! The inner loops: pure functions over slices.
//!
//! Owns: quantization arithmetic. Must not know: files, recipes.
//! Invariant: the same bits on every CPU and for any number of threads.

pub mod affine;
pub mod float8;
pub mod ggml;
pub mod nf4;
mod wide;

pub(crate) use wide::wide;

use crate::error::{Error, Result};
use crate::tensor::DType;

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
