//! IQ2_XXS, IQ2_XS, IQ2_S: vectors of eight from codebooks of 256, 512 and 1024 entries, 2.06 to 2.56 bits a weight.
//!
//! Owns: their layouts and quantizers. Must not know: how a codebook is searched.
//! Invariant: a stored scale `s` stands for `(2s + 1)/8` of the super-block's step.

use super::Columns;
use super::blocks::{Blocks, NONE, Unpacked, cells};
use super::grids;
use super::lanes::sum_of_squares;
use super::lattice::Lattice;
use super::legacy::{read_f16, write_f16};
use super::positive::positive;
use super::vectors::{Fit, Group, Plan, Refine, eight_signs, odd_scales, search, spread};
use std::sync::LazyLock;

const LEN: usize = 256;
const LEVELS: [i8; 6] = [-43, -25, -8, 8, 25, 43];
const CELLS: [f32; 6] = cells(&LEVELS);
const BASE: u8 = 3;

type Book = LazyLock<Lattice<8, 16>>;

static XXS: Book = LazyLock::new(|| Lattice::new(&grids::IQ2XXS, 2, BASE.into(), 2));
static XS: Book = LazyLock::new(|| Lattice::new(&grids::IQ2XS, 2, BASE.into(), 2));
static S: Book = LazyLock::new(|| Lattice::new(&grids::IQ2S, 2, BASE.into(), 1));

const PLAN: Plan = Plan {
    base: BASE,
    side: 9,
    delta: 0.1,
    refine: Refine::Moved,
};
const PLAN_XXS: Plan = Plan {
    side: 6,
    refine: Refine::All,
    ..PLAN
};

fn level(code: u8) -> f32 {
    f32::from(LEVELS[usize::from(code) % LEVELS.len()])
}

fn scale(step: f32, code: u8) -> (f32, f32) {
    (step * (0.5 + f32::from(code)) * 0.25, NONE)
}

#[inline(always)]
fn unpack_eight(out: &mut [u8], entry: u16, signs: u8) {
    spread(out, |j| (entry >> (2 * j) & 3) as u8, BASE, signs);
}

/// How much each element matters; every column alike where nothing is known.
#[inline(always)]
fn weights(block: &[f32; LEN], columns: Option<&[f32]>, spread: f32) -> [f32; LEN] {
    std::array::from_fn(|i| columns.map_or(1.0, |c| c[i]) * (spread + block[i] * block[i]).sqrt())
}

/// Four-bit scales of sixteen groups, the even ones in the low bits.
fn pack_scales(codes: &[u8; 16], out: &mut [u8]) {
    for (byte, pair) in out.iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = pair[0] | pair[1] << 4;
    }
}

/// What was found for a super-block of sixteen groups.
struct Sixteen {
    scales: [f32; 16],
    entries: [u16; 32],
    signs: [u8; 32],
}

/// The search of IQ2_XS and IQ2_S. A group whose peak is below `tiny` counts as zero.
#[inline(always)]
fn sixteen(book: &Lattice<8, 16>, block: &[f32; LEN], w: &[f32; LEN], even: bool, tiny: f32) -> Sixteen {
    let mut found = Sixteen {
        scales: [0.0; 16],
        entries: [0; 32],
        signs: [0; 32],
    };
    let groups = block.as_chunks::<16>().0.iter().zip(w.as_chunks::<16>().0);
    for (g, (values, w)) in groups.enumerate() {
        let group = Group::new(values, w, even);
        let peak = group.peak();
        if peak < tiny {
            continue;
        }
        let fit = search::<16, 8, 16, 24>(book, &group, peak, peak / PLAN.top(), &PLAN);
        found.scales[g] = fit.scale.abs();
        for k in 0..2 {
            found.entries[2 * g + k] = fit.entries[k];
            found.signs[2 * g + k] = turned(&fit, group.signs[k]);
        }
    }
    found
}

fn turned(fit: &Fit, signs: u8) -> u8 {
    if fit.scale < 0.0 { !signs } else { signs }
}

/// 256 entries, groups of 32, seven of eight signs.
pub(super) struct Iq2Xxs;

impl Iq2Xxs {
    #[inline(always)]
    fn quantize_block(block: &[f32; LEN], columns: Option<&[f32]>, out: &mut [u8]) {
        let w = weights(block, columns, sum_of_squares(block) / LEN as f32);
        let (values, w) = (block.as_chunks::<32>().0, w.as_chunks::<32>().0);
        let groups: [Group<32>; 8] = std::array::from_fn(|g| Group::new(&values[g], &w[g], true));
        let x: [[f32; 8]; 32] = std::array::from_fn(|i| std::array::from_fn(|g| groups[g].x[i]));
        let w: [[f32; 8]; 32] = std::array::from_fn(|i| std::array::from_fn(|g| groups[g].w[i]));
        let (starts, _) = positive(&x, &w, i32::from(BASE) + 1);
        let (mut scales, mut words) = ([0f32; 8], [[0u32; 2]; 8]);
        for (g, group) in groups.iter().enumerate() {
            let peak = starts[g] * f32::from(BASE);
            if peak <= 0.0 {
                continue;
            }
            let fit = search::<32, 8, 16, 16>(&XXS, group, peak, starts[g], &PLAN_XXS);
            scales[g] = fit.scale.abs();
            for k in 0..4 {
                words[g][0] |= u32::from(fit.entries[k]) << (8 * k);
                words[g][1] |= u32::from(turned(&fit, group.signs[k]) & 127) << (7 * k);
            }
        }
        out.fill(0);
        let Some((step, codes)) = odd_scales(&scales) else {
            return;
        };
        write_f16(step, out);
        for ((words, code), out) in words.iter().zip(codes).zip(out[2..].chunks_exact_mut(8)) {
            out[..4].copy_from_slice(&words[0].to_le_bytes());
            out[4..].copy_from_slice(&(words[1] | u32::from(code) << 28).to_le_bytes());
        }
    }
}

