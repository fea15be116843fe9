//! Sums of the squares of what layers read, while a model runs over data.
//!
//! Owns: the sums. Must not know: what they are used for.
//! Invariant: every column is summed in f64, token after token in the data's order, so that neither threads nor
//! batches change a bit.

use super::{Here, Visitor};
use crate::error::{Error, Result};
use crate::network::{Cut, State, with_values};
use crate::weight::InputSquares;
use rayon::prelude::*;
use std::collections::HashMap;

/// Columns that one task sums: a cache line of sums or more, few enough that narrow layers are shared out too.
const COLUMNS: usize = 128;

/// Bytes that a layer's sums take while they are made and once they are done.
pub const BYTES_A_COLUMN: u64 = 8 + 4;

/// Sums of the squares of one input's columns.
#[derive(Default)]
pub struct ColumnSquares {
    squares: Vec<f64>,
    tokens: usize,
}

impl ColumnSquares {
    /// Adds rows of `cols` values.
    pub fn add(&mut self, values: &[f32], cols: usize) {
        self.squares.resize(cols, 0.0);
        self.tokens += values.len() / cols.max(1);
        let columns = self.squares.par_chunks_mut(COLUMNS).enumerate();
        columns.for_each(|(at, sums)| {
            let first = at * COLUMNS;
            for row in values.chunks_exact(cols.max(1)) {
                for (sum, x) in sums.iter_mut().zip(&row[first..]) {
                    *sum += f64::from(*x) * f64::from(*x);
                }
            }
        });
    }

    /// All of them, and how many rows there were.
    pub fn finish(&self) -> InputSquares {
        InputSquares {
            sums: self.squares.iter().map(|sum| *sum as f32).collect(),
            counts: vec![self.tokens as f32],
        }
    }
}

/// A visitor that replaces nothing and sums for the tensors it was given.
pub struct SquareSums<'a> {
    wanted: HashMap<&'a str, usize>,
    /// By cut and input.
    sums: HashMap<(usize, usize), ColumnSquares>,
    done: Vec<(usize, InputSquares)>,
}

impl<'a> SquareSums<'a> {
    /// Sums for tensors by name, each with its number.
    pub fn new(wanted: impl IntoIterator<Item = (&'a str, usize)>) -> Self {
        Self {
            wanted: wanted.into_iter().collect(),
            sums: HashMap::new(),
            done: Vec::new(),
        }
    }

    /// What is complete since this was last asked, with the tensors' numbers.
    pub fn done(&mut self) -> Vec<(usize, InputSquares)> {
        std::mem::take(&mut self.done)
    }
}

impl Visitor for SquareSums<'_> {
    fn replaces(&self) -> bool {
        false
    }

    fn see(&mut self, at: usize, cut: &Cut, state: &State) -> Result<()> {
        for (input, x) in state.inputs.iter().enumerate() {
            let mut readers = cut.readers.iter().filter(|r| r.input == input);
            if readers.any(|r| self.wanted.contains_key(r.tensor.as_str())) {
                let sum = self.sums.entry((at, input)).or_default();
                let cols = x.dim(1)?;
                with_values(x, |values| sum.add(values, cols))?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        for reader in &here.cut.readers {
            let (Some(tensor), Some(sum)) = (
                self.wanted.get(reader.tensor.as_str()),
                self.sums.get(&(here.at, reader.input)),
            ) else {
                continue;
            };
            let squares = sum.finish();
            if squares.sums.iter().any(|sum| !sum.is_finite()) {
                return Err(Error::numeric(
                    "activations_overflow",
                    format!(
                        "tensor {}: the squares of its inputs add up to more than a number holds",
                        reader.tensor
                    ),
                ));
            }
            self.done.push((*tensor, squares));
        }
        self.sums.retain(|(at, _), _| *at != here.at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5 tokens of 300 columns, more than two tasks' worth.
    #[test]
    fn batches_and_threads_change_nothing() {
        let cols = 300;
        let values: Vec<f32> = (0..5 * cols)
            .map(|i| ((i * 37) % 101) as f32 * 0.013 - 0.6)
            .collect();
        let mut whole = ColumnSquares::default();
        whole.add(&values, cols);
        let mut parts = ColumnSquares::default();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| values.chunks(2 * cols).for_each(|part| parts.add(part, cols)));
        assert_eq!(whole.finish(), parts.finish());
        let by_hand: f64 = (0..5).map(|t| f64::from(values[t * cols + 299]).powi(2)).sum();
        assert_eq!(whole.finish().sums[299], by_hand as f32);
        assert_eq!(whole.finish().counts, [5.0]);
    }

    /// An expert that no token is sent to has sums all the same, and its columns count alike.
    #[test]
    fn an_input_without_tokens_has_means_of_one() {
        let mut none = ColumnSquares::default();
        none.add(&[], 4);
        assert_eq!(none.finish().means(), [1.0; 4]);
    }
}
