//! One tensor turned.
//!
//! Owns: the norm's weight and both rotations, as they are applied. Must not know: which tensor plays which part.
//! Invariant: rows are read once; a tensor whose rows are mixed is held whole as f32, any other one is not.

use crate::error::{Error, Result};
use crate::kernels::check_finite;
use crate::kernels::hadamard::Hadamard;
use crate::kernels::random::Random;
use crate::network::read_transposed;
use crate::plan::{Orthogonal, Turned};
use crate::tensor::{DType, Rows, chunk_rows, encode_rows};
use crate::weight::Dense;
use rayon::prelude::*;

/// What is left of a norm whose weight went elsewhere.
pub(super) fn ones(rows: usize, cols: usize) -> Dense {
    Dense {
        rows,
        cols,
        dtype: DType::F32,
        bytes: 1f32.to_le_bytes().repeat(rows * cols),
    }
}

/// `Rᵀ · W · diag(g) · S`; `other` brings the norm's weight.
pub(super) fn turned(
    turned: &Turned,
    input: &dyn Rows,
    other: &dyn Fn(&str) -> Result<Vec<f32>>,
) -> Result<Dense> {
    let columns = Columns {
        input,
        norm: turned.norm.as_deref().map(other).transpose()?,
        turn: turned.columns.map(Matrix::of).transpose()?,
    };
    columns.check()?;
    let bytes = match turned.rows {
        None => encode_rows(&columns, DType::F32)?,
        Some(rows) => encode_rows(&Upright::of(&columns, &Matrix::of(rows)?)?, DType::F32)?,
    };
    Ok(Dense {
        rows: input.rows(),
        cols: input.cols(),
        dtype: DType::F32,
        bytes,
    })
}

/// An orthogonal matrix that is ready to be multiplied with.
struct Matrix {
    hadamard: Hadamard,
    /// Signs of a period's channels; nothing where all are plus.
    signs: Vec<f32>,
    period: usize,
}

impl Matrix {
    fn of(orthogonal: Orthogonal) -> Result<Self> {
        let hadamard = Hadamard::of(orthogonal.block).filter(|h| orthogonal.period.is_multiple_of(h.size()));
        let hadamard = hadamard.ok_or_else(|| Error::internal("a rotation of no size that there is"))?;
        let signs = orthogonal.seed.map(|seed| {
            let mut random = Random::new(seed);
            let sign = |_| if random.below(2) == 0 { 1.0 } else { -1.0 };
            (0..orthogonal.period).map(sign).collect()
        });
        Ok(Self {
            hadamard,
            signs: signs.unwrap_or_default(),
            period: orthogonal.period,
        })
    }

    /// Values times the matrix, for some whole periods.
    fn multiply(&self, values: &mut [f32], spare: &mut Vec<f32>) {
        for values in values.chunks_exact_mut(self.period) {
            values
                .iter_mut()
                .zip(&self.signs)
                .for_each(|(v, sign)| *v *= sign);
            self.hadamard.multiply(values, spare);
        }
    }
}

/// Rows whose columns are multiplied by the norm's weight, then turned.
struct Columns<'a> {
    input: &'a dyn Rows,
    norm: Option<Vec<f32>>,
    turn: Option<Matrix>,
}

impl Columns<'_> {
    fn check(&self) -> Result<()> {
        let cols = self.input.cols();
        let fits = self.norm.as_ref().is_none_or(|norm| norm.len() == cols)
            && self
                .turn
                .as_ref()
                .is_none_or(|turn| cols.is_multiple_of(turn.period));
        if fits {
            Ok(())
        } else {
            Err(Error::internal(format!("a rotation does not fit {cols} columns")))
        }
    }
}

impl Rows for Columns<'_> {
    fn rows(&self) -> usize {
        self.input.rows()
    }

    fn cols(&self) -> usize {
        self.input.cols()
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        self.input.read(first_row, out)?;
        // One that is not finite would spread over its whole row.
        check_finite(out, first_row * self.cols())?;
        if let Some(norm) = &self.norm {
            for row in out.chunks_exact_mut(norm.len().max(1)) {
                row.iter_mut().zip(norm).for_each(|(v, g)| *v *= g);
            }
        }
        if let Some(turn) = &self.turn {
            turn.multiply(out, &mut Vec::new());
        }
        Ok(())
    }
}