impl Blocks for Iq2Xxs {
    const LEN: usize = LEN;
    const BYTES: usize = 66;
    const GROUP: usize = 32;
    const LEVELS: usize = LEVELS.len();
    const CELLS: &'static [f32] = &CELLS;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        level(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let step = read_f16(block);
        for (g, bytes) in block[2..66].as_chunks::<8>().0.iter().enumerate() {
            let word = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            out.scales[g] = scale(step, (word >> 28) as u8);
            for (k, out) in out.codes[32 * g..][..32].chunks_exact_mut(8).enumerate() {
                unpack_eight(
                    out,
                    grids::IQ2XXS[usize::from(bytes[k])],
                    eight_signs(word >> (7 * k)),
                );
            }
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let blocks = values.as_chunks::<LEN>().0.iter().zip(dst.chunks_exact_mut(66));
        for (i, (block, out)) in blocks.enumerate() {
            Self::quantize_block(block, columns.at(i * LEN, LEN), out);
        }
    }
}

/// 512 entries, groups of 16, seven of eight signs.
pub(super) struct Iq2Xs;

impl Blocks for Iq2Xs {
    const LEN: usize = LEN;
    const BYTES: usize = 74;
    const GROUP: usize = 16;
    const LEVELS: usize = LEVELS.len();
    const CELLS: &'static [f32] = &CELLS;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        level(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let step = read_f16(block);
        for g in 0..16 {
            out.scales[g] = scale(step, block[66 + g / 2] >> (4 * (g % 2)) & 15);
        }
        let words = block[2..66].as_chunks::<2>().0;
        for (word, out) in words.iter().zip(out.codes.chunks_exact_mut(8)) {
            let word = u16::from_le_bytes(*word);
            unpack_eight(
                out,
                grids::IQ2XS[usize::from(word & 511)],
                eight_signs(u32::from(word >> 9)),
            );
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let blocks = values.as_chunks::<LEN>().0.iter().zip(dst.chunks_exact_mut(74));
        for (i, (block, out)) in blocks.enumerate() {
            let w = weights(
                block,
                columns.at(i * LEN, LEN),
                sum_of_squares(block) / LEN as f32,
            );
            let found = sixteen(&XS, block, &w, true, 1e-15);
            out.fill(0);
            let Some((step, codes)) = odd_scales(&found.scales) else {
                continue;
            };
            write_f16(step, out);
            for (k, out) in out[2..66].chunks_exact_mut(2).enumerate() {
                let word = found.entries[k] | u16::from(found.signs[k] & 127) << 9;
                out.copy_from_slice(&word.to_le_bytes());
            }
            pack_scales(&codes, &mut out[66..]);
        }
    }
}

/// 1024 entries, groups of 16, all signs.
pub(super) struct Iq2S;

impl Blocks for Iq2S {
    const LEN: usize = LEN;
    const BYTES: usize = 82;
    const GROUP: usize = 16;
    const LEVELS: usize = LEVELS.len();
    const CELLS: &'static [f32] = &CELLS;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        level(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let step = read_f16(block);
        let (low, signs) = (&block[2..34], &block[34..66]);
        let (high, scales) = (&block[66..74], &block[74..82]);
        for g in 0..16 {
            out.scales[g] = scale(step, scales[g / 2] >> (4 * (g % 2)) & 15);
        }
        for (k, out) in out.codes.chunks_exact_mut(8).enumerate() {
            let top = usize::from(high[k / 4] >> (2 * (k % 4)) & 3);
            unpack_eight(out, grids::IQ2S[usize::from(low[k]) | top << 8], signs[k]);
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let blocks = values.as_chunks::<LEN>().0.iter().zip(dst.chunks_exact_mut(82));
        for (i, (block, out)) in blocks.enumerate() {
            let spread = 2.0 * sum_of_squares(block) / LEN as f32;
            let w = match columns.at(i * LEN, LEN) {
                None => block.map(|v| 0.25 * spread + v * v),
                known => weights(block, known, spread),
            };
            let found = sixteen(&S, block, &w, false, 1e-8);
            out.fill(0);
            for k in 0..32 {
                out[2 + k] = found.entries[k] as u8;
                out[34 + k] = found.signs[k];
                out[66 + k / 4] |= ((found.entries[k] >> 8) as u8) << (2 * (k % 4));
            }
            if let Some((step, codes)) = odd_scales(&found.scales) {
                // The factor makes up for what rounding the scales adds on average.
                write_f16(step * 0.9875, out);
                pack_scales(&codes, &mut out[74..]);
            }
        }
    }
}
