//! Rounding of a layer's inputs as engines with 8-bit activations do it.
//!
//! Owns: dynamic scales for each token. Must not know: weights.
//! Invariant: the values that come out are those that compressed-tensors computes from the same input.

use super::float8::from_f32;
use crate::tensor::f8e4m3_to_f32;
use rayon::prelude::*;

/// Values that one task rounds.
const CHUNK: usize = 32 * 1024;

/// Each row to 255 steps of its largest magnitude.
pub fn round_int8(values: &mut [f32], cols: usize) {
    values.par_chunks_mut(cols.max(1)).for_each(|row| {
        let scale = largest(row) / 127.5;
        if scale > 0.0 {
            for v in row {
                *v = (*v / scale).round_ties_even().clamp(-128.0, 127.0) * scale;
            }
        }
    });
}

/// To 255 steps of the given size.
pub fn round_int8_by(values: &mut [f32], scale: f32) {
    values.par_chunks_mut(CHUNK).for_each(|values| {
        for v in values {
            *v = (*v / scale).round_ties_even().clamp(-128.0, 127.0) * scale;
        }
    });
}

/// To E4M3 times a scale.
pub fn round_float8_by(values: &mut [f32], scale: f32) {
    values.par_chunks_mut(CHUNK).for_each(|values| {
        for v in values {
            *v = f8e4m3_to_f32(from_f32(*v / scale)) * scale;
        }
    });
}

/// Each row to E4M3, its largest magnitude on 448.
pub fn round_float8(values: &mut [f32], cols: usize) {
    values.par_chunks_mut(cols.max(1)).for_each(|row| {
        let scale = largest(row) / 448.0;
        if scale > 0.0 {
            for v in row {
                *v = f8e4m3_to_f32(from_f32(*v / scale)) * scale;
            }
        }
    });
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |most, v| v.abs().max(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_its_own_scale() {
        let mut values = vec![1.0, -0.5, 0.1, 100.0, -50.0, 0.1];
        round_int8(&mut values, 3);
        // +absmax clips to code 127 of 127.5.
        assert!((values[0] - 127.0 / 127.5).abs() < 1e-6 && (values[3] - 100.0 * 127.0 / 127.5).abs() < 1e-4);
        assert!((values[2] - 13.0 / 127.5).abs() < 1e-6 && values[5] == 0.0);
        let mut values = vec![448.0, 17.0, 0.0];
        round_float8(&mut values, 3);
        assert_eq!(values, [448.0, 16.0, 0.0]);
    }

    #[test]
    fn a_given_scale_holds_for_all() {
        let mut values = vec![1.0, -0.55, 0.1, 100.0, -50.0];
        round_int8_by(&mut values, 0.5);
        assert_eq!(values, [1.0, -0.5, 0.0, 63.5, -50.0]);
        let mut values = vec![34.0, -1000.0];
        round_float8_by(&mut values, 2.0);
        assert_eq!(values, [32.0, -896.0]);
    }
}
