//! Q2_K: super-blocks of 256 in sixteen groups of 16, with 4-bit scales and minima.
//!
//! Owns: its layout and quantizer, and the 2-bit packing that Q3_K shares. Must not know: other types.
//! Invariant: four elements 32 apart share a byte, the first in the low bits.

use super::Columns;
use super::blocks::{Blocks, Unpacked};
use super::lanes::{gather, importance, sum_of_squares, sums};
use super::legacy::{read_f16, write_f16};
use super::search::{Affine, Candidates, affine};
use super::step_min::StepMin;

pub(super) const GROUPS: usize = 16;
pub(super) const GROUP: usize = 16;
const LEN: usize = 256;
const TOP: f32 = 3.0;
const TOP_SCALE: f32 = 15.0;

pub(super) type Lanes = [[f32; GROUPS]; GROUP];

#[inline(always)]
pub(super) fn pack_pairs(codes: &[u8; LEN], bytes: &mut [u8]) {
    for (codes, bytes) in codes.as_chunks::<128>().0.iter().zip(bytes.chunks_exact_mut(32)) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = (codes[l] & 3)
                | (codes[l + 32] & 3) << 2
                | (codes[l + 64] & 3) << 4
                | (codes[l + 96] & 3) << 6;
        }
    }
}

#[inline(always)]
pub(super) fn unpack_pairs(bytes: &[u8], codes: &mut [u8; LEN]) {
    for (codes, bytes) in codes.chunks_exact_mut(128).zip(bytes.chunks_exact(32)) {
        for (k, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = byte >> (2 * k) & 3;
            }
        }
    }
}

#[inline(always)]
fn unweighted(x: &Lanes) -> (Affine<GROUPS>, StepMin<GROUPS>) {
    let w = x.map(|lanes| lanes.map(f32::abs));
    let grid = Candidates {
        top: TOP,
        first: -0.5,
        delta: 0.1,
        last: 15,
    };
    let fit = affine::<GROUP, GROUPS, true>(x, &w, &grid);
    let chosen = StepMin::by_largest(&fit, TOP_SCALE);
    (fit, chosen)
}

#[inline(always)]
fn weighted(block: &[f32], x: &Lanes, columns: &[f32]) -> (Affine<GROUPS>, StepMin<GROUPS>) {
    let spread = [sum_of_squares(block) / LEN as f32; GROUPS];
    let w = importance(x, &gather(columns, |l| l * GROUP), spread);
    let grid = Candidates {
        top: TOP,
        first: -0.9,
        delta: 0.05,
        last: 36,
    };
    let fit = affine::<GROUP, GROUPS, false>(x, &w, &grid);
    let chosen = StepMin::by_weight(&fit, &sums(&w), TOP_SCALE);
    (fit, chosen)
}

/// 2 bits, step and minimum.
pub(super) struct Q2K;

impl Blocks for Q2K {
    const LEN: usize = LEN;
    const BYTES: usize = 84;
    const GROUP: usize = GROUP;
    const LEVELS: usize = 4;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let (step, min_step) = (read_f16(&block[80..]), read_f16(&block[82..]));
        for (scale, byte) in out.scales.iter_mut().zip(&block[..16]) {
            *scale = (step * f32::from(byte & 15), -(min_step * f32::from(byte >> 4)));
        }
        unpack_pairs(&block[16..80], &mut out.codes);
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let mut codes = [0; LEN];
        for (i, (block, out)) in values.chunks_exact(LEN).zip(dst.chunks_exact_mut(84)).enumerate() {
            let x: Lanes = gather(block, |l| l * GROUP);
            let (fit, chosen) = match columns.at(i * LEN, LEN) {
                None => unweighted(&x),
                Some(columns) => weighted(block, &x, columns),
            };
            let step = write_f16(chosen.step, &mut out[80..]);
            let min_step = write_f16(chosen.min_step, &mut out[82..]);
            for l in 0..GROUPS {
                out[l] = chosen.scales[l] | chosen.mins[l] << 4;
                let (values, codes) = (&block[l * GROUP..][..GROUP], &mut codes[l * GROUP..][..GROUP]);
                chosen.codes(&fit, l, (step, min_step), TOP, values, codes);
            }
            pack_pairs(&codes, &mut out[16..80]);
        }
    }
}
