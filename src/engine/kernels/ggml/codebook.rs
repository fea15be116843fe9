//! ggml types that are only read: codebook types below 2 bits, and those for activations.
//!
//! Owns: the layouts of IQ1_S and IQ1_M. Must not know: other types.
//! Invariant: an index is masked to its codebook's length, so no bytes can lead outside.

use super::grids::IQ1S;
use super::legacy::read_f16;
use super::q8_k;
use crate::tensor::GgmlType;

const ONE: [f32; 4] = [-1.0, 0.0, 1.0, 0.0];
/// Distance of IQ1's levels from whole numbers.
const DELTA: f32 = 0.125;

pub(super) fn dequantize(ty: GgmlType, src: &[u8], dst: &mut [f32]) {
    let each: fn(&[u8], &mut [f32]) = match ty {
        GgmlType::Q8_1 => return q8_k::dequantize_q8_1(src, dst),
        GgmlType::Q8_K => return q8_k::dequantize_q8_k(src, dst),
        GgmlType::IQ1_S => iq1_s,
        GgmlType::IQ1_M => iq1_m,
        _ => return,
    };
    for (block, values) in src
        .chunks_exact(ty.block_bytes())
        .zip(dst.chunks_exact_mut(ty.block_size()))
    {
        each(block, values);
    }
}

fn u16_at(bytes: &[u8], index: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]])
}

fn shifted(out: &mut [f32], step: f32, index: usize, minus: bool) {
    let (entry, delta) = (IQ1S[index & 2047], if minus { -DELTA } else { DELTA });
    for (j, value) in out.iter_mut().enumerate().take(8) {
        *value = step * (ONE[usize::from(entry >> (2 * j) & 3)] + delta);
    }
}

fn iq1_s(block: &[u8], out: &mut [f32]) {
    let (d, low, high) = (read_f16(block), &block[2..34], &block[34..50]);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let word = u16_at(high, i / 4);
        let step = d * f32::from(2 * (word >> 12 & 7) + 1);
        let top = usize::from(word >> (3 * (i % 4)) & 7);
        shifted(out, step, usize::from(low[i]) | top << 8, word & 0x8000 != 0);
    }
}

fn iq1_m(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..32], &block[32..48], &block[48..56]);
    let words: [u16; 4] = std::array::from_fn(|i| u16_at(scales, i));
    let bits = words[0] >> 12 | words[1] >> 8 & 0x00f0 | words[2] >> 4 & 0x0f00 | words[3] & 0xf000;
    let d = half::f16::from_bits(bits).to_f32();
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        // One 3-bit scale for two vectors, four scales in a word.
        let scale = words[i / 8] >> (3 * (i / 2 % 4)) & 7;
        let nibble = high[i / 2] >> (4 * (i % 2)) & 15;
        let index = usize::from(low[i]) | usize::from(nibble & 7) << 8;
        shifted(out, d * f32::from(2 * scale + 1), index, nibble & 8 != 0);
    }
}
