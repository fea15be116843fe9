//! Block-quantized weights: ggml's block types.
//!
//! Owns: the blocks of one matrix. Must not know: GGUF. Invariant: `blocks` holds whole rows.

use crate::error::Result;
use crate::kernels::ggml;
use crate::tensor::{GgmlType, Rows};
use rayon::prelude::*;

/// A matrix in ggml blocks.
#[derive(Clone, Debug)]
pub struct Block {
    /// Product of the outer dimensions.
    pub rows: usize,
    /// Innermost dimension, a multiple of the block size.
    pub cols: usize,
    /// Block type.
    pub ggml_type: GgmlType,
    /// Row-major blocks.
    pub blocks: Vec<u8>,
}

impl Block {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.blocks.len() / self.rows.max(1)
    }

    /// Blocks in steps of about 256 KiB, whole blocks each.
    fn chunks(&self) -> rayon::slice::Chunks<'_, u8> {
        let block = self.ggml_type.block_bytes();
        self.blocks.par_chunks(((256 << 10) / block).max(1) * block)
    }

    pub(super) fn code_histogram(&self) -> Vec<u64> {
        let levels = ggml::code_levels(self.ggml_type);
        let zero = || vec![0; levels];
        self.chunks()
            .fold(zero, |mut histogram, chunk| {
                ggml::count_codes(self.ggml_type, chunk, &mut histogram);
                histogram
            })
            .reduce(zero, |mut a, b| {
                a.iter_mut().zip(&b).for_each(|(x, y)| *x += y);
                a
            })
    }

    /// Mean of the squared step over the elements, as the stored scales give it.
    pub(super) fn mean_square_step(&self) -> f64 {
        let sums: Vec<f64> = self
            .chunks()
            .map(|chunk| ggml::sum_square_step(self.ggml_type, chunk))
            .collect();
        sums.iter().sum::<f64>() / (self.rows * self.cols).max(1) as f64
    }
}

impl Rows for Block {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let row = self.row_bytes();
        let rows = out.len() / self.cols.max(1);
        ggml::dequantize_rows(self.ggml_type, &self.blocks[first_row * row..][..rows * row], out);
        Ok(())
    }
}
