//! 4-bit `NormalFloat` weights (`QLoRA`, Dettmers et al. 2023).
//!
//! Owns: codes and absmax of one tensor, flattened. Must not know: bitsandbytes' file layout.
//! Invariant: `value = round_to(value_dtype, NF4_TABLE[code] · absmax)`.

use crate::error::Result;
use crate::tensor::{DType, Rows, round_to};

/// The sixteen `NormalFloat` values: quantiles of a standard normal scaled to [−1, 1], with an exact zero.
pub const NF4_TABLE: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// An NF4 tensor; blocks run over the flattened elements and may cross rows.
#[derive(Clone, Debug)]
pub struct Nf4 {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Elements that share an absmax.
    pub block_size: usize,
    /// Type the values are rounded to when used.
    pub value_dtype: DType,
    /// One code an element (0..16), flattened.
    pub codes: Vec<u8>,
    /// One a block, as an engine reads it.
    pub absmax: Vec<f32>,
    /// How these are stored, where they are quantized themselves.
    pub nested: Option<Nested>,
}

/// Absmax values that share a scale.
pub const NESTED_BLOCK: usize = 256;

/// Quantized absmax: `map[code] · absmax of 256 blocks + offset`.
#[derive(Clone, Debug)]
pub struct Nested {
    /// One a block: place in the dynamic 8-bit map.
    pub codes: Vec<u8>,
    /// One for each [`NESTED_BLOCK`] blocks.
    pub absmax: Vec<f32>,
    /// Mean of all absmax.
    pub offset: f32,
}

impl Nf4 {
    pub(super) fn code_histogram(&self) -> Vec<u64> {
        super::byte_histogram(&self.codes, 16)
    }

    /// Mean over the elements of (width of the code's decision cell · absmax)².
    pub(super) fn mean_square_step(&self) -> f64 {
        let mut cells = [0f64; 16];
        for (i, cell) in cells.iter_mut().enumerate() {
            let low = if i == 0 {
                NF4_TABLE[0]
            } else {
                f32::midpoint(NF4_TABLE[i - 1], NF4_TABLE[i])
            };
            let high = if i == 15 {
                NF4_TABLE[15]
            } else {
                f32::midpoint(NF4_TABLE[i], NF4_TABLE[i + 1])
            };
            *cell = f64::from(high - low).powi(2);
        }
        let mut sum = 0.0;
        for (codes, absmax) in self.codes.chunks(self.block_size.max(1)).zip(&self.absmax) {
            let block: f64 = codes.iter().map(|code| cells[usize::from(code & 15)]).sum();
            sum += block * f64::from(*absmax).powi(2);
        }
        sum / self.codes.len().max(1) as f64
    }
}

impl Rows for Nf4 {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let first = first_row * self.cols;
        for (i, value) in out.iter_mut().enumerate() {
            let at = first + i;
            let absmax = self.absmax[at / self.block_size];
            *value = round_to(
                self.value_dtype,
                NF4_TABLE[usize::from(self.codes[at] & 15)] * absmax,
            );
        }
        Ok(())
    }
}
