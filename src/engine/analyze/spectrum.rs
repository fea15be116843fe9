//! Singular values of a matrix, and what rank it would take to keep how much of it.
//!
//! Owns: the spectrum's figures, which matrices are too large for them.
//! Must not know: what is factored later.
//! Invariant: the figures do not depend on the number of threads; a square of the smaller side is in memory, and the matrix
//! itself only where it is small.
//!
//! Effective rank as O. Roy and M. Vetterli, "The effective rank", EUSIPCO 2007: the exponential of the entropy of the
//! singular values' shares.

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, Par, Side};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tensor::{Rows, chunk_rows};

/// Longest smaller side: beyond it a spectrum takes minutes a matrix.
const LONGEST_SIDE: usize = 2048;
/// Most numbers of a matrix that is taken up whole.
const LARGEST: usize = 32 << 20;
/// Shares of the squared singular values that ranks are given for.
const ENERGIES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

/// What a matrix's singular values say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// Most it could be: the smaller side.
    pub full_rank: usize,
    /// Exponential of the entropy of the singular values' shares: how many directions there are, as if all weighed alike.
    pub effective_rank: f64,
    /// Squared Frobenius norm over the largest squared singular value.
    pub stable_rank: f64,
    /// Ranks that keep so much of the squared norm.
    pub energy: Vec<EnergyRank>,
}

/// A rank and what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EnergyRank {
    /// Share of the squared norm, 0 to 1.
    pub energy: f64,
    /// Singular values that hold it.
    pub rank: usize,
}

/// How a matrix's squares are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `WᵀW`, a few rows at a time.
    Columns,
    /// `WWᵀ` of the whole.
    Rows,
}

/// None where it would take too long or too much.
fn way(rows: usize, cols: usize) -> Option<Way> {
    if rows < 2 || cols < 2 || rows.min(cols) > LONGEST_SIDE {
        None
    } else if cols <= rows {
        Some(Way::Columns)
    } else if rows * cols <= LARGEST {
        Some(Way::Rows)
    } else if cols <= LONGEST_SIDE {
        Some(Way::Columns)
    } else {
        None
    }
}

/// Bytes that a matrix's spectrum holds at its peak.
pub(super) fn working_bytes(rows: usize, cols: usize) -> u64 {
    let (side, whole) = match way(rows, cols) {
        None => return 0,
        Some(Way::Columns) => (cols, chunk_rows(cols) * cols),
        Some(Way::Rows) => (rows, rows * cols),
    };
    // The square, what decomposing it takes, the numbers as they come and in double precision.
    (4 * 8 * side * side + 12 * whole) as u64
}

