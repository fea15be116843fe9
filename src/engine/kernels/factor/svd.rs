//! Truncated singular value decomposition.
//!
//! Owns: which way it is found, and what every rank would lose. Must not know: what weighs the columns.
//! Invariant: `left · right` is a projection of the matrix, so no singular value is ever divided by, and a matrix of lower
//! rank than asked gives zeros.
//!
//! Three ways. *Direct*: bidiagonalisation, exact to f64, where it costs nothing. *Gram*: the eigenvectors U of the smaller of
//! `YYᵀ` and `YᵀY`, then `U·UᵀY`. Squaring loses singular values below 10⁻⁸ of the largest, which is where f32 weights
//! have rounded them away already, and the error of a projection is second order in that of U. *Randomized*: subspace
//! iteration (Halko, Martinsson and Tropp 2011), where the rank is small against the sides: products with a few columns
//! instead of a decomposition whose cost grows with the cube of the smaller side. For Gaussian starts, k directions and p
//! more, their theorem 10.5 bounds the expected error even without iterations by √(1 + k / (p − 1)) times the best one;
//! iterations bring it within two percent of the squared error, on the
//! flat spectra where that is hardest (a test asks for both).

use faer::{Mat, MatRef, Side};

use super::dense::{check, columns_to_rows, orthonormal, product, square_lower, squared, transposed};
use super::randomized::{OVERSAMPLE, subspace};
use super::{Factors, Stop, Truncation, go_on};
use crate::error::{Error, Result};

/// Smaller side up to which bidiagonalisation costs nothing.
const DIRECT_SIDE: usize = 48;
/// Smaller side from which subspace iteration is worth what it loses: below, the Gram matrix takes a second.
const RANDOMIZED_SIDE: usize = 2048;
/// So many times must the smaller side hold the rank for that.
const RANDOMIZED_SHARE: usize = 8;

/// How singular vectors are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Method {
    /// By the sides and the rank.
    #[default]
    Auto,
    /// Bidiagonalisation of the whole.
    Direct,
    /// Eigenvectors of the smaller Gram matrix: all singular values are known after it.
    Gram,
    /// Subspace iteration from a seeded start: only the largest singular values are known after it.
    Randomized,
}

/// What is asked of a decomposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// How.
    pub method: Method,
    /// Largest rank it will be cut at; none for all. Vectors beyond it are not kept.
    pub most: Option<usize>,
    /// Start of subspace iteration.
    pub seed: u64,
}

impl Options {
    /// With the largest rank that a truncation asks for.
    #[must_use]
    pub fn up_to(self, truncation: Truncation, rows: usize, cols: usize) -> Self {
        let most = truncation.most(rows, cols);
        Self {
            most: Some(self.most.map_or(most, |given| given.min(most))),
            ..self
        }
    }

    fn rank(&self, short: usize) -> usize {
        self.most.unwrap_or(short).clamp(1, short)
    }

    /// The way that is gone for a smaller side.
    fn chosen(&self, short: usize) -> Method {
        match self.method {
            Method::Auto if short <= DIRECT_SIDE => Method::Direct,
            Method::Auto if short >= RANDOMIZED_SIDE && self.rank(short) * RANDOMIZED_SHARE <= short => {
                Method::Randomized
            }
            Method::Auto => Method::Gram,
            given => given,
        }
    }
}

/// Bytes that [`decompose`] and [`factorize`] hold at their peak, beside the matrix given.
pub fn working_bytes(rows: usize, cols: usize, options: &Options) -> u64 {
    let short = rows.min(cols);
    let rank = options.rank(short);
    let inner = match options.chosen(short) {
        // The square, its tridiagonal form, the eigenvectors and what making them takes.
        Method::Gram | Method::Auto => 4 * short * short,
        Method::Direct => 2 * rows * cols + 4 * short * short,
        Method::Randomized => 3 * (rank + OVERSAMPLE + rank / 8) * (rows + cols),
    };
    // Beside it the matrix in f64 and both factors, in f64 and f32.
    8 * (rows * cols + inner + 2 * rank * (rows + cols)) as u64
}

