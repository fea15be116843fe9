//! Q8_1 and Q8_K: ggml's types for activations in dot products. Read only.
//!
//! Owns: their layouts. Must not know: other types. Invariant: the stored sums are not needed to read them.

use super::legacy::read_f16;

fn spread(step: f32, codes: &[u8], values: &mut [f32]) {
    for (value, code) in values.iter_mut().zip(codes) {
        *value = f32::from(code.cast_signed()) * step;
    }
}

pub(super) fn dequantize_q8_1(src: &[u8], dst: &mut [f32]) {
    for (block, values) in src.as_chunks::<36>().0.iter().zip(dst.chunks_exact_mut(32)) {
        spread(read_f16(block), &block[4..], values);
    }
}

pub(super) fn dequantize_q8_k(src: &[u8], dst: &mut [f32]) {
    for (block, values) in src.as_chunks::<292>().0.iter().zip(dst.chunks_exact_mut(256)) {
        let step = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        spread(step, &block[4..260], values);
    }
}
