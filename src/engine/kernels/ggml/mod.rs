//! stub
use crate::tensor::GgmlType;
pub fn quantize_rows(_ty: GgmlType, _src: &[f32], _cols: usize, _imatrix: Option<&[f32]>, _dst: &mut [u8]) {}
pub fn dequantize_rows(_ty: GgmlType, _src: &[u8], _cols: usize, _dst: &mut [f32]) {}
pub fn count_codes(_ty: GgmlType, _src: &[u8], _histogram: &mut [u64]) {}
pub fn code_levels(_ty: GgmlType) -> usize {
    256
}
pub fn sum_square_step(_ty: GgmlType, _src: &[u8]) -> f64 {
    0.0
}
