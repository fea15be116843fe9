//! 8-bit floating-point weights (OCP E4M3 "FN") with a scale.
//!
//! Owns: bytes and scales of one matrix. Must not know: file formats.
//! Invariant: no byte is NaN; `value = round_to(scale_dtype, float8 · scale)`.

use super::Granularity;
use crate::error::Result;
use crate::tensor::{DType, Rows, f8e4m3_to_f32, round_to};

/// A float8 matrix of shape `[rows, cols]`.
#[derive(Clone, Debug)]
pub struct Float8 {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Stored type of the scales.
    pub scale_dtype: DType,
    /// One E4M3 byte an element, row-major.
    pub codes: Vec<u8>,
    /// `[rows, groups]`, or one element.
    pub scales: Vec<f32>,
}

impl Float8 {
    fn scale_index(&self, row: usize, group: usize) -> usize {
        match self.granularity {
            Granularity::Tensor => 0,
            Granularity::Channel => row,
            Granularity::Group(_) => row * self.granularity.groups(self.cols).0 + group,
        }
    }

    /// Mean of (distance to the next float8 · scale)² over the elements.
    pub(super) fn mean_square_step(&self) -> f64 {
        let (_, size) = self.granularity.groups(self.cols);
        let mut sum = 0.0;
        for (r, row) in self.codes.chunks(self.cols.max(1)).enumerate() {
            for (g, codes) in row.chunks(size.max(1)).enumerate() {
                let scale = f64::from(self.scales[self.scale_index(r, g)]);
                let steps: f64 = codes
                    .iter()
                    .map(|code| {
                        let exponent = i32::from(code >> 3 & 15).max(1);
                        4f64.powi(exponent - 10)
                    })
                    .sum();
                sum += steps * scale * scale;
            }
        }
        sum / self.codes.len().max(1) as f64
    }
}

impl Rows for Float8 {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let (_, size) = self.granularity.groups(self.cols);
        for (r, row) in out.chunks_mut(self.cols).enumerate() {
            let codes = &self.codes[(first_row + r) * self.cols..][..self.cols];
            for (g, (values, codes)) in row.chunks_mut(size).zip(codes.chunks(size)).enumerate() {
                let scale = self.scales[self.scale_index(first_row + r, g)];
                for (value, code) in values.iter_mut().zip(codes) {
                    *value = round_to(self.scale_dtype, f8e4m3_to_f32(*code) * scale);
                }
            }
        }
        Ok(())
    }
}
