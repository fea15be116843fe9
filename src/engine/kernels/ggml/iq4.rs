//! IQ4_NL and IQ4_XS: 4-bit codes into a fixed non-uniform table.
//!
//! Owns: their layouts and quantizers. Must not know: other types.
//! Invariant: of two neighbouring levels the nearer is chosen, the larger in a tie.
#![expect(
    clippy::needless_bitwise_bool,
    reason = "a lazy operator would be a branch in each lane"
)]

use super::Columns;
use super::blocks::{Blocks, NONE, Unpacked, cells};
use super::lanes::{clamp, extremes, gather, importance, round, sum_of_squares};
use super::legacy::{pack_nibbles, read_f16, unpack_nibbles, write_f16};

const LANES: usize = 8;
const GROUP: usize = 32;

type Lanes = [[f32; LANES]; GROUP];

const LEVELS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];
const CELLS: [f32; 16] = cells(&LEVELS);
/// Where the next level begins to be nearer, and how far it is from the one before.
const STEPS: [(f32, f32); 15] = {
    let mut steps = [(0.0, 0.0); 15];
    let mut i = 0;
    while i < 15 {
        let (low, high) = (LEVELS[i] as f32, LEVELS[i + 1] as f32);
        steps[i] = (f32::midpoint(low, high), high - low);
        i += 1;
    }
    steps
};

/// The level nearest to `value`: fifteen comparisons vectorise, a binary search does not.
#[inline(always)]
fn nearest(value: f32) -> f32 {
    let mut level = f32::from(LEVELS[0]);
    for (threshold, width) in STEPS {
        level += if value >= threshold { width } else { 0.0 };
    }
    level
}

#[inline(always)]
fn code(value: f32) -> u8 {
    STEPS
        .iter()
        .map(|(threshold, _)| u8::from(value >= *threshold))
        .sum()
}

/// The step of each lane with the least weighted squared error.
#[inline(always)]
fn search(x: &Lanes, w: &Lanes) -> [f32; LANES] {
    let (peak, magnitude) = extremes(x);
    let first = f32::from(LEVELS[0]);
    let mut candidate = [0f32; LANES];
    for l in 0..LANES {
        candidate[l] = 1.0 / (-peak[l] / first);
    }
    let (mut scale, mut best) = ([0f32; LANES], [0f32; LANES]);
    let (xq, qq) = products(x, w, candidate);
    for l in 0..LANES {
        scale[l] = if qq[l] > 0.0 { xq[l] / qq[l] } else { 0.0 };
        best[l] = scale[l] * xq[l];
    }
    for step in -7i8..=7 {
        for l in 0..LANES {
            candidate[l] = (f32::from(step) + first) / peak[l];
        }
        let (xq, qq) = products(x, w, candidate);
        for l in 0..LANES {
            let better = (qq[l] > 0.0) & (xq[l] * xq[l] > best[l] * qq[l]);
            let fitted = xq[l] / qq[l];
            scale[l] = if better { fitted } else { scale[l] };
            best[l] = if better { fitted * xq[l] } else { best[l] };
        }
    }
    for l in 0..LANES {
        scale[l] = if magnitude[l] < 1e-15 { 0.0 } else { scale[l] };
    }
    scale
}

#[inline(always)]
fn products(x: &Lanes, w: &Lanes, inverse: [f32; LANES]) -> ([f32; LANES], [f32; LANES]) {
    let (mut xq, mut qq) = ([0f32; LANES], [0f32; LANES]);
    for i in 0..GROUP {
        for l in 0..LANES {
            let q = nearest(inverse[l] * x[i][l]);
            let wq = w[i][l] * q;
            xq[l] += wq * x[i][l];
            qq[l] += wq * q;
        }
    }
    (xq, qq)
}

fn inverse(step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}

#[inline(always)]
fn weights(x: &Lanes, columns: Option<Lanes>, spread: [f32; LANES]) -> Lanes {
    match columns {
        None => x.map(|lanes| lanes.map(|v| v * v)),
        Some(columns) => importance(x, &columns, spread),
    }
}

