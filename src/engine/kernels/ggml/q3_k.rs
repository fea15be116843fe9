//! Q3_K: super-blocks of 256 in sixteen groups of 16, with signed 6-bit scales.
//!
//! Owns: its layout and quantizer. Must not know: other types, but for the 2-bit packing of Q2_K.
//! Invariant: the third bits lie apart; a set bit means the code is 4 or more.

use super::Columns;
use super::blocks::{Blocks, NONE, Unpacked};
use super::lanes::{clamp, gather, importance, round, round_to_byte, sum_of_squares, sums};
use super::legacy::{read_f16, write_f16};
use super::q2_k::{GROUP, GROUPS, Lanes, pack_pairs, unpack_pairs};
use super::search::{descent, symmetric};

const LEN: usize = 256;
const HALF: f32 = 4.0;

/// What was found for a super-block: its step, scales with 32 added, and codes for where a scale became 0.
struct Chosen {
    step: f32,
    scales: [u8; GROUPS],
    codes: Lanes,
}

#[inline(always)]
fn unweighted(x: &Lanes) -> Chosen {
    let (scales, codes) = descent(x, HALF);
    let (mut peak, mut magnitude) = (0f32, 0f32);
    for scale in scales {
        if scale.abs() > magnitude {
            (peak, magnitude) = (scale, scale.abs());
        }
    }
    if peak == 0.0 {
        return Chosen {
            step: 0.0,
            scales: [0; GROUPS],
            codes,
        };
    }
    let inverse = -32.0 / peak;
    Chosen {
        step: 1.0 / inverse,
        scales: scales.map(|s| (clamp(round(inverse * s), -32.0, 31.0) + 32.0) as u8),
        codes,
    }
}

#[inline(always)]
fn weighted(block: &[f32], x: &Lanes, columns: &[f32]) -> Chosen {
    let spread = [2.0 * sum_of_squares(block) / LEN as f32; GROUPS];
    let w = importance(x, &gather(columns, |l| l * GROUP), spread);
    let fit = symmetric(x, &w, HALF);
    let one = |values: &[f32; GROUPS]| values.map(|v| [v]);
    let outer = symmetric(&one(&fit.scale), &one(&sums(&w)), 32.0);
    let mut codes = *x;
    for lanes in &mut codes {
        for (l, v) in lanes.iter_mut().enumerate() {
            *v = f32::from(fit.code(l, *v));
        }
    }
    Chosen {
        step: outer.scale[0],
        scales: fit.scale.map(|s| outer.code(0, s)),
        codes,
    }
}

/// Sixteen 6-bit scales in twelve bytes.
fn pack_scales(scales: &[u8; GROUPS], out: &mut [u8]) {
    out.fill(0);
    for (j, scale) in scales.iter().enumerate() {
        out[j % 8] |= (scale & 15) << (4 * (j / 8));
        out[8 + j % 4] |= (scale >> 4) << (2 * (j / 4));
    }
}

fn unpack_scale(packed: &[u8], j: usize) -> f32 {
    let low = packed[j % 8] >> (4 * (j / 8)) & 15;
    let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
    f32::from(low | high << 4) - 32.0
}

/// 3 bits, signed scales.
pub(super) struct Q3K;

impl Blocks for Q3K {
    const LEN: usize = LEN;
    const BYTES: usize = 110;
    const GROUP: usize = GROUP;
    const LEVELS: usize = 8;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code) - HALF
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let step = read_f16(&block[108..]);
        for (j, scale) in out.scales.iter_mut().enumerate() {
            *scale = (step * unpack_scale(&block[96..108], j), NONE);
        }
        unpack_pairs(&block[32..96], &mut out.codes);
        for (g, codes) in out.codes.chunks_exact_mut(32).enumerate() {
            for (code, bits) in codes.iter_mut().zip(&block[..32]) {
                *code |= (bits >> g & 1) << 2;
            }
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let mut codes = [0; LEN];
        for (i, (block, out)) in values
            .chunks_exact(LEN)
            .zip(dst.chunks_exact_mut(110))
            .enumerate()
        {
            let x: Lanes = gather(block, |l| l * GROUP);
            let chosen = match columns.at(i * LEN, LEN) {
                None => unweighted(&x),
                Some(columns) => weighted(block, &x, columns),
            };
            let step = write_f16(chosen.step, &mut out[108..]);
            pack_scales(&chosen.scales, &mut out[96..108]);
            for l in 0..GROUPS {
                let d = step * (f32::from(chosen.scales[l]) - 32.0);
                for (j, code) in codes[l * GROUP..][..GROUP].iter_mut().enumerate() {
                    *code = if d == 0.0 {
                        chosen.codes[j][l] as u8
                    } else {
                        round_to_byte(clamp(round(x[j][l] / d), -HALF, HALF - 1.0) + HALF)
                    };
                }
            }
            let (high, rest) = out.split_at_mut(32);
            high.fill(0);
            for (g, codes) in codes.chunks_exact(32).enumerate() {
                for (bits, code) in high.iter_mut().zip(codes) {
                    *bits |= (code >> 2) << g;
                }
            }
            pack_pairs(&codes, &mut rest[..64]);
        }
    }
}
