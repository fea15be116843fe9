//! The smallest uniform types: TQ1_0, TQ2_0 (−1, 0, 1), Q2_0 (−1 … 2), Q1_0 (signs).
//!
//! Owns: their layouts and quantizers. Must not know: other types.
//! Invariant: no search: the step follows from the magnitudes of the block.

use super::Columns;
use super::blocks::{Blocks, NONE, Unpacked};
use super::legacy::{read_f16, write_f16};

fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

fn inverse(step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}

/// Nearest of −1, 0, 1 (halves away from zero), one added.
fn trit(value: f32) -> u8 {
    (value.round() + 1.0) as u8
}

/// Runs of TQ1_0: first element, bytes, elements a byte.
const RUNS: [(usize, usize, usize); 3] = [(0, 32, 5), (160, 16, 5), (240, 4, 4)];

/// Five trits a byte.
pub(super) struct Tq1_0;

impl Blocks for Tq1_0 {
    const LEN: usize = 256;
    const BYTES: usize = 54;
    const GROUP: usize = 256;
    const LEVELS: usize = 3;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code) - 1.0
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(&block[52..]), NONE);
        let mut bytes = block;
        for (first, width, digits) in RUNS {
            let (run, rest) = bytes.split_at(width);
            bytes = rest;
            let mut power = 1u8;
            for digit in 0..digits {
                for (m, byte) in run.iter().enumerate() {
                    // The byte is a fraction in base 3: multiplying shifts, the part above 255 is the digit.
                    let shifted = u16::from(byte.wrapping_mul(power));
                    out.codes[first + digit * width + m] = ((shifted * 3) >> 8) as u8;
                }
                power = power.wrapping_mul(3);
            }
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], _columns: Columns<'_>, dst: &mut [u8]) {
        for (block, out) in values.as_chunks::<256>().0.iter().zip(dst.chunks_exact_mut(54)) {
            let step = magnitude(block);
            let inverse = inverse(step);
            write_f16(step, &mut out[52..]);
            let mut at = 0;
            for (first, width, digits) in RUNS {
                for m in 0..width {
                    let mut number = 0u16;
                    for digit in 0..5 {
                        let code = if digit < digits {
                            trit(block[first + digit * width + m] * inverse)
                        } else {
                            0
                        };
                        number = number * 3 + u16::from(code);
                    }
                    out[at] = (number * 256).div_ceil(243) as u8;
                    at += 1;
                }
            }
        }
    }
}

/// Two bits a trit.
pub(super) struct Tq2_0;

impl Blocks for Tq2_0 {
    const LEN: usize = 256;
    const BYTES: usize = 66;
    const GROUP: usize = 256;
    const LEVELS: usize = 4;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code) - 1.0
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(&block[64..]), NONE);
        super::q2_k::unpack_pairs(&block[..64], &mut out.codes);
    }
    #[inline(always)]
    fn quantize(values: &[f32], _columns: Columns<'_>, dst: &mut [u8]) {
        for (block, out) in values.as_chunks::<256>().0.iter().zip(dst.chunks_exact_mut(66)) {
            let step = magnitude(block);
            let inverse = inverse(step);
            write_f16(step, &mut out[64..]);
            let codes = block.map(|v| trit(v * inverse));
            super::q2_k::pack_pairs(&codes, &mut out[..64]);
        }
    }
}

/// Four levels from −1 to 2 steps, blocks of 64.
pub(super) struct Q2_0;

impl Blocks for Q2_0 {
    const LEN: usize = 64;
    const BYTES: usize = 18;
    const GROUP: usize = 64;
    const LEVELS: usize = 4;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code) - 1.0
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(block), NONE);
        for (j, code) in out.codes[..64].iter_mut().enumerate() {
            *code = block[2 + j / 4] >> (2 * (j % 4)) & 3;
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], _columns: Columns<'_>, dst: &mut [u8]) {
        for (block, out) in values.as_chunks::<64>().0.iter().zip(dst.chunks_exact_mut(18)) {
            let step = magnitude(block);
            let inverse = inverse(step);
            write_f16(step, out);
            out[2..].fill(0);
            for (j, v) in block.iter().enumerate() {
                out[2 + j / 4] |= trit(v * inverse) << (2 * (j % 4));
            }
        }
    }
}

/// Signs times the mean magnitude, blocks of 128.
pub(super) struct Q1_0;

impl Blocks for Q1_0 {
    const LEN: usize = 128;
    const BYTES: usize = 18;
    const GROUP: usize = 128;
    const LEVELS: usize = 2;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code) * 2.0 - 1.0
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(block), NONE);
        for (j, code) in out.codes[..128].iter_mut().enumerate() {
            *code = block[2 + j / 8] >> (j % 8) & 1;
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], _columns: Columns<'_>, dst: &mut [u8]) {
        for (block, out) in values.as_chunks::<128>().0.iter().zip(dst.chunks_exact_mut(18)) {
            let sum = block.iter().fold(0.0, |sum, v| sum + v.abs());
            write_f16(sum / 128.0, out);
            out[2..].fill(0);
            for (j, v) in block.iter().enumerate() {
                out[2 + j / 8] |= u8::from(*v >= 0.0) << (j % 8);
            }
        }
    }
}
