//! FP8 E4M3 rounding.
//!
//! Owns: the cast and the scales. Must not know: formats. Source: OCP 8-bit floating point specification 1.0.
//! Invariant: the cast rounds to nearest even and saturates at ±448; the result is never NaN.

use super::{check_finite, check_scales};
use crate::error::Result;
use crate::tensor::{DType, Rows, chunk_rows, round_to, try_fold_chunks};
use crate::weight::{Float8, Granularity};
use rayon::prelude::*;

/// Largest finite E4M3 value.
pub const MAX: f32 = 448.0;

/// Nearest E4M3 byte, ties to even, saturating.
pub fn from_f32(value: f32) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = value.abs().min(MAX);
    if magnitude < 2f32.powi(-6) {
        // Subnormals are multiples of 2^-9; eight of them are the smallest normal, whose byte is 8.
        return sign | (magnitude * 512.0).round_ties_even() as u8;
    }
    let bits = magnitude.to_bits();
    let rounded = bits + 0x7_ffff + ((bits >> 20) & 1);
    sign | ((rounded >> 20) - (120 << 3)) as u8
}

/// The scale as it will be stored; infinite if its type cannot hold it.
fn scale_of(absmax: f32, scale_dtype: DType) -> f32 {
    let scale = round_to(scale_dtype, absmax / MAX);
    if scale > 0.0 {
        scale
    } else if absmax == 0.0 {
        0.125
    } else if scale_dtype == DType::F16 {
        5.960_464_5e-8
    } else {
        f32::MIN_POSITIVE
    }
}

/// Quantizes a matrix; `scale = absmax / 448` of each tensor, row or group.
pub fn quantize(input: &dyn Rows, granularity: Granularity, scale_dtype: DType) -> Result<Float8> {
    let (rows, cols) = (input.rows(), input.cols());
    let absmax = |values: &[f32]| values.iter().fold(0f32, |m, v| m.max(v.abs()));
    let scale_of = |absmax: f32| scale_of(absmax, scale_dtype);
    let whole = match granularity {
        Granularity::Tensor => {
            let parts = try_fold_chunks(input, |first, values| {
                check_finite(values, first * cols)?;
                Ok(absmax(values))
            })?;
            Some(scale_of(parts.into_iter().fold(0.0, f32::max)))
        }
        _ => None,
    };
    let (_, size) = granularity.groups(cols);
    let step = chunk_rows(cols);
    let mut codes = vec![0; rows * cols];
    let scales: Result<Vec<Vec<f32>>> = codes
        .par_chunks_mut((step * cols).max(1))
        .enumerate()
        .map_init(Vec::new, |buffer: &mut Vec<f32>, (i, out)| {
            buffer.resize(out.len(), 0.0);
            input.read(i * step, buffer)?;
            check_finite(buffer, i * step * cols)?;
            let mut scales = Vec::new();
            for (values, codes) in buffer.chunks(size).zip(out.chunks_mut(size)) {
                let scale = whole.unwrap_or_else(|| scale_of(absmax(values)));
                for (code, value) in codes.iter_mut().zip(values) {
                    *code = from_f32(value / scale);
                }
                scales.push(scale);
            }
            Ok(scales)
        })
        .collect();
    let scales = scales?;
    let scales = whole.map_or_else(|| scales.concat(), |scale| vec![scale]);
    check_scales(&scales, scale_dtype)?;
    Ok(Float8 {
        rows,
        cols,
        granularity,
        scale_dtype,
        codes,
        scales,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::f8e4m3_to_f32;

    #[test]
    fn every_byte_survives_a_round_trip() {
        for byte in (0..=255u8).filter(|b| b & 0x7f != 0x7f) {
            assert_eq!(from_f32(f8e4m3_to_f32(byte)), byte);
        }
    }

    #[test]
    fn ties_go_to_even_and_large_values_saturate() {
        assert_eq!(f8e4m3_to_f32(from_f32(17.0)), 16.0);
        assert_eq!(f8e4m3_to_f32(from_f32(19.0)), 20.0);
        assert_eq!(f8e4m3_to_f32(from_f32(1e9)), 448.0);
        assert_eq!(f8e4m3_to_f32(from_f32(-2f32.powi(-10))), 0.0);
    }

    proptest::proptest! {
        #[test]
        fn no_neighbour_is_nearer(value in -448f32..448.0) {
            let error = (f8e4m3_to_f32(from_f32(value)) - value).abs();
            let best = (0..=255u8).filter(|b| b & 0x7f != 0x7f)
                .map(|b| (f8e4m3_to_f32(b) - value).abs()).fold(f32::MAX, f32::min);
            proptest::prop_assert_eq!(error, best);
        }
    }
}
