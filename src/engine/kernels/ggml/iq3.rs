//! IQ3_XXS and IQ3_S: vectors of four from codebooks of 256 and 512 entries, 3.06 and 3.44 bits a weight.
//!
//! Owns: their layouts and quantizers. Must not know: how a codebook is searched.
//! Invariant: groups of 32; a stored scale `s` stands for an odd multiple `2s + 1` of a step.

use super::Columns;
use super::blocks::{Blocks, NONE, Unpacked, cells};
use super::grids;
use super::lanes::sum_of_squares;
use super::lattice::Lattice;
use super::legacy::{read_f16, write_f16};
use super::vectors::{Group, Plan, Refine, eight_signs, odd_scales, search, spread};
use std::sync::LazyLock;

const LEN: usize = 256;
const BASE: u8 = 8;
const GROUP: usize = 32;
const GROUPS: usize = LEN / GROUP;

const LEVELS_XXS: [i8; 16] = [
    -62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62,
];
const CELLS_XXS: [f32; 16] = cells(&LEVELS_XXS);

type Book = LazyLock<Lattice<4, 8>>;

static XXS: Book = LazyLock::new(|| Lattice::new(&grids::IQ3XXS, 3, BASE.into(), 2));
static S: Book = LazyLock::new(|| Lattice::new(&grids::IQ3S, 3, BASE.into(), 3));

const PLAN_XXS: Plan = Plan {
    base: BASE,
    side: 15,
    delta: 0.2,
    refine: Refine::Moved,
};
const PLAN_S: Plan = Plan {
    side: 9,
    refine: Refine::AllIfMoved,
    ..PLAN_XXS
};

/// What was found for a super-block: one scale a group, eight entries and four bytes of signs.
struct Found {
    scales: [f32; GROUPS],
    entries: [[u16; 8]; GROUPS],
    signs: [[u8; 4]; GROUPS],
}

/// `zero` says of a group's peak whether the group counts as zero.
#[inline(always)]
fn find<const C: usize>(
    book: &Lattice<4, 8>,
    plan: &Plan,
    block: &[f32; LEN],
    columns: Option<&[f32]>,
    even: bool,
    zero: impl Fn(f32) -> bool,
) -> Found {
    let spread = 2.0 * sum_of_squares(block) / LEN as f32;
    let w = match columns {
        None => block.map(|v| v * v),
        Some(columns) => std::array::from_fn(|i| columns[i] * (spread + block[i] * block[i]).sqrt()),
    };
    let mut found = Found {
        scales: [0.0; GROUPS],
        entries: [[0; 8]; GROUPS],
        signs: [[0; 4]; GROUPS],
    };
    let groups = block.as_chunks::<GROUP>().0.iter().zip(w.as_chunks::<GROUP>().0);
    for (g, (values, w)) in groups.enumerate() {
        let group = Group::new(values, w, even);
        let peak = group.peak();
        if zero(peak) {
            continue;
        }
        let fit = search::<GROUP, 4, 8, C>(book, &group, peak, peak / plan.top(), plan);
        found.scales[g] = fit.scale.abs();
        found.entries[g] = fit.entries;
        found.signs[g] = group.signs.map(|s| if fit.scale < 0.0 { !s } else { s });
    }
    found
}

#[inline(always)]
fn unpack_eight(out: &mut [u8], pair: [u16; 2], signs: u8) {
    spread(out, |j| (pair[j / 4] >> (3 * (j % 4)) & 7) as u8, BASE, signs);
}

/// 256 entries, seven of eight signs.
pub(super) struct Iq3Xxs;