/// The spectrum of a matrix; none where it is too large, and where nothing is in it.
pub(super) fn spectrum(
    matrix: &dyn Rows,
    rows: usize,
    cols: usize,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<Option<Spectrum>> {
    let square = match way(rows, cols) {
        None => return Ok(None),
        Some(Way::Columns) => by_columns(matrix, rows, cols, go_on)?,
        Some(Way::Rows) => by_rows(matrix, rows, cols)?,
    };
    go_on()?;
    let values = square
        .self_adjoint_eigenvalues(Side::Lower)
        .map_err(|_e| Error::internal("the spectrum of a finite matrix did not converge"))?;
    let mut squares: Vec<f64> = values.into_iter().map(|value| value.max(0.0)).collect();
    squares.sort_by(|a, b| b.total_cmp(a));
    squares.truncate(rows.min(cols));
    Ok(figures(&squares))
}

fn by_columns(
    matrix: &dyn Rows,
    rows: usize,
    cols: usize,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<Mat<f64>> {
    let mut square = Mat::zeros(cols, cols);
    let step = chunk_rows(cols);
    let mut values = vec![0.0_f32; step * cols];
    for first in (0..rows).step_by(step) {
        go_on()?;
        let count = step.min(rows - first);
        let values = &mut values[..count * cols];
        matrix.read(first, values)?;
        let chunk = Mat::from_fn(count, cols, |i, j| f64::from(values[i * cols + j]));
        add_square(&mut square, chunk.transpose(), chunk.as_ref());
    }
    Ok(square)
}

fn by_rows(matrix: &dyn Rows, rows: usize, cols: usize) -> Result<Mat<f64>> {
    let mut values = vec![0.0_f32; rows * cols];
    matrix.read(0, &mut values)?;
    let whole = Mat::from_fn(rows, cols, |i, j| f64::from(values[i * cols + j]));
    drop(values);
    let mut square = Mat::zeros(rows, rows);
    add_square(&mut square, whole.as_ref(), whole.transpose());
    Ok(square)
}

/// Adds a product whose result is symmetric, its lower half only.
fn add_square(square: &mut Mat<f64>, left: faer::MatRef<'_, f64>, right: faer::MatRef<'_, f64>) {
    matmul(
        square.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Add,
        left,
        BlockStructure::Rectangular,
        right,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
}

/// The figures of squared singular values, largest first.
fn figures(squares: &[f64]) -> Option<Spectrum> {
    let energy: f64 = squares.iter().sum();
    let largest = *squares.first().filter(|largest| **largest > 0.0)?;
    let sum: f64 = squares.iter().map(|square| square.sqrt()).sum();
    let entropy: f64 = squares
        .iter()
        .map(|square| square.sqrt() / sum)
        .filter(|share| *share > 0.0)
        .map(|share| -share * share.ln())
        .sum();
    let rank = |wanted: f64| {
        let mut kept = 0.0;
        let holds = |square: &f64| {
            kept += square;
            kept >= wanted * energy
        };
        squares.iter().position(holds).map_or(squares.len(), |at| at + 1)
    };
    Some(Spectrum {
        full_rank: squares.len(),
        effective_rank: entropy.exp(),
        stable_rank: energy / largest,
        energy: ENERGIES
            .iter()
            .map(|energy| EnergyRank {
                energy: *energy,
                rank: rank(*energy),
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::MemoryRows;

    fn of(values: &[f32], rows: usize, cols: usize) -> Option<Spectrum> {
        let matrix = MemoryRows { values, cols };
        spectrum(&matrix, rows, cols, &|| Ok(())).unwrap()
    }

    /// Both ways to the square give what the singular values 3 and 1 of a diagonal say.
    #[test]
    fn a_diagonal_says_its_own_values() {
        let mut tall = vec![0.0; 5 * 2];
        (tall[0], tall[3]) = (3.0, -1.0);
        let mut wide = vec![0.0; 2 * 5];
        (wide[0], wide[6]) = (3.0, -1.0);
        for found in [of(&tall, 5, 2), of(&wide, 2, 5)] {
            let found = found.unwrap();
            assert_eq!(found.full_rank, 2);
            assert!((found.stable_rank - 10.0 / 9.0).abs() < 1e-9, "{found:?}");
            let entropy = -(0.75_f64 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln());
            assert!((found.effective_rank - entropy.exp()).abs() < 1e-9, "{found:?}");
            let ranks: Vec<usize> = found.energy.iter().map(|e| e.rank).collect();
            assert_eq!(ranks, [1, 1, 2, 2], "0.9 of the energy is in the first");
        }
    }

    /// A product of two thin matrices has their rank, whatever its size.
    #[test]
    fn a_thin_product_has_its_rank() {
        let (rows, cols, rank) = (90, 40, 3);
        let at =
            |i: usize, j: usize, k: usize| ((i * 7 + k * 13) as f32).sin() * ((j * 5 + k * 3) as f32).cos();
        let values: Vec<f32> = (0..rows * cols)
            .map(|n| (0..rank).map(|k| at(n / cols, n % cols, k)).sum())
            .collect();
        let found = of(&values, rows, cols).unwrap();
        assert_eq!(found.full_rank, cols);
        assert!(found.effective_rank < 3.01, "{found:?}");
        assert!(found.energy[3].rank <= rank, "{found:?}");
    }

    #[test]
    fn nothing_and_too_much_have_none() {
        assert_eq!(of(&[0.0; 12], 3, 4), None);
        assert_eq!(of(&[1.0; 4], 1, 4), None);
        assert_eq!(way(LONGEST_SIDE + 1, LONGEST_SIDE + 1), None);
        assert_eq!(working_bytes(LONGEST_SIDE + 1, LONGEST_SIDE + 1), 0);
        assert_eq!(way(150_000, 2048), Some(Way::Columns));
    }
}
