//! FP8 E4M3 rounding.
//!
//! Owns: the cast and the scales. Must not know: formats. Source: OCP 8-bit floating point specification 1.0.
//! Invariant: the cast rounds to nearest even and saturates at ±448; the result is never NaN. Codes are chosen against
//! the scale as it will be stored.

use super::{check_finite, check_scales, stored_step, sum_over, wide};
use crate::error::Result;
use crate::tensor::{DType, Rows, chunk_rows, try_fold_chunks};
use crate::weight::{Float8, Granularity};
use rayon::prelude::*;

/// Largest finite E4M3 value.
pub const MAX: f32 = 448.0;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Stored type of the scales.
    pub scale_dtype: DType,
    /// Looks for the scale of least squared error; otherwise the largest weight becomes 448.
    pub search: bool,
}

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
    let scale = stored_step(scale_dtype, absmax / MAX);
    if scale == 0.0 { 0.125 } else { scale }
}

/// Candidate scales as parts of absmax / 448. E4M3 errs by a part of each weight, and by the same part one binade up:
/// what a larger scale changes is where between two powers of two the many weights lie.
const PARTS: [f32; 16] = {
    // From 2^(-1/16) in steps of 2^(1/16).
    let mut parts = [0.957_603_3; 16];
    let mut i = 1;
    while i < 16 {
        parts[i] = parts[i - 1] * 1.044_273_8;
        i += 1;
    }
    parts
};

/// Squared error of a group under a scale.
#[inline(always)]
fn error(values: &[f32], scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    sum_over(values, |v| {
        let magnitude = v.abs();
        let e = rounded(magnitude * inverse) * scale - magnitude;
        e * e
    })
}

/// What a non-negative value is after the cast: without a branch, so that a loop of it vectorises.
#[inline(always)]
pub(super) fn rounded(magnitude: f32) -> f32 {
    let magnitude = if magnitude < MAX { magnitude } else { MAX };
    let bits = magnitude.to_bits();
    let normal = f32::from_bits((bits + 0x7_ffff + (bits >> 20 & 1)) & !0xf_ffff);
    // Subnormals are multiples of 2^-9: adding and taking away 1.5 · 2^14 rounds to them.
    let subnormal = (magnitude + 24_576.0) - 24_576.0;
    if magnitude < 0.015_625 { subnormal } else { normal }
}

/// The best of the candidates, the plain one first.
#[inline(always)]
fn fit(values: &[f32], scale_dtype: DType) -> f32 {
    let absmax = absmax(values);
    let start = scale_of(absmax, scale_dtype);
    let mut best = (error(values, start), start);
    for part in PARTS {
        let scale = scale_of(absmax * part, scale_dtype);
        let error = error(values, scale);
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

#[inline(always)]
fn absmax(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |m, v| m.max(v.abs()))
}

wide! {
    /// Whole rows of groups of `size` values; without a given scale, each group gets its own.
    fn quantize_groups(
        spec: &Spec,
        given: Option<f32>,
        values: &[f32],
        size: usize,
        codes: &mut [u8],
        scales: &mut Vec<f32>,
    ) {
        for (values, codes) in values.chunks(size).zip(codes.chunks_mut(size)) {
            let scale = match given {
                Some(scale) => scale,
                None if spec.search => fit(values, spec.scale_dtype),
                None => scale_of(absmax(values), spec.scale_dtype),
            };
            for (code, value) in codes.iter_mut().zip(values) {
                *code = from_f32(value / scale);
            }
            scales.push(scale);
        }
    }
}

/// Quantizes a matrix.
pub fn quantize(input: &dyn Rows, spec: &Spec) -> Result<Float8> {
    let (rows, cols) = (input.rows(), input.cols());
    let whole = match spec.granularity {
        Granularity::Tensor => Some(tensor_scale(input, spec)?),
        _ => None,
    };
    let (_, size) = spec.granularity.groups(cols);
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
            quantize_groups(spec, whole, buffer, size, out, &mut scales);
            Ok(scales)
        })
        .collect();
    let scales = scales?;
    let scales = whole.map_or_else(|| scales.concat(), |scale| vec![scale]);
    check_scales(&scales, spec.scale_dtype)?;
    Ok(Float8 {
        rows,
        cols,
        granularity: spec.granularity,
        scale_dtype: spec.scale_dtype,
        codes,
        scales,
    })
}

/// One scale for the whole matrix: two walks, the second over all candidates at once.
fn tensor_scale(input: &dyn Rows, spec: &Spec) -> Result<f32> {
    let cols = input.cols();
    let parts = try_fold_chunks(input, |first, values| {
        check_finite(values, first * cols)?;
        Ok(absmax(values))
    })?;
    let absmax = parts.into_iter().fold(0.0, f32::max);
    let mut scales = vec![scale_of(absmax, spec.scale_dtype)];
    if !spec.search {
        return Ok(scales[0]);
    }
    scales.extend(PARTS.map(|part| scale_of(absmax * part, spec.scale_dtype)));
    let errors = try_fold_chunks(input, |_, values| {
        let mut errors = Vec::new();
        all_errors(values, &scales, &mut errors);
        Ok(errors)
    })?;
    let total = |i: usize| errors.iter().map(|e| f64::from(e[i])).sum::<f64>();
    let best = (0..scales.len())
        .min_by(|a, b| total(*a).total_cmp(&total(*b)))
        .unwrap_or(0);
    Ok(scales[best])
}

wide! {
    fn all_errors(values: &[f32], scales: &[f32], errors: &mut Vec<f32>) {
        errors.extend(scales.iter().map(|scale| error(values, *scale)));
    }
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
        fn the_search_rounds_as_the_cast_does(value in 0f32..500.0, shift in 0..24) {
            let value = value / (1 << shift) as f32;
            proptest::prop_assert_eq!(rounded(value), f8e4m3_to_f32(from_f32(value)));
        }

        #[test]
        fn a_search_never_hurts(values in proptest::collection::vec(-3f32..3.0, 96)) {
            let rows = crate::tensor::MemoryRows { values: &values, cols: 48 };
            let scale_dtype = DType::F32;
            for granularity in [Granularity::Channel, Granularity::Tensor] {
                let [plain, searched] = [false, true].map(|search| {
                    let made = quantize(&rows, &Spec { granularity, scale_dtype, search }).unwrap();
                    let mut back = vec![0.0; 96];
                    made.read(0, &mut back).unwrap();
                    values.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
                });
                proptest::prop_assert!(searched <= plain * (1.0 + 1e-4), "{} {}", searched, plain);
            }
        }

        #[test]
        fn no_neighbour_is_nearer(value in -448f32..448.0) {
            let error = (f8e4m3_to_f32(from_f32(value)) - value).abs();
            let best = (0..=255u8).filter(|b| b & 0x7f != 0x7f)
                .map(|b| (f8e4m3_to_f32(b) - value).abs()).fold(f32::MAX, f32::min);
            proptest::prop_assert_eq!(error, best);
        }
    }
}
