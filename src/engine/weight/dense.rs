//! Plain weights.
//!
//! Owns: the bytes of one tensor in a plain dtype. Must not know: where they came from.
//! Invariant: `bytes` holds exactly `rows · cols` elements of `dtype`.

use crate::error::{Error, Result};
use crate::tensor::{DType, Rows, decode};

/// A tensor of plain numbers.
#[derive(Clone, Debug)]
pub struct Dense {
    /// Product of the outer dimensions.
    pub rows: usize,
    /// Innermost dimension.
    pub cols: usize,
    /// Element type (block types are allowed: a tensor passed through as it is).
    pub dtype: DType,
    /// Little-endian, row-major.
    pub bytes: Vec<u8>,
}

impl Rows for Dense {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let row = self
            .dtype
            .row_bytes(self.cols)
            .ok_or_else(|| Error::internal("dense row of broken blocks"))?;
        let rows = out.len() / self.cols.max(1);
        decode(self.dtype, &self.bytes[first_row * row..][..rows * row], out);
        Ok(())
    }
}
