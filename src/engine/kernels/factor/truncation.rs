//! Where a decomposition is cut, and what is left of it.
//!
//! Owns: the rank that a rank, an energy or a ratio stands for. Must not know: how singular values are found.
//! Invariant: a rank is from 1 to the smaller side.

use crate::error::{Error, Result};

/// How much of a matrix is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Truncation {
    /// So many directions; beyond the smaller side it is that.
    Rank(usize),
    /// The fewest that keep so much of the squared (weighted) norm: above 0, at most 1.
    Energy(f64),
    /// As many as give so much of the matrix's parameters: above 0.
    Ratio(f64),
}

/// Rank at which two factors of a matrix have `ratio` of its parameters: r = ratio · m · n / (m + n), rounded down, from 1
/// to the smaller side.
pub fn rank_for_ratio(rows: usize, cols: usize, ratio: f64) -> usize {
    let rank = ratio * rows as f64 * cols as f64 / (rows + cols).max(1) as f64;
    (rank as usize).clamp(1, rows.min(cols).max(1))
}

/// The least rank that keeps so much of the squared norm, where `losses[r]` is the squared error of rank r; at least 1.
pub fn rank_for_energy(losses: &[f64], energy: f64) -> usize {
    let allowed = (1.0 - energy) * losses.first().copied().unwrap_or(0.0);
    let enough = losses.iter().position(|loss| *loss <= allowed);
    enough.unwrap_or(losses.len().saturating_sub(1)).max(1)
}

impl Truncation {
    /// Refuses shares that are none.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Rank(0) => Err(Error::bad_input(
                "bad_rank",
                "a rank of 0 keeps nothing: it is at least 1",
            )),
            Self::Energy(energy) if !(energy > 0.0 && energy <= 1.0) => Err(Error::bad_input(
                "bad_energy",
                format!("energy {energy} is no share above 0 and at most 1"),
            )),
            Self::Ratio(ratio) if !(ratio > 0.0 && ratio.is_finite()) => Err(Error::bad_input(
                "bad_ratio",
                format!("ratio {ratio} is not above 0"),
            )),
            _ => Ok(()),
        }
    }

    /// The largest rank it can ask of a matrix of these sides: what an energy needs is known afterwards.
    pub fn most(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Rank(rank) => rank.min(rows.min(cols)),
            Self::Ratio(ratio) => rank_for_ratio(rows, cols, ratio),
            Self::Energy(_) => rows.min(cols),
        }
    }

    /// The rank, where `losses[r]` is the squared error of rank r.
    pub(super) fn rank(self, rows: usize, cols: usize, losses: &[f64]) -> usize {
        let Self::Energy(energy) = self else {
            return self.most(rows, cols).min(losses.len().saturating_sub(1)).max(1);
        };
        rank_for_energy(losses, energy)
    }
}

/// A matrix as a product: W ≈ left · right.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// `[rows, rank]`, row-major: the second of the two layers.
    pub left: Vec<f32>,
    /// `[rank, cols]`, row-major: the first.
    pub right: Vec<f32>,
    /// Rows of the product.
    pub rows: usize,
    /// Columns of the product.
    pub cols: usize,
    /// Columns of `left`, rows of `right`.
    pub rank: usize,
    /// Singular values kept, largest first: of the weighted matrix where inputs were weighted.
    pub values: Vec<f64>,
    /// Squared (weighted) norm of W − left · right.
    pub loss: f64,
    /// Root of `loss` over the squared (weighted) norm of W; 0 for a matrix of zeros.
    pub relative_error: f64,
}

impl Factors {
    /// Parameters of both factors.
    pub fn parameters(&self) -> usize {
        self.left.len() + self.right.len()
    }

    /// left · right, `[rows, cols]`, row-major.
    pub fn multiply_out(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        let precision = crate::kernels::linalg::Precision::Full;
        crate::kernels::linalg::matmul_nn(&self.left, &self.right, self.rank, &mut out, precision);
        out
    }
}
