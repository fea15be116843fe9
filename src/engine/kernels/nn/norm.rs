//! Normalisation of rows.
//!
//! Owns: RMS norm (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016). Must not know: where weights come from.
//! Invariant: sums are taken in sixteen partial sums of f32 over at most a few thousand elements.

use super::each_rows;
use crate::kernels::{sum_over, wide};

/// `out = x / √(mean(x²) + eps) · weight` for each row of `weight.len()`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    each_rows(x, out, weight.len(), |x, out| rms_rows(x, weight, eps, out));
}

/// `out = (x − mean) / √(variance + eps) · weight + bias` for each row of `weight.len()`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    each_rows(x, out, weight.len(), |x, out| {
        layer_rows(x, weight, bias, eps, out);
    });
}

wide! {
    fn rms_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let n = weight.len();
        for (x, out) in x.chunks(n).zip(out.chunks_mut(n)) {
            let mean = sum_over(x, |v| v * v) / n as f32;
            let scale = 1.0 / (mean + eps).sqrt();
            for ((o, v), w) in out.iter_mut().zip(x).zip(weight) {
                *o = v * scale * w;
            }
        }
    }
}

wide! {
    fn layer_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let n = weight.len();
        for (x, out) in x.chunks(n).zip(out.chunks_mut(n)) {
            let mean = sum_over(x, |v| v) / n as f32;
            let variance = sum_over(x, |v| (v - mean) * (v - mean)) / n as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            for (((o, v), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *o = (v - mean) * scale * w + b;
            }
        }
    }
}
