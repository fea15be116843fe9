//! Conversion between stored bytes and f32.
//!
//! Owns: decoding every dtype, encoding the dense ones. Must not know: files.
//! Invariant: decoding is exact where f32 can hold the value; encoding rounds to nearest even.

use super::DType;
use crate::kernels::{ggml, wide};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Decodes whole rows. `src` must hold exactly the bytes of `dst.len()` elements.
pub fn decode(dtype: DType, src: &[u8], dst: &mut [f32]) {
    match dtype {
        DType::F32 => each::<4>(src, dst, f32::from_le_bytes),
        DType::F64 => each::<8>(src, dst, |b| f64::from_le_bytes(b) as f32),
        DType::F16 => decode_f16(src, dst),
        DType::BF16 => each::<2>(src, dst, |b| {
            f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)
        }),
        DType::F8E4M3 => each::<1>(src, dst, |b| f8e4m3_to_f32(b[0])),
        DType::F8E5M2 => each::<1>(src, dst, |b| f16::from_bits(u16::from(b[0]) << 8).to_f32()),
        DType::I64 => each::<8>(src, dst, |b| i64::from_le_bytes(b) as f32),
        DType::I32 => each::<4>(src, dst, |b| i32::from_le_bytes(b) as f32),
        DType::I16 => each::<2>(src, dst, |b| f32::from(i16::from_le_bytes(b))),
        DType::I8 => each::<1>(src, dst, |b| f32::from(i8::from_le_bytes(b))),
        DType::U64 => each::<8>(src, dst, |b| u64::from_le_bytes(b) as f32),
        DType::U32 => each::<4>(src, dst, |b| u32::from_le_bytes(b) as f32),
        DType::U16 => each::<2>(src, dst, |b| f32::from(u16::from_le_bytes(b))),
        DType::U8 | DType::Bool => each::<1>(src, dst, |b| f32::from(b[0])),
        DType::Ggml(ty) => ggml::dequantize_rows(ty, src, dst),
    }
}

fn each<const N: usize>(src: &[u8], dst: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    for (out, bytes) in dst.iter_mut().zip(src.as_chunks::<N>().0) {
        *out = f(*bytes);
    }
}

wide! {
    /// Shifts exponent and mantissa into place and lets a multiplication by 2¹¹² move the exponent's bias, which is
    /// exact for subnormals too; a loop without branches vectorises, calls into a library would not.
    fn decode_f16(src: &[u8], dst: &mut [f32]) {
        const BIAS: f32 = f32::from_bits((127 + 112) << 23);
        for (out, bytes) in dst.iter_mut().zip(src.as_chunks::<2>().0) {
            let bits = u32::from(u16::from_le_bytes(*bytes));
            let magnitude = (bits & 0x7fff) << 13;
            let scaled = (f32::from_bits(magnitude) * BIAS).to_bits();
            // An all-ones exponent stays one: infinities and NaN.
            let special = if magnitude >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
            *out = f32::from_bits(scaled | special | (bits & 0x8000) << 16);
        }
    }
}

/// Value of an OCP E4M3 "FN" byte: bias 7, subnormals, `0x7f`/`0xff` are NaN.
pub fn f8e4m3_to_f32(byte: u8) -> f32 {
    let exponent = u32::from(byte >> 3) & 15;
    let mantissa = u32::from(byte) & 7;
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, m) => m as f32 * 2f32.powi(-9),
        (e, m) => f32::from_bits(((e + 120) << 23) | (m << 20)),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Rounds a value to what `dtype` can hold (f32, f16 or bf16; others pass through).
#[inline]
pub fn round_to(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::BF16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Appends `values` to `out` as `dtype`; false where the dtype is none of f32, f16, bf16.
#[must_use]
pub fn encode_dense(dtype: DType, values: &[f32], out: &mut Vec<u8>) -> bool {
    match dtype {
        DType::F32 => append(values, out, f32::to_le_bytes),
        DType::BF16 => append(values, out, |v| bf16::from_f32(v).to_le_bytes()),
        DType::F16 => {
            let mut block = [f16::ZERO; 512];
            for chunk in values.chunks(512) {
                block[..chunk.len()].convert_from_f32_slice(chunk);
                out.extend(block[..chunk.len()].iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        _ => return false,
    }
    true
}

/// Array by array: a chain of iterators over bytes would not be vectorized.
fn append<const N: usize>(values: &[f32], out: &mut Vec<u8>, f: impl Fn(f32) -> [u8; N]) {
    let start = out.len();
    out.resize(start + N * values.len(), 0);
    for (bytes, value) in out[start..].as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *bytes = f(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(dtype: DType, bytes: &[u8]) -> f32 {
        let mut out = [0.0];
        decode(dtype, bytes, &mut out);
        out[0]
    }

    #[test]
    fn known_values_of_each_dtype() {
        assert_eq!(one(DType::F32, &1.5f32.to_le_bytes()), 1.5);
        assert_eq!(one(DType::BF16, &[0x80, 0x3f]), 1.0);
        assert_eq!(one(DType::F16, &[0x00, 0xc0]), -2.0);
        assert_eq!(one(DType::F8E4M3, &[0x7e]), 448.0);
        assert_eq!(one(DType::F8E4M3, &[0x01]), 2f32.powi(-9));
        assert_eq!(one(DType::F8E5M2, &[0x7b]), 57344.0);
        assert_eq!(one(DType::I8, &[0xff]), -1.0);
        assert!(one(DType::F8E4M3, &[0xff]).is_nan());
    }

    #[test]
    fn every_half_is_decoded_as_the_half_crate_does() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut values = vec![0.0f32; 1 << 16];
        decode(DType::F16, &bytes, &mut values);
        for (bits, value) in (0..=u16::MAX).zip(values) {
            let expected = f16::from_bits(bits).to_f32();
            let same = value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan());
            assert!(same, "{bits:#x}: {value} {expected}");
        }
    }

    #[test]
    fn dense_encoding_rounds_to_nearest_even() {
        let mut bytes = Vec::new();
        // 1 + 2^-8 lies half-way between two bf16 values: the even one is 1.0.
        assert!(encode_dense(DType::BF16, &[1.0 + 2f32.powi(-8)], &mut bytes));
        assert_eq!(one(DType::BF16, &bytes), 1.0);
        let many: Vec<f32> = (0..1500).map(|i| i as f32).collect();
        let mut bytes = Vec::new();
        assert!(encode_dense(DType::F16, &many, &mut bytes));
        let mut back = vec![0.0; many.len()];
        decode(DType::F16, &bytes, &mut back);
        assert_eq!(back, many);
    }
}
