//! ggml types that are only read: codebook types from 1.5 to 3.4 bits, and those for activations.
//!
//! Owns: the layouts of IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S. Must not know: other types.
//! Invariant: an index is masked to its codebook's length, so no bytes can lead outside.

use super::grids::{IQ1S, IQ2S, IQ2XS, IQ2XXS, IQ3S, IQ3XXS};
use super::legacy::read_f16;
use super::q8_k;
use crate::tensor::GgmlType;

const TWO: [f32; 4] = [8.0, 25.0, 43.0, 0.0];
const THREE_SMALL: [f32; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
const THREE: [f32; 8] = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];
const ONE: [f32; 4] = [-1.0, 0.0, 1.0, 0.0];
/// Distance of IQ1's levels from whole numbers.
const DELTA: f32 = 0.125;

pub(super) fn dequantize(ty: GgmlType, src: &[u8], dst: &mut [f32]) {
    let each: fn(&[u8], &mut [f32]) = match ty {
        GgmlType::Q8_1 => return q8_k::dequantize_q8_1(src, dst),
        GgmlType::Q8_K => return q8_k::dequantize_q8_k(src, dst),
        GgmlType::IQ1_S => iq1_s,
        GgmlType::IQ1_M => iq1_m,
        GgmlType::IQ2_XXS => iq2_xxs,
        GgmlType::IQ2_XS => iq2_xs,
        GgmlType::IQ2_S => iq2_s,
        GgmlType::IQ3_XXS => iq3_xxs,
        GgmlType::IQ3_S => iq3_s,
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

fn u32_at(bytes: &[u8], index: usize) -> u32 {
    u32::from(u16_at(bytes, 2 * index)) | u32::from(u16_at(bytes, 2 * index + 1)) << 16
}

/// Eight signs from seven bits: the eighth makes the number of minus signs even.
fn signs(seven: u32) -> u8 {
    let bits = (seven & 127) as u8;
    bits | (bits.count_ones() as u8 & 1) << 7
}

fn signed(value: f32, signs: u8, j: usize) -> f32 {
    value * if signs >> j & 1 == 1 { -1.0 } else { 1.0 }
}

fn eight(out: &mut [f32], step: f32, entry: u16, signs: u8) {
    for (j, value) in out.iter_mut().enumerate().take(8) {
        let level = TWO[usize::from(entry >> (2 * j) & 3)];
        *value = signed(step * level, signs, j);
    }
}

fn twice_four(out: &mut [f32], step: f32, entries: [u16; 2], levels: &[f32; 8], signs: u8) {
    for (j, value) in out.iter_mut().enumerate().take(8) {
        let level = levels[usize::from(entries[j / 4] >> (3 * (j % 4)) & 7)];
        *value = signed(step * level, signs, j);
    }
}

fn shifted(out: &mut [f32], step: f32, index: usize, minus: bool) {
    let (entry, delta) = (IQ1S[index & 2047], if minus { -DELTA } else { DELTA });
    for (j, value) in out.iter_mut().enumerate().take(8) {
        *value = step * (ONE[usize::from(entry >> (2 * j) & 3)] + delta);
    }
}

fn iq2_xxs(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (group, out) in block[2..].chunks_exact(8).zip(out.chunks_exact_mut(32)) {
        let word = u32_at(group, 1);
        let step = d * (0.5 + (word >> 28) as f32) * 0.25;
        for (l, out) in out.chunks_exact_mut(8).enumerate() {
            eight(out, step, IQ2XXS[usize::from(group[l])], signs(word >> (7 * l)));
        }
    }
}

fn iq2_xs(block: &[u8], out: &mut [f32]) {
    let (d, indices, scales) = (read_f16(block), &block[2..66], &block[66..74]);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let scale = scales[i / 4] >> (4 * (i % 4 / 2)) & 15;
        let step = d * (0.5 + f32::from(scale)) * 0.25;
        let word = u16_at(indices, i);
        eight(
            out,
            step,
            IQ2XS[usize::from(word & 511)],
            signs(u32::from(word >> 9)),
        );
    }
}

fn iq2_s(block: &[u8], out: &mut [f32]) {
    let (d, low, minus) = (read_f16(block), &block[2..34], &block[34..66]);
    let (high, scales) = (&block[66..74], &block[74..82]);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let scale = scales[i / 4] >> (4 * (i % 4 / 2)) & 15;
        let step = d * (0.5 + f32::from(scale)) * 0.25;
        let top = usize::from(high[i / 4] >> (2 * (i % 4)) & 3);
        eight(out, step, IQ2S[usize::from(low[i]) | top << 8], minus[i]);
    }
}

fn iq3_xxs(block: &[u8], out: &mut [f32]) {
    let (d, indices, words) = (read_f16(block), &block[2..66], &block[66..98]);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let word = u32_at(words, i / 4);
        let step = d * (0.5 + (word >> 28) as f32) * 0.5;
        let entries = [indices[2 * i], indices[2 * i + 1]].map(|k| IQ3XXS[usize::from(k)]);
        twice_four(out, step, entries, &THREE_SMALL, signs(word >> (7 * (i % 4))));
    }
}

fn iq3_s(block: &[u8], out: &mut [f32]) {
    let (d, low, high) = (read_f16(block), &block[2..66], &block[66..74]);
    let (minus, scales) = (&block[74..106], &block[106..110]);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let scale = scales[i / 8] >> (4 * (i / 4 % 2)) & 15;
        let step = d * f32::from(1 + 2 * scale);
        let entries = std::array::from_fn(|k| {
            let at = 2 * i + k;
            let top = usize::from(high[i / 4] >> (at % 8) & 1);
            IQ3S[usize::from(low[at]) | top << 8]
        });
        twice_four(out, step, entries, &THREE, minus[i]);
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