/// A decomposition that can be cut at any rank up to the one it was made for.
#[derive(Clone, Debug)]
pub struct Decomposition {
    rows: usize,
    cols: usize,
    /// All singular values found, largest first.
    values: Vec<f64>,
    /// Squared norm.
    total: f64,
    /// `[rows, k]`.
    left: Mat<f64>,
    /// `[cols, k]`.
    right: Mat<f64>,
}

/// Decomposes `w` of `[rows, cols]`.
pub fn decompose(
    w: &[f32],
    rows: usize,
    cols: usize,
    options: &Options,
    stop: Stop<'_>,
) -> Result<Decomposition> {
    check(w, rows, cols)?;
    let whole = transposed(w, rows, cols);
    let mut found = of_dense(whole.transpose(), options, stop)?;
    found.balance();
    Ok(found)
}

/// The best approximation of `w` of `[rows, cols]` at the rank asked (Eckart and Young 1936).
pub fn factorize(
    w: &[f32],
    rows: usize,
    cols: usize,
    truncation: Truncation,
    options: &Options,
    stop: Stop<'_>,
) -> Result<Factors> {
    truncation.check()?;
    decompose(w, rows, cols, &options.up_to(truncation, rows, cols), stop)?.truncate(truncation)
}

/// Decomposes an f64 matrix; factors are not balanced yet.
pub(super) fn of_dense(y: MatRef<'_, f64>, options: &Options, stop: Stop<'_>) -> Result<Decomposition> {
    go_on(stop)?;
    let (rows, cols) = y.shape();
    let total = squared(y);
    let (short, turned) = if rows <= cols {
        (y, false)
    } else {
        (y.transpose(), true)
    };
    let rank = options.rank(short.nrows());
    let split = match options.chosen(short.nrows()) {
        Method::Direct => by_bidiagonal(short, rank)?,
        Method::Randomized => by_subspace(short, rank, options.seed, stop)?,
        Method::Gram | Method::Auto => by_gram(short, rank, stop)?,
    };
    go_on(stop)?;
    let (left, right) = if turned {
        (split.image, split.basis)
    } else {
        (split.basis, split.image)
    };
    Ok(Decomposition {
        rows,
        cols,
        values: split.values,
        total,
        left,
        right,
    })
}

/// The largest left singular directions of a matrix.
pub(super) struct Leading {
    /// Orthonormal columns, by falling singular value.
    pub(super) basis: Mat<f64>,
    /// Squared error of keeping 0, 1, … of them: of all there could be.
    pub(super) losses: Vec<f64>,
}

/// The `rank` largest, or as many as the smaller side has.
pub(super) fn leading(y: MatRef<'_, f64>, rank: usize, stop: Stop<'_>) -> Result<Leading> {
    let short = y.nrows().min(y.ncols());
    let method = if short <= DIRECT_SIDE {
        Method::Direct
    } else {
        Method::Gram
    };
    let options = Options {
        method,
        most: Some(rank),
        seed: 0,
    };
    let found = of_dense(y, &options, stop)?;
    let losses = found.losses();
    let basis = if y.nrows() <= y.ncols() {
        found.left
    } else {
        // The longer side holds images, some of which may be zero.
        orthonormal(found.left.as_ref())
    };
    Ok(Leading { basis, losses })
}

/// A matrix of at least as many columns as rows, in two: y ≈ basis · imageᵀ.
struct Split {
    values: Vec<f64>,
    /// Orthonormal columns.
    basis: Mat<f64>,
    /// `yᵀ · basis`.
    image: Mat<f64>,
}

fn by_bidiagonal(y: MatRef<'_, f64>, rank: usize) -> Result<Split> {
    let svd = y.thin_svd().map_err(|_e| not_converged())?;
    let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let basis = svd.U().subcols(0, rank).to_owned();
    let image = product(y.transpose(), basis.as_ref());
    Ok(Split { values, basis, image })
}

fn by_gram(y: MatRef<'_, f64>, rank: usize, stop: Stop<'_>) -> Result<Split> {
    let square = square_lower(y);
    go_on(stop)?;
    let (values, basis) = eigenvectors(square.as_ref(), rank)?;
    drop(square);
    go_on(stop)?;
    let image = product(y.transpose(), basis.as_ref());
    Ok(Split { values, basis, image })
}

