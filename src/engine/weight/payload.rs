//! What weights of a kind take where they are stored as tightly as the kind allows.
//!
//! Owns: this reckoning. Must not know: formats; theirs is exact and may be more.
//! Invariant: bits of codes and of everything that decoding them needs are counted, nothing else.

use super::{Granularity, Kind, NESTED_BLOCK};
use crate::tensor::DType;

/// Bits of the scales and zeros of a matrix.
fn scales(granularity: Granularity, rows: usize, cols: usize, dtype: DType, zero_bits: usize) -> usize {
    let scale_bits = dtype.bytes(1, 1).unwrap_or(0) * 8;
    granularity.scales(rows, cols) * (scale_bits + zero_bits)
}

impl Kind {
    /// Bytes of a `rows × cols` matrix of this kind: codes, scales and zeros, without headers and padding.
    pub fn payload_bytes(&self, rows: usize, cols: usize) -> u64 {
        let elements = rows * cols;
        let bits = match self {
            Self::Dense { dtype } => 8 * dtype.bytes(rows, cols).unwrap_or(0),
            Self::Block { ggml_type } => 8 * ggml_type.row_bytes(cols).unwrap_or(0) * rows,
            Self::Affine {
                n_bits,
                symmetric,
                granularity,
                scale_dtype,
                act_order,
                activations: _,
            } => {
                let zero_bits = if *symmetric { 0 } else { usize::from(*n_bits) };
                let order = if *act_order { 32 * cols } else { 0 };
                elements * usize::from(*n_bits)
                    + scales(*granularity, rows, cols, *scale_dtype, zero_bits)
                    + order
            }
            Self::Float8 {
                granularity,
                scale_dtype,
                activations: _,
            } => 8 * elements + scales(*granularity, rows, cols, *scale_dtype, 0),
            Self::Nf4 {
                block_size,
                double_quant,
                value_dtype: _,
            } => {
                let blocks = elements.div_ceil(*block_size.max(&1));
                let absmax = if *double_quant {
                    8 * blocks + 32 * blocks.div_ceil(NESTED_BLOCK)
                } else {
                    32 * blocks
                };
                4 * elements + absmax
            }
            Self::LowRank { rank, dtype } => 8 * rank * (rows + cols) * dtype.bytes(1, 1).unwrap_or(0),
            Self::Corrected { rank, dtype, .. } => {
                8 * self.base().payload_bytes(rows, cols) as usize
                    + 8 * rank * (rows + cols) * dtype.bytes(1, 1).unwrap_or(0)
            }
            Self::Convolutions { form, shape, dtype } => {
                8 * form.parameters(*shape) * dtype.bytes(1, 1).unwrap_or(0)
            }
            Self::Codebook {
                centroids,
                vector_size,
                granularity,
                dtype,
            } => {
                let tables = match granularity {
                    Granularity::Tensor => 1,
                    other => other.scales(rows, cols),
                };
                let index = centroids.next_power_of_two().ilog2() as usize;
                elements / vector_size.max(&1) * index
                    + tables * centroids * vector_size * 8 * dtype.bytes(1, 1).unwrap_or(0)
            }
        };
        bits.div_ceil(8) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::GgmlType;
    use crate::weight::Activations;

    #[test]
    fn codes_scales_and_zeros_are_counted() {
        let affine = |symmetric, act_order| Kind::Affine {
            n_bits: 4,
            symmetric,
            granularity: Granularity::Group(64),
            scale_dtype: DType::BF16,
            activations: Activations::None,
            act_order,
        };
        // 128 × 256 codes of four bits, 512 scales of sixteen.
        assert_eq!(affine(true, false).payload_bytes(128, 256), 16_384 + 1024);
        assert_eq!(affine(false, false).payload_bytes(128, 256), 16_384 + 1024 + 256);
        assert_eq!(affine(true, true).payload_bytes(128, 256), 16_384 + 1024 + 1024);
        let block = Kind::Block {
            ggml_type: GgmlType::Q4_K,
        };
        assert_eq!(block.payload_bytes(128, 256), 128 * 144);
        let nf4 = |double_quant| Kind::Nf4 {
            block_size: 64,
            value_dtype: DType::BF16,
            double_quant,
        };
        assert_eq!(nf4(false).payload_bytes(128, 256), 16_384 + 512 * 4);
        assert_eq!(nf4(true).payload_bytes(128, 256), 16_384 + 512 + 2 * 4);
        let corrected = Kind::Corrected {
            rank: 8,
            dtype: DType::BF16,
            block_size: 64,
            value_dtype: DType::BF16,
            double_quant: true,
        };
        assert_eq!(
            corrected.payload_bytes(128, 256),
            16_384 + 512 + 2 * 4 + 2 * 8 * (128 + 256)
        );
        let dense = Kind::Dense { dtype: DType::BF16 };
        assert_eq!(dense.payload_bytes(128, 256), 65_536);
    }
}
