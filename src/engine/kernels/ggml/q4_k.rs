//! Q4_K and Q5_K: super-blocks of 256 in eight groups of 32, with 6-bit scales and minima.
//!
//! Owns: their layouts and quantizers. Must not know: other types. The two differ in the fifth bits and the grid.

use super::Columns;
use super::blocks::{Blocks, Unpacked};
use super::lanes::{gather, importance, sum_of_squares, sums};
use super::legacy::{pack_nibbles, read_f16, unpack_nibbles, write_f16};
use super::search::{Affine, Candidates, affine};
use super::step_min::StepMin;

const GROUPS: usize = 8;
const GROUP: usize = 32;
const LEN: usize = 256;
const TOP_SCALE: f32 = 63.0;

type Lanes = [[f32; GROUPS]; GROUP];

/// Searches one super-block; writes its header and gives its codes.
#[inline(always)]
fn quantize_block(
    block: &[f32],
    columns: Option<&[f32]>,
    plain: &Candidates,
    header: &mut [u8],
    codes: &mut [u8; LEN],
) {
    let x: Lanes = gather(block, |l| l * GROUP);
    let (fit, chosen) = match columns {
        None => unweighted(&x, plain),
        Some(columns) => weighted(block, &x, columns, plain.top),
    };
    let step = write_f16(chosen.step, header);
    let min_step = write_f16(chosen.min_step, &mut header[2..]);
    pack_scales(chosen.scales, chosen.mins, &mut header[4..16]);
    for l in 0..GROUPS {
        let (values, out) = (&block[l * GROUP..][..GROUP], &mut codes[l * GROUP..][..GROUP]);
        chosen.codes(&fit, l, (step, min_step), plain.top, values, out);
    }
}

#[inline(always)]
fn unweighted(x: &Lanes, grid: &Candidates) -> (Affine<GROUPS>, StepMin<GROUPS>) {
    let mut squares = [0f32; GROUPS];
    for lanes in x {
        for l in 0..GROUPS {
            squares[l] += lanes[l] * lanes[l];
        }
    }
    let spread = squares.map(|s| (s / 32.0).sqrt());
    let mut w = *x;
    for lanes in &mut w {
        for l in 0..GROUPS {
            lanes[l] = spread[l] + lanes[l].abs();
        }
    }
    let fit = affine::<GROUP, GROUPS, false>(x, &w, grid);
    let chosen = StepMin::by_largest(&fit, TOP_SCALE);
    (fit, chosen)
}

#[inline(always)]
fn weighted(block: &[f32], x: &Lanes, columns: &[f32], top: f32) -> (Affine<GROUPS>, StepMin<GROUPS>) {
    let spread = [2.0 * sum_of_squares(block) / LEN as f32; GROUPS];
    let w = importance(x, &gather(columns, |l| l * GROUP), spread);
    let grid = Candidates {
        top,
        first: -0.9,
        delta: 0.05,
        last: 36,
    };
    let fit = affine::<GROUP, GROUPS, false>(x, &w, &grid);
    let chosen = StepMin::by_weight(&fit, &sums(&w), TOP_SCALE);
    (fit, chosen)
}

/// Eight 6-bit scales and eight 6-bit minima in twelve bytes.
fn pack_scales(scales: [u8; GROUPS], mins: [u8; GROUPS], out: &mut [u8]) {
    for j in 0..4 {
        out[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        out[j + 4] = mins[j] | (mins[j + 4] >> 4) << 6;
        out[j + 8] = (scales[j + 4] & 15) | (mins[j + 4] & 15) << 4;
    }
}

#[inline(always)]
fn unpack_header(block: &[u8], out: &mut Unpacked) {
    let (step, min_step) = (read_f16(block), read_f16(&block[2..]));
    let packed = &block[4..16];
    for j in 0..4 {
        let low = (packed[j] & 63, packed[j + 4] & 63);
        let high = (
            (packed[j + 8] & 15) | (packed[j] >> 6) << 4,
            packed[j + 8] >> 4 | (packed[j + 4] >> 6) << 4,
        );
        for (at, (scale, min)) in [(j, low), (j + 4, high)] {
            out.scales[at] = (step * f32::from(scale), -(min_step * f32::from(min)));
        }
    }
}

/// 4 bits.
pub(super) struct Q4K;

impl Blocks for Q4K {
    const LEN: usize = LEN;
    const BYTES: usize = 144;
    const GROUP: usize = GROUP;
    const LEVELS: usize = 16;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        unpack_header(block, out);
        for (bytes, codes) in block[16..144]
            .chunks_exact(32)
            .zip(out.codes.chunks_exact_mut(64))
        {
            unpack_nibbles(bytes, codes);
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let grid = Candidates {
            top: 15.0,
            first: -1.0,
            delta: 0.1,
            last: 20,
        };
        let mut codes = [0; LEN];
        for (i, (block, out)) in values
            .chunks_exact(LEN)
            .zip(dst.chunks_exact_mut(144))
            .enumerate()
        {
            let (header, packed) = out.split_at_mut(16);
            quantize_block(block, columns.at(i * LEN, LEN), &grid, header, &mut codes);
            for (codes, bytes) in codes.chunks_exact(64).zip(packed.chunks_exact_mut(32)) {
                pack_nibbles(codes, bytes);
            }
        }
    }
}

/// 5 bits.
pub(super) struct Q5K;

impl Blocks for Q5K {
    const LEN: usize = LEN;
    const BYTES: usize = 176;
    const GROUP: usize = GROUP;
    const LEVELS: usize = 32;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        unpack_header(block, out);
        let (fifth, low) = (&block[16..48], &block[48..176]);
        for (bytes, codes) in low.chunks_exact(32).zip(out.codes.chunks_exact_mut(64)) {
            unpack_nibbles(bytes, codes);
        }
        for (g, codes) in out.codes.chunks_exact_mut(32).enumerate() {
            for (code, bits) in codes.iter_mut().zip(fifth) {
                *code |= (bits >> g & 1) << 4;
            }
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let grid = Candidates {
            top: 31.0,
            first: -0.5,
            delta: 0.1,
            last: 15,
        };
        let mut codes = [0; LEN];
        for (i, (block, out)) in values
            .chunks_exact(LEN)
            .zip(dst.chunks_exact_mut(176))
            .enumerate()
        {
            let (header, packed) = out.split_at_mut(16);
            quantize_block(block, columns.at(i * LEN, LEN), &grid, header, &mut codes);
            let (fifth, low) = packed.split_at_mut(32);
            fifth.fill(0);
            for (g, codes) in codes.chunks_exact(32).enumerate() {
                for (bits, code) in fifth.iter_mut().zip(codes) {
                    *bits |= (code >> 4) << g;
                }
            }
            for (codes, bytes) in codes.chunks_exact(64).zip(low.chunks_exact_mut(32)) {
                pack_nibbles(codes, bytes);
            }
        }
    }
}
