//! Affine-quantized weights: `value = (code − zero) · scale`.
//!
//! Owns: codes, scales and zeros of one matrix. Must not know: how a format packs them.
//! Invariant: codes are unsigned (`0 .. 2^n_bits`), scales are already rounded to their stored type, and the
//! value is rounded to that type too, which is what compressed-tensors and vLLM compute.

use super::{Granularity, byte_histogram};
use crate::error::Result;
use crate::tensor::{DType, Rows, round_to};

/// An affine-quantized matrix of shape `[rows, cols]`.
#[derive(Clone, Debug)]
pub struct Affine {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Bits of a code, 2 to 8.
    pub n_bits: u8,
    /// True where every zero is `2^(n_bits−1)`.
    pub symmetric: bool,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Stored type of the scales.
    pub scale_dtype: DType,
    /// One unsigned code an element, row-major.
    pub codes: Vec<u8>,
    /// `[rows, groups]` (one element for a tensor-wide scale).
    pub scales: Vec<f32>,
    /// Unsigned zero of each scale.
    pub zeros: Vec<u8>,
    /// Group of each column; empty where they lie in order.
    pub g_idx: Vec<u32>,
}

impl Affine {
    /// Index of the scale that row `row`'s group `group` uses.
    pub fn scale_index(&self, row: usize, group: usize) -> usize {
        match self.granularity {
            Granularity::Tensor => 0,
            Granularity::Channel => row,
            Granularity::Group(_) => row * self.granularity.groups(self.cols).0 + group,
        }
    }

    pub(super) fn code_histogram(&self) -> Vec<u64> {
        byte_histogram(&self.codes, 1 << self.n_bits)
    }

    /// Mean of scale² over the elements (every scale covers equally many).
    pub(super) fn mean_square_step(&self) -> f64 {
        self.scales.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / self.scales.len().max(1) as f64
    }
}

impl Rows for Affine {
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
            if !self.g_idx.is_empty() {
                for ((value, code), group) in row.iter_mut().zip(codes).zip(&self.g_idx) {
                    let index = self.scale_index(first_row + r, *group as usize);
                    *value = (i32::from(*code) - i32::from(self.zeros[index])) as f32 * self.scales[index];
                }
                continue;
            }
            for (g, (values, codes)) in row.chunks_mut(size).zip(codes.chunks(size)).enumerate() {
                let index = self.scale_index(first_row + r, g);
                let (scale, zero) = (self.scales[index], i32::from(self.zeros[index]));
                for (value, code) in values.iter_mut().zip(codes) {
                    *value = (i32::from(*code) - zero) as f32 * scale;
                }
            }
        }
        if self.scale_dtype != DType::F32 {
            for value in out.iter_mut() {
                *value = round_to(self.scale_dtype, *value);
            }
        }
        Ok(())
    }
}