/// Rows of a matrix whose columns lie one after another.
struct Upright {
    values: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Upright {
    /// The transpose of a turn times a matrix: each of its columns is turned.
    fn of(input: &dyn Rows, turn: &Matrix) -> Result<Self> {
        let (rows, cols) = (input.rows(), input.cols());
        if !rows.is_multiple_of(turn.period) {
            return Err(Error::internal(format!("a rotation does not fit {rows} rows")));
        }
        let mut values = read_transposed(input)?;
        values
            .par_chunks_mut((chunk_rows(rows) * rows).max(1))
            .for_each_init(Vec::new, |spare, columns| turn.multiply(columns, spare));
        Ok(Self { values, rows, cols })
    }
}

impl Rows for Upright {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let taken = out.len() / self.cols.max(1);
        for (col, values) in self.values.chunks_exact(self.rows).enumerate() {
            let values = &values[first_row..first_row + taken];
            for (row, value) in out.chunks_exact_mut(self.cols).zip(values) {
                row[col] = *value;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::MemoryRows;

    fn values(seed: u64, count: usize) -> Vec<f32> {
        let mut random = Random::new(seed);
        (0..count)
            .map(|_| random.below(2001) as f32 / 1000.0 - 1.0)
            .collect()
    }

    fn all(rows: &dyn Rows) -> Vec<f32> {
        crate::network::read_all(rows).unwrap()
    }

    fn orthogonal(period: usize, block: usize, seed: Option<u64>) -> Orthogonal {
        Orthogonal { period, block, seed }
    }

    /// `x · W₂ᵀ · W₁ᵀ` is the same where what lies between the two layers is turned.
    #[test]
    fn a_writer_and_its_reader_cancel() {
        let (inner, width, outer) = (5, 24, 7);
        let (writer, reader) = (values(1, width * inner), values(2, outer * width));
        for turn in [
            orthogonal(24, 24, None),
            orthogonal(24, 8, Some(3)),
            orthogonal(12, 4, Some(0)),
        ] {
            let none = |_: &str| -> Result<Vec<f32>> { Ok(Vec::new()) };
            let rows = Turned {
                rows: Some(turn),
                ..Turned::default()
            };
            let columns = Turned {
                columns: Some(turn),
                ..Turned::default()
            };
            let (writer, reader) = (
                MemoryRows {
                    values: &writer,
                    cols: inner,
                },
                MemoryRows {
                    values: &reader,
                    cols: width,
                },
            );
            let made_writer = turned(&rows, &writer, &none).unwrap();
            let made_reader = turned(&columns, &reader, &none).unwrap();
            let product = |w: &[f32], r: &[f32]| -> Vec<f32> {
                let entry = |at: usize| {
                    let (o, i) = (at / inner, at % inner);
                    (0..width).map(|k| r[o * width + k] * w[k * inner + i]).sum()
                };
                (0..outer * inner).map(entry).collect()
            };
            let before = product(writer.values, reader.values);
            let after = product(&all(&made_writer), &all(&made_reader));
            assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5));
            assert_ne!(all(&made_reader), reader.values);
        }
    }

    /// Excess kurtosis: 0 for normal numbers, large where few are much larger than the rest.
    fn kurtosis(values: &[f32]) -> f64 {
        let mean =
            |power: i32| values.iter().map(|v| f64::from(*v).powi(power)).sum::<f64>() / values.len() as f64;
        mean(4) / mean(2).powi(2) - 3.0
    }

    #[test]
    fn outliers_are_spread() {
        let (rows, cols) = (96, 576);
        let mut weight = values(4, rows * cols);
        weight.iter_mut().step_by(97).for_each(|v| *v *= 20.0);
        let input = MemoryRows {
            values: &weight,
            cols,
        };
        let turn = Turned {
            columns: Some(orthogonal(cols, 576, None)),
            ..Turned::default()
        };
        let made = all(&turned(&turn, &input, &|_| Ok(Vec::new())).unwrap());
        let (before, after) = (kurtosis(&weight), kurtosis(&made));
        assert!(before > 30.0 && after.abs() < 0.5, "{before} {after}");
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let input = MemoryRows {
            values: &[1.0, f32::NAN],
            cols: 2,
        };
        let turn = Turned {
            columns: Some(orthogonal(2, 2, None)),
            ..Turned::default()
        };
        let error = turned(&turn, &input, &|_| Ok(Vec::new())).unwrap_err();
        assert_eq!(error.code, "non_finite_values");
    }
}
