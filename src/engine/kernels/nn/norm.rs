//! Normalisation of rows.
//!
//! Owns: RMS norm (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016), and their gradients. Must not know: where weights come from.
//! Invariant: sums are taken in sixteen partial sums of f32 over at most a few thousand elements.

use super::{each_rows, task_rows};
use crate::kernels::{sum_over, wide};
use rayon::prelude::*;

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

/// Gradient by `x` of [`rms_norm`], where `dy` is the gradient by its result.
pub fn rms_norm_back(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
    back_rows(x, dy, dx, weight.len(), |x, dy, dx| {
        rms_back(x, weight, eps, dy, dx);
    });
}

/// Gradient by `x` of [`layer_norm`], where `dy` is the gradient by its result.
pub fn layer_norm_back(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
    back_rows(x, dy, dx, weight.len(), |x, dy, dx| {
        layer_back(x, weight, eps, dy, dx);
    });
}

/// Applies `f` to the same rows of all three, in parallel.
fn back_rows(
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    cols: usize,
    f: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) {
    let step = task_rows(cols) * cols.max(1);
    dx.par_chunks_mut(step)
        .zip(x.par_chunks(step))
        .zip(dy.par_chunks(step))
        .for_each(|((dx, x), dy)| f(x, dy, dx));
}

/// Sum of a term over two rows, in sixteen partial sums.
#[inline(always)]
fn sum_both(a: &[f32], b: &[f32], term: impl Fn(usize, f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; 16];
    for (at, (a, b)) in a.chunks(16).zip(b.chunks(16)).enumerate() {
        for (i, (sum, (a, b))) in sums.iter_mut().zip(a.iter().zip(b)).enumerate() {
            *sum += term(16 * at + i, *a, *b);
        }
    }
    sums.iter().sum()
}

wide! {
    fn rms_back(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let n = weight.len();
        for ((x, dy), dx) in x.chunks(n).zip(dy.chunks(n)).zip(dx.chunks_mut(n)) {
            let mean = sum_over(x, |v| v * v) / n as f32;
            let scale = 1.0 / (mean + eps).sqrt();
            let along = sum_both(x, dy, |i, x, d| x * d * weight[i]) * scale * scale / n as f32;
            for (((o, v), d), w) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
                *o = (d * w - v * along) * scale;
            }
        }
    }
}

wide! {
    fn layer_back(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let n = weight.len();
        for ((x, dy), dx) in x.chunks(n).zip(dy.chunks(n)).zip(dx.chunks_mut(n)) {
            let mean = sum_over(x, |v| v) / n as f32;
            let variance = sum_over(x, |v| (v - mean) * (v - mean)) / n as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            let level = sum_both(x, dy, |i, _, d| d * weight[i]) / n as f32;
            let along = sum_both(x, dy, |i, x, d| (x - mean) * d * weight[i]) * scale * scale / n as f32;
            for (((o, v), d), w) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
                *o = (d * w - level - (v - mean) * along) * scale;
            }
        }
    }
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
