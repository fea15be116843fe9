//! ggml's block types: quantizers, readers and code statistics.
//!
//! Owns: the arithmetic and the bit layouts. Must not know: GGUF, which tensor gets which type.
//! Source: ggml-org/ggml (`ggml-quants.c`, `ggml-common.h`). Invariant: without column importance the bytes are
//! those ggml's reference quantizers write; with it, those of its importance-weighted ones; the one exception is told
//! where it is, at IQ3_S.
//!
//! A block type is one file, or a line in its family's file, and one line in `kernel_of`.

mod blocks;
mod codebook;
mod fp4;
mod grids;
mod iq2;
mod iq3;
mod iq4;
mod lanes;
mod lattice;
mod legacy;
mod positive;
mod q2_k;
mod q3_k;
mod q4_k;
mod q6_k;
mod q8_k;
mod search;
mod step_min;
mod ternary;
#[cfg(test)]
mod tests;
mod vectors;

use crate::tensor::GgmlType;
use blocks::{Kernel, kernel};

/// How much each column of the matrix matters, and how many columns there are.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Length of a row.
    pub count: usize,
    /// Mean square of each column's activations (an "importance matrix" row); `None` where nothing is known.
    pub importance: Option<&'a [f32]>,
}

impl<'a> Columns<'a> {
    /// Importance of `len` columns from the place in the row that element `first` of the flattened rows has.
    fn at(self, first: usize, len: usize) -> Option<&'a [f32]> {
        self.importance.map(|all| &all[first % self.count..][..len])
    }
}

/// The kernels of a type; `None` for types that cannot be written (see [`GgmlType::can_quantize`]).
fn kernel_of(ty: GgmlType) -> Option<&'static Kernel> {
    Some(match ty {
        GgmlType::IQ2_S => kernel!(iq2::Iq2S),
        GgmlType::IQ2_XS => kernel!(iq2::Iq2Xs),
        GgmlType::IQ2_XXS => kernel!(iq2::Iq2Xxs),
        GgmlType::IQ3_S => kernel!(iq3::Iq3S),
        GgmlType::IQ3_XXS => kernel!(iq3::Iq3Xxs),
        GgmlType::IQ4_NL => kernel!(iq4::Iq4Nl),
        GgmlType::IQ4_XS => kernel!(iq4::Iq4Xs),
        GgmlType::MXFP4 => kernel!(fp4::Mxfp4),
        GgmlType::NVFP4 => kernel!(fp4::Nvfp4),
        GgmlType::Q1_0 => kernel!(ternary::Q1_0),
        GgmlType::Q2_0 => kernel!(ternary::Q2_0),
        GgmlType::Q2_K => kernel!(q2_k::Q2K),
        GgmlType::Q3_K => kernel!(q3_k::Q3K),
        GgmlType::Q4_0 => kernel!(legacy::Q4_0),
        GgmlType::Q4_1 => kernel!(legacy::Q4_1),
        GgmlType::Q4_K => kernel!(q4_k::Q4K),
        GgmlType::Q5_0 => kernel!(legacy::Q5_0),
        GgmlType::Q5_1 => kernel!(legacy::Q5_1),
        GgmlType::Q5_K => kernel!(q4_k::Q5K),
        GgmlType::Q6_K => kernel!(q6_k::Q6K),
        GgmlType::Q8_0 => kernel!(legacy::Q8_0),
        GgmlType::TQ1_0 => kernel!(ternary::Tq1_0),
        GgmlType::TQ2_0 => kernel!(ternary::Tq2_0),
        _ => return None,
    })
}

/// Quantizes whole rows of `cols` values to `ty`. `importance` has one weight a column.
///
/// `dst` holds exactly the blocks of `src`; a type that cannot be written leaves it as it is.
pub fn quantize_rows(ty: GgmlType, src: &[f32], cols: usize, importance: Option<&[f32]>, dst: &mut [u8]) {
    let columns = Columns {
        count: cols.max(1),
        importance,
    };
    if let Some(kernel) = kernel_of(ty) {
        (kernel.quantize)(src, columns, dst);
    }
}

/// Whether ggml refuses to write the type without column importance: below 2.5 bits the result would be no use. Here
/// every column counts alike then.
pub const fn requires_importance(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::IQ2_XXS | GgmlType::IQ2_XS)
}

/// Reads whole blocks of any block type as f32.
pub fn dequantize_rows(ty: GgmlType, src: &[u8], dst: &mut [f32]) {
    match kernel_of(ty) {
        Some(kernel) => (kernel.dequantize)(src, dst),
        None => codebook::dequantize(ty, src, dst),
    }
}

/// Number of codes of a type; 0 for types that are only read.
pub fn code_levels(ty: GgmlType) -> usize {
    kernel_of(ty).map_or(0, |kernel| kernel.levels)
}

/// Adds the codes of whole blocks (fewer than 2³² elements) to a histogram of [`code_levels`] entries; gives the
/// sum over the elements of the squared quantization step, as the stored scales give it.
pub fn survey_codes(ty: GgmlType, src: &[u8], histogram: &mut [u64]) -> f64 {
    kernel_of(ty).map_or(0.0, |kernel| (kernel.survey)(src, histogram))
}
