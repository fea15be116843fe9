//! Subspace iteration from a random start (Halko, Martinsson and Tropp 2011, algorithm 4.4).
//!
//! Owns: how many directions more than asked, and how many iterations. Must not know: what is cut from the subspace.
//! Invariant: the seed and the shape give the start.

use faer::{Mat, MatRef};

use super::dense::{orthonormal, product};
use super::{Stop, go_on};
use crate::error::Result;
use crate::kernels::random::Random;

/// Directions beside those asked for; an eighth of the rank comes on top.
pub(super) const OVERSAMPLE: usize = 16;
/// Times that the span is multiplied by `YYᵀ`: trained weights have flat spectra, where each pays.
const ITERATIONS: usize = 3;

/// Orthonormal columns that nearly hold the `rank` largest left singular directions of y.
pub(super) fn subspace(y: MatRef<'_, f64>, rank: usize, seed: u64, stop: Stop<'_>) -> Result<Mat<f64>> {
    let width = (rank + OVERSAMPLE + rank / 8).min(y.nrows());
    let start = gaussian(y.ncols(), width, seed);
    let mut span = orthonormal(product(y, start.as_ref()).as_ref());
    drop(start);
    for _ in 0..ITERATIONS {
        go_on(stop)?;
        let image = product(y.transpose(), span.as_ref());
        span = orthonormal(product(y, image.as_ref()).as_ref());
    }
    go_on(stop)?;
    Ok(span)
}

/// Nearly normal numbers: sums of twelve even ones, which need no logarithm that could differ between machines.
pub(super) fn gaussian(rows: usize, cols: usize, seed: u64) -> Mat<f64> {
    let mut random = Random::new(seed);
    Mat::from_fn(rows, cols, |_, _| normal(&mut random))
}

/// One such number: mean 0, variance 1.
pub(super) fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| random.share()).sum::<f64>() - 6.0
}