impl Blocks for Iq3Xxs {
    const LEN: usize = LEN;
    const BYTES: usize = 98;
    const GROUP: usize = GROUP;
    const LEVELS: usize = 16;
    const CELLS: &'static [f32] = &CELLS_XXS;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(LEVELS_XXS[usize::from(code & 15)])
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let (step, indices) = (read_f16(block), &block[2..66]);
        for (g, word) in block[66..98].as_chunks::<4>().0.iter().enumerate() {
            let word = u32::from_le_bytes(*word);
            out.scales[g] = (step * (0.5 + (word >> 28) as f32) * 0.5, NONE);
            for (k, out) in out.codes[GROUP * g..][..GROUP].chunks_exact_mut(8).enumerate() {
                let at = 8 * g + 2 * k;
                let pair = [indices[at], indices[at + 1]].map(|index| grids::IQ3XXS[usize::from(index)]);
                unpack_eight(out, pair, eight_signs(word >> (7 * k)));
            }
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let blocks = values.as_chunks::<LEN>().0.iter().zip(dst.chunks_exact_mut(98));
        for (i, (block, out)) in blocks.enumerate() {
            let columns = columns.at(i * LEN, LEN);
            let found = find::<32>(&XXS, &PLAN_XXS, block, columns, true, |peak| peak < 1e-8);
            out.fill(0);
            let Some((step, codes)) = odd_scales(&found.scales) else {
                continue;
            };
            // The factor makes up for what rounding the scales takes away on average.
            write_f16(step * 1.0125, out);
            for g in 0..GROUPS {
                let mut word = u32::from(codes[g]) << 28;
                for (k, signs) in found.signs[g].iter().enumerate() {
                    word |= u32::from(signs & 127) << (7 * k);
                }
                out[2 + 8 * g..][..8].copy_from_slice(&found.entries[g].map(|entry| entry as u8));
                out[66 + 4 * g..][..4].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

/// 512 entries, all signs.
///
/// ggml's quantizer forgets to leave room for a group of zeros, so that the groups after it are stored one place too
/// early and read back wrong. Here each group is in its place: the bytes differ in such a super-block, and only there.
pub(super) struct Iq3S;

const CELLS_S: [f32; 16] = [
    1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0,
];

impl Blocks for Iq3S {
    const LEN: usize = LEN;
    const BYTES: usize = 110;
    const GROUP: usize = GROUP;
    const LEVELS: usize = 16;
    const CELLS: &'static [f32] = &CELLS_S;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        2.0 * f32::from(code) - 15.0
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let (step, low, high) = (read_f16(block), &block[2..66], &block[66..74]);
        let (signs, scales) = (&block[74..106], &block[106..110]);
        for g in 0..GROUPS {
            let code = scales[g / 2] >> (4 * (g % 2)) & 15;
            out.scales[g] = (step * f32::from(1 + 2 * code), NONE);
        }
        for (k, out) in out.codes.chunks_exact_mut(8).enumerate() {
            let pair = std::array::from_fn(|half| {
                let at = 2 * k + half;
                let top = usize::from(high[at / 8] >> (at % 8) & 1);
                grids::IQ3S[usize::from(low[at]) | top << 8]
            });
            unpack_eight(out, pair, signs[k]);
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let blocks = values.as_chunks::<LEN>().0.iter().zip(dst.chunks_exact_mut(110));
        for (i, (block, out)) in blocks.enumerate() {
            let columns = columns.at(i * LEN, LEN);
            let found = find::<24>(&S, &PLAN_S, block, columns, false, |peak| peak == 0.0);
            out.fill(0);
            for g in 0..GROUPS {
                for (k, entry) in found.entries[g].iter().enumerate() {
                    out[2 + 8 * g + k] = *entry as u8;
                    out[66 + g] |= ((entry >> 8) as u8) << k;
                }
                out[74 + 4 * g..][..4].copy_from_slice(&found.signs[g]);
            }
            if let Some((step, codes)) = odd_scales(&found.scales) {
                // As above.
                write_f16(step * 1.033, out);
                for (byte, pair) in out[106..].iter_mut().zip(codes.as_chunks::<2>().0) {
                    *byte = pair[0] | pair[1] << 4;
                }
            }
        }
    }
}