fn by_subspace(y: MatRef<'_, f64>, rank: usize, seed: u64, stop: Stop<'_>) -> Result<Split> {
    let span = subspace(y, rank, seed, stop)?;
    let image = product(y.transpose(), span.as_ref());
    let square = square_lower(image.transpose());
    let (mut values, turn) = eigenvectors(square.as_ref(), rank)?;
    values.truncate(rank);
    Ok(Split {
        values,
        basis: product(span.as_ref(), turn.as_ref()),
        image: product(image.as_ref(), turn.as_ref()),
    })
}

/// Roots of all eigenvalues, largest first, and the first `rank` eigenvectors, of a lower triangle.
fn eigenvectors(square: MatRef<'_, f64>, rank: usize) -> Result<(Vec<f64>, Mat<f64>)> {
    let n = square.nrows();
    let found = square
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_e| not_converged())?;
    let values: Vec<f64> = found
        .S()
        .column_vector()
        .iter()
        .rev()
        .map(|v| v.max(0.0).sqrt())
        .collect();
    let u = found.U();
    Ok((values, Mat::from_fn(n, rank, |i, j| u[(i, n - 1 - j)])))
}

fn not_converged() -> Error {
    Error::internal("the decomposition of a finite matrix did not converge")
}

impl Decomposition {
    /// Singular values found, largest first: all of them, or as many as subspace iteration was asked for.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Squared (weighted) error at rank 0, 1, … up to the number of singular values found: a convex falling curve.
    pub fn losses(&self) -> Vec<f64> {
        let found: f64 = self.values.iter().map(|v| v * v).sum();
        let all = self.values.len() == self.rows.min(self.cols);
        let mut tail = if all { 0.0 } else { (self.total - found).max(0.0) };
        let mut losses = vec![tail];
        // From the smallest: the sum of a tail is as exact as its values.
        for value in self.values.iter().rev() {
            tail += value * value;
            losses.push(tail);
        }
        losses.reverse();
        losses
    }

    /// The factors at a rank; at most the one the decomposition was made for.
    pub fn truncate(&self, truncation: Truncation) -> Result<Factors> {
        truncation.check()?;
        let losses = self.losses();
        let rank = truncation
            .rank(self.rows, self.cols, &losses)
            .min(self.left.ncols());
        let left = self.left.subcols(0, rank);
        let by_rows: Vec<f32> = (0..self.rows)
            .flat_map(|i| (0..rank).map(move |j| left[(i, j)] as f32))
            .collect();
        let loss = losses.get(rank).copied().unwrap_or(0.0);
        let share = if self.total > 0.0 { loss / self.total } else { 0.0 };
        Ok(Factors {
            left: by_rows,
            right: columns_to_rows(self.right.subcols(0, rank)),
            rows: self.rows,
            cols: self.cols,
            rank,
            values: self.values[..rank.min(self.values.len())].to_vec(),
            loss,
            relative_error: share.sqrt(),
        })
    }

    pub(super) fn left(&self) -> MatRef<'_, f64> {
        self.left.as_ref()
    }

    pub(super) fn right(&self) -> MatRef<'_, f64> {
        self.right.as_ref()
    }

    pub(super) fn right_mut(&mut self) -> &mut Mat<f64> {
        &mut self.right
    }

    /// Gives both factors of each direction the same norm, √σ without weights: neither then leaves the range of half
    /// precision before the other.
    pub(super) fn balance(&mut self) {
        for j in 0..self.left.ncols() {
            let (left, right) = (
                self.left.col(j).squared_norm_l2(),
                self.right.col(j).squared_norm_l2(),
            );
            let share = if left > 0.0 && right > 0.0 {
                (right / left).powf(0.25)
            } else {
                0.0
            };
            let back = if share > 0.0 { 1.0 / share } else { 0.0 };
            self.left.col_mut(j).iter_mut().for_each(|v| *v *= share);
            self.right.col_mut(j).iter_mut().for_each(|v| *v *= back);
        }
    }
}

#[cfg(test)]
mod tests;
