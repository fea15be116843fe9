//! Truncation that is best for the outputs of a layer, not for its weights.
//!
//! Owns: what weighs the columns of a matrix. Must not know: where second moments come from.
//! Invariant: at every rank the (damped) error of the outputs is the least that any product of that rank has.
//!
//! ‖(W − BA)Xᵀ‖² = ‖(W − BA)L‖² for H = `XᵀX` = `LLᵀ`, so that the truncated decomposition of WL, with its right factor
//! solved back through L⁻¹, minimises it: DRONE (Chen et al. 2021), SVD-LLM (Wang et al. 2024), QERA (Zhang et al. 2024).
//! Where only the diagonal of H is known, L is its root: ASVD (Yuan et al. 2023), whose scales are milder powers of it.

use faer::{Mat, MatRef};
use rayon::prelude::*;

use super::dense::{check, product_lower, solve_transposed, squared, transposed};
use super::svd::{Decomposition, Options, of_dense, working_bytes as svd_bytes};
use super::{Factors, Stop, Truncation, go_on};
use crate::error::{Error, Result};
use crate::kernels::check_finite;
use crate::kernels::cholesky::lower_factor;

/// How often damping is raised tenfold before giving up.
const ATTEMPTS: i32 = 6;
/// What it is raised from where there was less.
const LEAST_DAMP: f64 = 1e-5;

/// What weighs the columns of a matrix; layers that read the same input share it.
#[derive(Clone, Debug)]
pub struct Whitening {
    n: usize,
    weights: Weights,
    damp: f64,
}

#[derive(Clone, Debug)]
enum Weights {
    None,
    /// A factor of each column.
    Scales(Vec<f64>),
    /// L, row-major, zero above its diagonal.
    Lower(Vec<f64>),
}

impl Whitening {
    /// All n columns alike.
    pub fn none(n: usize) -> Self {
        Self {
            n,
            weights: Weights::None,
            damp: 0.0,
        }
    }

    /// By the second moment of each column's input alone, to the power `exponent / 2`: 1 is best where inputs are not
    /// correlated, ASVD takes a half. `damp` is the part of the mean that is added to each.
    ///
    /// # Errors
    /// `non_finite_activations`, `no_activations` where all moments are zero.
    pub fn diagonal(moments: &[f32], exponent: f64, damp: f64) -> Result<Self> {
        let mean = checked_mean(moments.iter().copied(), moments.len())?;
        let scale = |moment: &f32| (f64::from(*moment) + damp.max(1e-12) * mean).powf(exponent / 2.0);
        let scales: Vec<f64> = moments.iter().map(scale).collect();
        if !scales.iter().all(|s| s.is_normal()) {
            return Err(Error::numeric(
                "singular_activations",
                "second moments of inputs leave the range of numbers",
            ));
        }
        Ok(Self {
            n: moments.len(),
            weights: Weights::Scales(scales),
            damp,
        })
    }

    /// By the whole Gram matrix `[n, n]`, of which the lower triangle is read. `damp` is the part of the mean diagonal that
    /// is added to it; where the matrix is not positive definite then, it is raised tenfold and tried again.
    ///
    /// # Errors
    /// `non_finite_activations`; `no_activations` where the diagonal is zero; `singular_activations` where no damping helped.
    pub fn gram(gram: &[f32], n: usize, damp: f64, stop: Stop<'_>) -> Result<Self> {
        if gram.len() != n * n {
            return Err(Error::internal(format!(
                "a Gram matrix of {n} inputs has {} values",
                gram.len()
            )));
        }
        check_finite(gram, 0).map_err(|_nan| overflowed())?;
        let mean = checked_mean((0..n).map(|i| gram[i * n + i]), n)?;
        for attempt in 0..ATTEMPTS {
            let damp = if attempt == 0 {
                damp
            } else {
                damp.max(LEAST_DAMP) * 10f64.powi(attempt)
            };
            let mut lower = damped(gram, n, damp * mean);
            let found = lower_factor(&mut lower, n, stop);
            go_on(stop)?;
            if found.is_some() {
                for (i, row) in lower.chunks_mut(n).enumerate() {
                    row[i + 1..].fill(0.0);
                }
                let weights = Weights::Lower(lower);
                return Ok(Self { n, weights, damp });
            }
        }
        Err(Error::numeric(
            "singular_activations",
            format!("the Gram matrix of {n} inputs is not positive definite, whatever the damping"),
        ))
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.n
    }

    /// Part of the mean diagonal that was added in the end.
    pub fn damp(&self) -> f64 {
        self.damp
    }

