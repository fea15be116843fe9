//! MXFP4 and NVFP4: E2M1 codes with an 8-bit float scale.
//!
//! Owns: their layouts and quantizers. Must not know: the compressed-tensors layouts of the same names, which pair
//! other elements in a byte. Source: OCP Microscaling Formats 1.0; ggml stores the levels doubled.
//! Invariant: the nearest level is chosen, the first in the table in a tie.

use super::Columns;
use super::blocks::{Blocks, NONE, Unpacked};
use super::legacy::{pack_nibbles, unpack_nibbles};

/// E2M1 values, doubled; code 8 is a second zero that is never written.
const LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
const CELLS: [f32; 16] = [
    1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 3.0, 2.0,
];

fn level(code: u8) -> f32 {
    f32::from(LEVELS[usize::from(code & 15)])
}

fn nearest(value: f32, step: f32) -> u8 {
    let (mut best, mut least) = (0, f32::INFINITY);
    for code in 0..16 {
        let error = (level(code) * step - value).abs();
        if error < least {
            (best, least) = (code, error);
        }
    }
    best
}

fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// `2^(e − 128)`: the E8M0 scale for doubled levels.
fn power(e: u8) -> f32 {
    f32::from_bits(match e {
        0 => 0x0020_0000,
        1 => 0x0040_0000,
        e => (u32::from(e) - 1) << 23,
    })
}

/// Blocks of 32 with a power of two.
pub(super) struct Mxfp4;

impl Blocks for Mxfp4 {
    const LEN: usize = 32;
    const BYTES: usize = 17;
    const GROUP: usize = 32;
    const LEVELS: usize = 16;
    const CELLS: &'static [f32] = &CELLS;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        level(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (power(block[0]), NONE);
        unpack_nibbles(&block[1..17], &mut out.codes[..32]);
    }
    #[inline(always)]
    fn quantize(values: &[f32], _columns: Columns<'_>, dst: &mut [u8]) {
        for (block, out) in values.as_chunks::<32>().0.iter().zip(dst.chunks_exact_mut(17)) {
            // floor(log2) of a normal number is its exponent field; 2 is E2M1's largest exponent.
            let exponent = magnitude(block).to_bits() >> 23;
            out[0] = exponent.saturating_sub(2) as u8;
            let step = power(out[0]);
            let codes: [u8; 32] = std::array::from_fn(|i| nearest(block[i], step));
            pack_nibbles(&codes, &mut out[1..]);
        }
    }
}

/// Half the value of an unsigned E4M3 byte.
fn ue4m3_half(byte: u8) -> f32 {
    if byte == 0x7f {
        return 0.0;
    }
    crate::tensor::f8e4m3_to_f32(byte & 0x7f) * 0.5
}

/// The unsigned E4M3 byte nearest to `value`, halves up, 448 at most.
fn to_ue4m3(value: f32) -> u8 {
    if value <= 0.0 {
        return 0;
    }
    let value = value.min(448.0);
    let exponent = (value.to_bits() >> 23).cast_signed() - 120;
    if exponent <= 0 {
        return (value * 512.0 + 0.5).min(7.0) as u8;
    }
    // Exponent and mantissa are neighbours: rounding the mantissa up carries into the exponent.
    let bits = (value.to_bits() >> 20).wrapping_sub(120 << 3) + (value.to_bits() >> 19 & 1);
    bits.min(0x7e) as u8
}

/// Blocks of 64 in four groups of 16, each with an E4M3 scale.
pub(super) struct Nvfp4;

impl Blocks for Nvfp4 {
    const LEN: usize = 64;
    const BYTES: usize = 36;
    const GROUP: usize = 16;
    const LEVELS: usize = 16;
    const CELLS: &'static [f32] = &CELLS;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        level(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        for (scale, byte) in out.scales.iter_mut().zip(&block[..4]) {
            *scale = (ue4m3_half(*byte), NONE);
        }
        for (bytes, codes) in block[4..36].chunks_exact(8).zip(out.codes.chunks_exact_mut(16)) {
            unpack_nibbles(bytes, codes);
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], _columns: Columns<'_>, dst: &mut [u8]) {
        for (block, out) in values.as_chunks::<64>().0.iter().zip(dst.chunks_exact_mut(36)) {
            for (g, group) in block.as_chunks::<16>().0.iter().enumerate() {
                out[g] = to_ue4m3(magnitude(group) / 6.0);
                let step = ue4m3_half(out[g]);
                let codes: [u8; 16] = std::array::from_fn(|i| nearest(group[i], step));
                pack_nibbles(&codes, &mut out[4 + 8 * g..][..8]);
            }
        }
    }
}
