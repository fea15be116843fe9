//! Inputs that a layer loses, and what the others make up for.
//!
//! Owns: least squares of a layer's outputs over some of its inputs; what each input is worth. Must not know: what inputs
//! stand for.
//! Invariant: the bits do not depend on the number of threads; all inputs give the weights as they were.

use crate::error::{Error, Result};
use crate::kernels::gptq::{ActOrder, Curvature};
use crate::kernels::linalg::{Precision, matmul_nt};
use rayon::prelude::*;

/// Fits `w` of `[rows, n]` to its outputs over the inputs `keep` alone: `W·(H + λ)[:, K]·(H + λ)[K, K]⁻¹`. Answers `[rows,
/// k]`, or nothing where the Hessian of these inputs cannot be factorized.
pub fn keep_columns(
    w: &[f32],
    gram: &[f32],
    keep: &[usize],
    damp_percent: f64,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Option<Vec<f32>>> {
    let (n, k) = (gram.len().isqrt(), keep.len());
    let kept = picked(gram, n, keep);
    let curvature = Curvature::new(&kept, k, damp_percent, ActOrder::None, true, stop)?;
    if stop() {
        return Err(Error::cancelled());
    }
    let Some(factor) = curvature.factor() else {
        return Ok(None);
    };
    let mean = (0..k).map(|i| f64::from(kept[i * k + i])).sum::<f64>() / k.max(1) as f64;
    let damp = (curvature.damp_percent * mean) as f32;
    // (H + λ)[K, :] as k rows, so that it is multiplied by the weights' rows.
    let mut right: Vec<f32> = keep
        .iter()
        .flat_map(|row| &gram[row * n..(row + 1) * n])
        .copied()
        .collect();
    for (at, column) in keep.iter().enumerate() {
        let own = &mut right[at * n + column];
        // As the factor takes it: an input that never was anything else than 0 stands for itself.
        *own += damp
            + if *own == 0.0 {
                if mean > 0.0 { mean as f32 } else { 1.0 }
            } else {
                0.0
            };
    }
    let rows = w.len() / n.max(1);
    let mut wanted = vec![0.0; rows * k];
    matmul_nt(w, &right, n, &mut wanted, Precision::Full);
    let mut half = vec![0.0; rows * k];
    matmul_nt(&wanted, factor, k, &mut half, Precision::Full);
    let mut turned = vec![0.0; k * k];
    turned.par_chunks_mut(k.max(1)).enumerate().for_each(|(i, row)| {
        row.iter_mut()
            .enumerate()
            .for_each(|(j, value)| *value = factor[j * k + i]);
    });
    matmul_nt(&half, &turned, k, &mut wanted, Precision::Full);
    Ok(Some(wanted))
}

/// Rows and columns of a square matrix.
fn picked(matrix: &[f32], n: usize, keep: &[usize]) -> Vec<f32> {
    let row = |row: &usize| keep.iter().map(|col| matrix[row * n + col]).collect::<Vec<f32>>();
    keep.iter().flat_map(row).collect()
}

/// Σ over rows of the squares of each column of `[rows, n]`.
pub fn column_squares(w: &[f32], n: usize) -> Vec<f64> {
    let mut sums = vec![0f64; n];
    for row in w.chunks_exact(n.max(1)) {
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, w)| *sum += f64::from(*w) * f64::from(*w));
    }
    sums
}

/// Diagonal of the inverse of a Hessian from its factor U, `UᵀU` = H⁻¹.
pub fn inverse_diagonal(factor: &[f32], n: usize) -> Vec<f64> {
    column_squares(factor, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Random;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        (0..n).map(|_| random.share() as f32 - 0.5).collect()
    }

    fn gram(x: &[f32], n: usize) -> Vec<f32> {
        let mut gram = vec![0.0; n * n];
        for row in x.chunks(n) {
            for i in 0..n {
                for j in 0..n {
                    gram[i * n + j] += row[i] * row[j];
                }
            }
        }
        gram
    }

    fn error(x: &[f32], w: &[f32], keep: &[usize], kept: &[f32], n: usize) -> f64 {
        let mut sum = 0.0;
        for x in x.chunks(n) {
            for (w, kept) in w.chunks(n).zip(kept.chunks(keep.len())) {
                let whole: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                let part: f32 = keep.iter().zip(kept).map(|(i, w)| x[*i] * w).sum();
                sum += f64::from(whole - part).powi(2);
            }
        }
        sum
    }

    #[test]
    fn an_input_that_others_tell_is_not_missed() {
        let n = 12;
        let mut x = noise(200 * n, 1);
        x.chunks_mut(n).for_each(|x| x[3] = 0.5 * x[0] - x[7]);
        let w = noise(5 * n, 2);
        let keep: Vec<usize> = (0..n).filter(|i| *i != 3).collect();
        let fitted = keep_columns(&w, &gram(&x, n), &keep, 1e-7, &|| false)
            .unwrap()
            .unwrap();
        let cut: Vec<f32> = w.chunks(n).flat_map(|w| keep.iter().map(|i| w[*i])).collect();
        let (after, before) = (error(&x, &w, &keep, &fitted, n), error(&x, &w, &keep, &cut, n));
        assert!(after < 1e-6 * before, "{after} {before}");
    }

    #[test]
    fn all_inputs_give_the_weights_as_they_were() {
        let n = 12;
        let (x, w) = (noise(50 * n, 1), noise(5 * n, 2));
        let keep: Vec<usize> = (0..n).collect();
        let fitted = keep_columns(&w, &gram(&x, n), &keep, 0.01, &|| false)
            .unwrap()
            .unwrap();
        for (a, b) in w.iter().zip(&fitted) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}
