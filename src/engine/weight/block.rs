//! Block-quantized weights: ggml's block types.
//!
//! Owns: the blocks of one matrix. Must not know: GGUF. Invariant: `blocks` holds whole rows.

use super::Codes;
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

    /// Walks over the blocks in steps of about 256 KiB; the sums are added in order.
    pub(super) fn codes(&self) -> Codes {
        let (block, levels) = (self.ggml_type.block_bytes(), ggml::code_levels(self.ggml_type));
        let parts: Vec<_> = self
            .blocks
            .par_chunks(((256 << 10) / block).max(1) * block)
            .map(|chunk| {
                let mut histogram = vec![0; levels];
                let squares = ggml::survey_codes(self.ggml_type, chunk, &mut histogram);
                (histogram, squares)
            })
            .collect();
        let (mut histogram, mut squares) = (vec![0; levels], 0.0);
        for (part, sum) in parts {
            histogram.iter_mut().zip(part).for_each(|(x, y)| *x += y);
            squares += sum;
        }
        Codes {
            histogram,
            weights: 1,
            mean_square_step: squares / (self.rows * self.cols).max(1) as f64,
        }
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
