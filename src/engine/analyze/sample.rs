//! Some rows of a tensor instead of all of them.
//!
//! Owns: which rows. Must not know: what is done with them.
//! Invariant: the rows depend on the shape alone, lie evenly over the tensor, and are whole.

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::tensor::{Rows, TensorInfo};

/// Values that are taken of a tensor, but at least one row: an error estimated on so many is right to about a
/// hundredth.
const VALUES: usize = 64 * 1024;

/// Rows of a tensor.
pub(super) struct Sample {
    pub(super) cols: usize,
    pub(super) values: Vec<f32>,
}

impl Sample {
    /// Reads the sample; empty for a tensor without elements.
    pub(super) fn of(model: &Checkpoint, info: &TensorInfo) -> Result<Self> {
        let source = model.rows(info)?;
        let (rows, cols) = (source.rows(), source.cols());
        if rows * cols == 0 {
            return Ok(Self {
                cols,
                values: Vec::new(),
            });
        }
        let count = (VALUES / cols).clamp(1, rows);
        let mut values = vec![0.0; count * cols];
        for (i, row) in values.chunks_mut(cols).enumerate() {
            source.read(place(i, count, rows), row)?;
        }
        Ok(Self { cols, values })
    }
}

/// Row of the `i`-th of `count` among `rows`.
fn place(i: usize, count: usize, rows: usize) -> usize {
    (i as u128 * rows as u128 / count as u128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_and_never_twice() {
        for (count, rows) in [(1, 1), (1, 9), (4, 9), (9, 9), (113, 1536)] {
            let places: Vec<usize> = (0..count).map(|i| place(i, count, rows)).collect();
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
            assert!(places.last().is_some_and(|last| *last < rows), "{places:?}");
            assert_eq!(places[0], 0);
        }
    }
}
