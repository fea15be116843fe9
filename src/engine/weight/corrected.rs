//! Quantized weights and a product that makes up for part of what they lost: W ≈ Q + left · right.
//!
//! Owns: both terms of one matrix. Must not know: how they were found, how a format stores them.
//! Invariant: what is read is the sum, as an engine has it that runs the product as an adapter beside the layer.

use super::{LowRank, Nf4};
use crate::error::Result;
use crate::tensor::Rows;

/// A quantized matrix with an adapter.
#[derive(Clone, Debug)]
pub struct Corrected {
    /// The quantized matrix.
    pub base: Nf4,
    /// What is added to it, of the same shape.
    pub product: LowRank,
}

impl Rows for Corrected {
    fn rows(&self) -> usize {
        self.base.rows
    }

    fn cols(&self) -> usize {
        self.base.cols
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        self.base.read(first_row, out)?;
        let mut product = vec![0.0; out.len()];
        self.product.read(first_row, &mut product)?;
        out.iter_mut().zip(product).for_each(|(q, p)| *q += p);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn rows_are_those_of_the_sum() {
        let (rows, cols) = (2, 3);
        let weight = Corrected {
            base: Nf4 {
                rows,
                cols,
                block_size: 64,
                value_dtype: DType::F32,
                codes: vec![0, 7, 15, 15, 7, 0],
                absmax: vec![2.0],
                nested: None,
            },
            product: LowRank {
                rows,
                cols,
                rank: 1,
                dtype: DType::F32,
                left: vec![2.0, -1.0],
                right: vec![1.0, 0.5, 4.0],
            },
        };
        let mut out = [0.0; 3];
        weight.read(1, &mut out).unwrap();
        assert_eq!(out, [1.0, -0.5, -6.0]);
    }
}
