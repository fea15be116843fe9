//! Weights that share values: codes into a table of centroids.
//!
//! Owns: codes and tables of one matrix. Must not know: how a format packs them, how centroids were found.
//! Invariant: every code is below the number of centroids; centroids are rounded to their stored type.

use super::Granularity;
use crate::error::Result;
use crate::tensor::{DType, Rows};

/// A matrix of shape `[rows, cols]` whose runs of `width` weights are centroids of a table.
#[derive(Clone, Debug)]
pub struct Codebook {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Consecutive weights of a row under one code.
    pub width: usize,
    /// Centroids of a table.
    pub centroids: usize,
    /// Which weights share a table.
    pub granularity: Granularity,
    /// Stored type of the centroids.
    pub dtype: DType,
    /// One code for each run, `[rows, cols / width]`.
    pub codes: Vec<u16>,
    /// `[tables, centroids, width]`: one table for a tensor, one a row, or one a group of each row.
    pub table: Vec<f32>,
}

impl Codebook {
    /// How often each code occurs, whichever table it is of.
    pub fn code_histogram(&self) -> Vec<u64> {
        let mut counts = vec![0; self.centroids];
        for code in &self.codes {
            if let Some(count) = counts.get_mut(usize::from(*code)) {
                *count += 1;
            }
        }
        counts
    }

    fn table_of(&self, row: usize, col: usize) -> usize {
        match self.granularity {
            Granularity::Tensor => 0,
            Granularity::Channel => row,
            Granularity::Group(size) => row * (self.cols / size.max(1)) + col / size.max(1),
        }
    }
}

impl Rows for Codebook {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let (width, runs) = (self.width.max(1), self.cols / self.width.max(1));
        for (r, row) in out.chunks_mut(self.cols.max(1)).enumerate() {
            let codes = &self.codes[(first_row + r) * runs..][..runs];
            for (at, (values, code)) in row.chunks_mut(width).zip(codes).enumerate() {
                let table = self.table_of(first_row + r, at * width) * self.centroids;
                let first = (table + usize::from(*code)) * width;
                values.copy_from_slice(&self.table[first..first + width]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_for_runs_of_their_own_table() {
        let mut book = Codebook {
            rows: 2,
            cols: 4,
            width: 1,
            centroids: 2,
            granularity: Granularity::Group(2),
            dtype: DType::F32,
            codes: vec![0, 1, 0, 1, 1, 1, 0, 0],
            table: (0..8).map(|v| v as f32).collect(),
        };
        let mut out = [0.0; 8];
        book.read(0, &mut out).unwrap();
        assert_eq!(out, [0.0, 1.0, 2.0, 3.0, 5.0, 5.0, 6.0, 6.0]);
        assert_eq!(book.code_histogram(), [4, 4]);
        (book.width, book.granularity, book.codes) = (2, Granularity::Tensor, vec![1, 0, 3, 2]);
        (book.centroids, book.rows) = (4, 2);
        book.read(1, &mut out[..4]).unwrap();
        assert_eq!(out[..4], [6.0, 7.0, 4.0, 5.0]);
    }
}