/// Blocks of 32.
pub(super) struct Iq4Nl;

impl Blocks for Iq4Nl {
    const LEN: usize = GROUP;
    const BYTES: usize = 18;
    const GROUP: usize = GROUP;
    const LEVELS: usize = 16;
    const CELLS: &'static [f32] = &CELLS;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(LEVELS[usize::from(code & 15)])
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(block), NONE);
        unpack_nibbles(&block[2..18], &mut out.codes[..32]);
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let blocks = values.len() / GROUP;
        for first in (0..blocks).step_by(LANES) {
            let lanes = LANES.min(blocks - first);
            let start = |l: usize| (first + l.min(lanes - 1)) * GROUP;
            let x: Lanes = gather(values, start);
            let spread =
                std::array::from_fn(|l| sum_of_squares(&values[start(l)..][..GROUP]) * (2.0 / GROUP as f32));
            let known = columns
                .importance
                .map(|all| gather(all, |l| start(l) % columns.count));
            let scales = search(&x, &weights(&x, known, spread));
            for (l, scale) in scales.iter().enumerate().take(lanes) {
                let out = &mut dst[(first + l) * 18..][..18];
                write_f16(*scale, out);
                let inverse = inverse(*scale);
                let codes: [u8; GROUP] = std::array::from_fn(|i| code(inverse * x[i][l]));
                pack_nibbles(&codes, &mut out[2..]);
            }
        }
    }
}

/// Super-blocks of eight groups with signed 6-bit scales.
pub(super) struct Iq4Xs;

impl Blocks for Iq4Xs {
    const LEN: usize = 256;
    const BYTES: usize = 136;
    const GROUP: usize = GROUP;
    const LEVELS: usize = 16;
    const CELLS: &'static [f32] = &CELLS;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(LEVELS[usize::from(code & 15)])
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let step = read_f16(block);
        let high = u16::from_le_bytes([block[2], block[3]]);
        for (g, scale) in out.scales[..8].iter_mut().enumerate() {
            let low = block[4 + g / 2] >> (4 * (g % 2)) & 15;
            let bits = low | ((high >> (2 * g) & 3) as u8) << 4;
            *scale = (step * (f32::from(bits) - 32.0), NONE);
        }
        for (bytes, codes) in block[8..136].chunks_exact(16).zip(out.codes.chunks_exact_mut(32)) {
            unpack_nibbles(bytes, codes);
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        for (i, (block, out)) in values
            .chunks_exact(256)
            .zip(dst.chunks_exact_mut(136))
            .enumerate()
        {
            let x: Lanes = gather(block, |l| l * GROUP);
            let spread = [sum_of_squares(block) * (2.0 / 256.0); LANES];
            let known = columns
                .at(i * 256, 256)
                .map(|columns| gather(columns, |l| l * GROUP));
            let scales = search(&x, &weights(&x, known, spread));
            let (mut peak, mut magnitude) = (0f32, 0f32);
            for scale in scales {
                if scale.abs() > magnitude {
                    (peak, magnitude) = (scale, scale.abs());
                }
            }
            let step = -peak / 32.0;
            write_f16(step, out);
            let (outer, mut high) = (inverse(step), 0u16);
            out[4..8].fill(0);
            for (g, scale) in scales.iter().enumerate() {
                let s = clamp(round(outer * scale), -32.0, 31.0);
                let inverse = inverse(step * s);
                let codes: [u8; GROUP] = std::array::from_fn(|j| code(inverse * x[j][g]));
                pack_nibbles(&codes, &mut out[8 + 16 * g..][..16]);
                let bits = (s + 32.0) as u8;
                out[4 + g / 2] |= (bits & 15) << (4 * (g % 2));
                high |= u16::from(bits >> 4) << (2 * g);
            }
            out[2..4].copy_from_slice(&high.to_le_bytes());
        }
    }
}