    /// Bytes that [`Whitening::gram`] holds at its peak, beside the Gram matrix.
    pub fn working_bytes(n: usize) -> u64 {
        // A panel of the factorisation with its product, beside the matrix.
        Self::bytes(n) + 8 * (2 * 64 * n) as u64
    }

    /// Bytes that it holds where it was made of a whole Gram matrix.
    pub fn bytes(n: usize) -> u64 {
        8 * (n * n) as u64
    }

    /// Squared norm of `gap` of `[rows, n]` as its outputs are weighed: ‖gap · L‖².
    pub fn loss(&self, gap: &[f32], rows: usize) -> Result<f64> {
        check(gap, rows, self.n)?;
        Ok(squared(self.apply(gap, rows).as_ref().transpose()))
    }

    fn lower<'a>(&self, values: &'a [f64]) -> MatRef<'a, f64> {
        MatRef::from_row_major_slice(values, self.n, self.n)
    }

    /// (W · L)ᵀ for W of `[rows, n]`.
    pub(super) fn apply(&self, w: &[f32], rows: usize) -> Mat<f64> {
        let mut whole = transposed(w, rows, self.n);
        match &self.weights {
            Weights::None => whole,
            Weights::Scales(scales) => {
                for column in whole.col_iter_mut() {
                    column.iter_mut().zip(scales).for_each(|(v, s)| *v *= s);
                }
                whole
            }
            Weights::Lower(lower) => {
                let product = product_lower(whole.transpose(), self.lower(lower));
                drop(whole);
                product.transpose().to_owned()
            }
        }
    }

    /// L⁻ᵀ · x in place of x of `[n, k]`.
    fn solve(&self, x: &mut Mat<f64>) {
        match &self.weights {
            Weights::None => {}
            Weights::Scales(scales) => {
                for column in x.col_iter_mut() {
                    column.iter_mut().zip(scales).for_each(|(v, s)| *v /= s);
                }
            }
            Weights::Lower(lower) => solve_transposed(self.lower(lower), x),
        }
    }
}

fn overflowed() -> Error {
    Error::numeric(
        "non_finite_activations",
        "the inputs of this layer hold NaN or infinities: the model overflows on the calibration data",
    )
}

/// Mean of second moments.
fn checked_mean(moments: impl Iterator<Item = f32>, n: usize) -> Result<f64> {
    let mut sum = 0.0;
    for moment in moments {
        if !(moment.is_finite() && moment >= 0.0) {
            return Err(overflowed());
        }
        sum += f64::from(moment);
    }
    if sum > 0.0 {
        return Ok(sum / n as f64);
    }
    Err(Error::numeric(
        "no_activations",
        "the inputs of this layer were zero throughout: nothing weighs its columns",
    ))
}

/// The lower triangle with something added to its diagonal.
fn damped(gram: &[f32], n: usize, added: f64) -> Vec<f64> {
    let mut lower = vec![0.0; n * n];
    let rows = lower.par_chunks_mut(n).zip(gram.par_chunks(n)).enumerate();
    rows.for_each(|(i, (to, from))| {
        to.iter_mut()
            .zip(&from[..=i])
            .for_each(|(to, v)| *to = f64::from(*v));
        to[i] += added;
    });
    lower
}

/// Bytes that [`decompose`] holds at its peak, beside the matrix and the whitening given.
pub fn working_bytes(rows: usize, cols: usize, options: &Options) -> u64 {
    // Before anything else is made, the matrix before and after its product.
    svd_bytes(rows, cols, options).max(2 * 8 * (rows * cols) as u64)
}

/// Decomposes `w` of `[rows, n]` so that truncating loses least of the outputs; losses and values are those of W · L, damping
/// included.
pub fn decompose(
    w: &[f32],
    rows: usize,
    whitening: &Whitening,
    options: &Options,
    stop: Stop<'_>,
) -> Result<Decomposition> {
    check(w, rows, whitening.n)?;
    let weighted = whitening.apply(w, rows);
    let mut found = of_dense(weighted.transpose(), options, stop)?;
    drop(weighted);
    whitening.solve(found.right_mut());
    go_on(stop)?;
    found.balance();
    Ok(found)
}

/// The product of the rank asked whose outputs are nearest to those of `w` of `[rows, n]`.
pub fn factorize(
    w: &[f32],
    rows: usize,
    whitening: &Whitening,
    truncation: Truncation,
    options: &Options,
    stop: Stop<'_>,
) -> Result<Factors> {
    truncation.check()?;
    let options = options.up_to(truncation, rows, whitening.n);
    decompose(w, rows, whitening, &options, stop)?.truncate(truncation)
}

#[cfg(test)]
mod tests;
