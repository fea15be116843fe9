//! Weights that are products: W = left · right.
//!
//! Owns: the two factors of one matrix. Must not know: how they were found, how a format stores them.
//! Invariant: factors are rounded to their stored type.

use crate::error::{Error, Result};
use crate::kernels::linalg::{Precision, matmul_nn};
use crate::tensor::{DType, Rows, encode_dense};

/// A matrix of shape `[rows, cols]` as two.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Columns of `left`, rows of `right`.
    pub rank: usize,
    /// Stored type of both.
    pub dtype: DType,
    /// `[rows, rank]`, row-major: the second of the two layers.
    pub left: Vec<f32>,
    /// `[rank, cols]`, row-major: the first.
    pub right: Vec<f32>,
}

impl LowRank {
    /// Both factors in their stored type: the one that is applied first, then the other.
    pub fn encoded(&self) -> Result<[Vec<u8>; 2]> {
        let bytes = |values: &[f32]| {
            let mut bytes = Vec::new();
            let is_plain = encode_dense(self.dtype, values, &mut bytes);
            is_plain
                .then_some(bytes)
                .ok_or_else(|| Error::internal("factors of no plain type"))
        };
        Ok([bytes(&self.right)?, bytes(&self.left)?])
    }
}

impl Rows for LowRank {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let rows = out.len() / self.cols.max(1);
        let left = &self.left[first_row * self.rank..(first_row + rows) * self.rank];
        matmul_nn(left, &self.right, self.rank, out, Precision::Full);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_product() {
        let weight = LowRank {
            rows: 2,
            cols: 3,
            rank: 1,
            dtype: DType::F32,
            left: vec![2.0, -1.0],
            right: vec![1.0, 0.5, 4.0],
        };
        let mut out = [0.0; 3];
        weight.read(1, &mut out).unwrap();
        assert_eq!(out, [-1.0, -0.5, -4.0]);
    }
}
