//! Types with blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! Owns: their layouts and quantizers. Must not know: super-blocks.
//! Invariant: element `j` and element `j + 16` share a byte, the fifth bits lie apart.

use super::Columns;
use super::blocks::{Blocks, NONE, Unpacked};
use super::lanes::{MAGIC, gather, importance, sum_of_squares};
use super::search::{Candidates, affine, symmetric};
use half::f16;

const LEN: usize = 32;
/// Blocks searched side by side.
const LANES: usize = 8;

pub(super) fn read_f16(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

pub(super) fn write_f16(value: f32, bytes: &mut [u8]) -> f32 {
    let rounded = f16::from_f32(value);
    bytes[..2].copy_from_slice(&rounded.to_le_bytes());
    rounded.to_f32()
}

/// Low and high nibbles: element `j` and element `j + 16`.
#[inline(always)]
pub(super) fn unpack_nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

#[inline(always)]
pub(super) fn pack_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(bytes.len());
    for ((low, high), byte) in low.iter().zip(high).zip(bytes) {
        *byte = (low & 15) | high << 4;
    }
}

#[inline(always)]
fn unpack_fifth(bits: &[u8], codes: &mut [u8]) {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    for (j, code) in codes.iter_mut().enumerate() {
        *code |= ((bits >> j & 1) as u8) << 4;
    }
}

#[inline(always)]
fn pack_fifth(codes: &[u8; LEN], bits: &mut [u8]) {
    let mut fifth = 0u32;
    for (j, code) in codes.iter().enumerate() {
        fifth |= u32::from(code >> 4) << j;
    }
    bits.copy_from_slice(&fifth.to_le_bytes());
}

/// The value of largest magnitude, the first of equals: decided by the extremes but for ties.
#[inline(always)]
fn peak(block: &[f32; LEN]) -> f32 {
    let (low, high) = span(block);
    if high == -low {
        return block.iter().copied().find(|v| v.abs() == high).unwrap_or(0.0);
    }
    // A select: which of the two it is cannot be predicted.
    if high > -low { high } else { low }
}

#[inline(always)]
fn span(block: &[f32; LEN]) -> (f32, f32) {
    let (mut low, mut high) = ([block[0]; 16], [block[0]; 16]);
    for part in block.as_chunks::<16>().0 {
        for l in 0..16 {
            low[l] = if part[l] < low[l] { part[l] } else { low[l] };
            high[l] = if part[l] > high[l] { part[l] } else { high[l] };
        }
    }
    // Halving keeps the reduction in vectors.
    let mut width = 8;
    while width > 0 {
        for l in 0..width {
            let (a, b) = (low[l], low[l + width]);
            low[l] = if b < a { b } else { a };
            let (a, b) = (high[l], high[l + width]);
            high[l] = if b > a { b } else { a };
        }
        width /= 2;
    }
    (low[0], high[0])
}

fn inverse(step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}

/// Codes `floor(x · inverse + shift)` up to `top`; the argument is never negative.
#[inline(always)]
fn truncate(block: &[f32; LEN], low: f32, inverse: f32, shift: f32, top: f32) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (code, v) in codes.iter_mut().zip(block) {
        let q = ((v - low) * inverse + shift).trunc();
        let q = if q < top { q } else { top };
        *code = (q + MAGIC).to_bits() as u8;
    }
    codes
}

/// Walks over rows with column importance, some blocks side by side: `each(block index, lanes, first lane unused)`.
fn weighted_rows(
    values: &[f32],
    columns: Columns<'_>,
    mut each: impl FnMut(usize, usize, &[[f32; LANES]; LEN], &[[f32; LANES]; LEN]),
) {
    let Some(weights) = columns.importance else {
        return;
    };
    let per_row = columns.count / LEN;
    for (r, row) in values.chunks_exact(columns.count).enumerate() {
        let spread = [sum_of_squares(row) / columns.count as f32; LANES];
        for first in (0..per_row).step_by(LANES) {
            let lanes = LANES.min(per_row - first);
            let start = |l: usize| (first + l.min(lanes - 1)) * LEN;
            let x = gather(row, start);
            let w = importance(&x, &gather(weights, start), spread);
            each(r * per_row + first, lanes, &x, &w);
        }
    }
}

fn column<const N: usize>(x: &[[f32; LANES]; N], lane: usize, f: impl Fn(f32) -> u8) -> [u8; N] {
    std::array::from_fn(|i| f(x[i][lane]))
}

/// The plain quantizer of a symmetric type, or the searched one where columns have weights.
#[inline(always)]
fn quantize_symmetric<B: Blocks>(
    values: &[f32],
    columns: Columns<'_>,
    dst: &mut [u8],
    half: f32,
    pack: impl Fn(f32, &[u8; LEN], &mut [u8]),
) {
    if columns.importance.is_none() {
        for (block, out) in values
            .as_chunks::<LEN>()
            .0
            .iter()
            .zip(dst.chunks_exact_mut(B::BYTES))
        {
            let step = peak(block) / -half;
            let codes = truncate(block, 0.0, inverse(step), half + 0.5, 2.0 * half - 1.0);
            pack(step, &codes, out);
        }
        return;
    }
    weighted_rows(values, columns, |index, lanes, x, w| {
        let fit = symmetric(x, w, half);
        for l in 0..lanes {
            let codes = column(x, l, |v| fit.code(l, v));
            pack(
                fit.scale[l],
                &codes,
                &mut dst[(index + l) * B::BYTES..][..B::BYTES],
            );
        }
    });
}

/// The same for a type with a minimum.
#[inline(always)]
fn quantize_affine<B: Blocks>(
    values: &[f32],
    columns: Columns<'_>,
    dst: &mut [u8],
    top: f32,
    pack: impl Fn(f32, f32, &[u8; LEN], &mut [u8]),
) {
    if columns.importance.is_none() {
        for (block, out) in values
            .as_chunks::<LEN>()
            .0
            .iter()
            .zip(dst.chunks_exact_mut(B::BYTES))
        {
            let (low, high) = span(block);
            let step = (high - low) / top;
            pack(step, low, &truncate(block, low, inverse(step), 0.5, top), out);
        }
        return;
    }
    let grid = Candidates {
        top,
        first: -0.9,
        delta: 0.05,
        last: 36,
    };
    weighted_rows(values, columns, |index, lanes, x, w| {
        let fit = affine::<LEN, LANES, false>(x, w, &grid);
        for l in 0..lanes {
            let codes = column(x, l, |v| fit.code(l, v));
            let out = &mut dst[(index + l) * B::BYTES..][..B::BYTES];
            pack(fit.scale[l], -fit.min[l], &codes, out);
        }
    });
}

/// Blocks of 32, 4 bits, step.
pub(super) struct Q4_0;

impl Blocks for Q4_0 {
    const LEN: usize = LEN;
    const BYTES: usize = 18;
    const GROUP: usize = LEN;
    const LEVELS: usize = 16;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code) - 8.0
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(block), NONE);
        unpack_nibbles(&block[2..18], &mut out.codes[..LEN]);
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        quantize_symmetric::<Self>(values, columns, dst, 8.0, |step, codes, out| {
            write_f16(step, out);
            pack_nibbles(codes, &mut out[2..]);
        });
    }
}

/// Blocks of 32, 4 bits, step and minimum.
pub(super) struct Q4_1;

impl Blocks for Q4_1 {
    const LEN: usize = LEN;
    const BYTES: usize = 20;
    const GROUP: usize = LEN;
    const LEVELS: usize = 16;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(block), read_f16(&block[2..]));
        unpack_nibbles(&block[4..20], &mut out.codes[..LEN]);
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        quantize_affine::<Self>(values, columns, dst, 15.0, |step, low, codes, out| {
            write_f16(step, out);
            write_f16(low, &mut out[2..]);
            pack_nibbles(codes, &mut out[4..]);
        });
    }
}

/// Blocks of 32, 5 bits, step.
pub(super) struct Q5_0;

impl Blocks for Q5_0 {
    const LEN: usize = LEN;
    const BYTES: usize = 22;
    const GROUP: usize = LEN;
    const LEVELS: usize = 32;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code) - 16.0
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(block), NONE);
        unpack_nibbles(&block[6..22], &mut out.codes[..LEN]);
        unpack_fifth(&block[2..6], &mut out.codes[..LEN]);
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        quantize_symmetric::<Self>(values, columns, dst, 16.0, |step, codes, out| {
            write_f16(step, out);
            pack_fifth(codes, &mut out[2..6]);
            pack_nibbles(codes, &mut out[6..]);
        });
    }
}

/// Blocks of 32, 5 bits, step and minimum.
pub(super) struct Q5_1;

impl Blocks for Q5_1 {
    const LEN: usize = LEN;
    const BYTES: usize = 24;
    const GROUP: usize = LEN;
    const LEVELS: usize = 32;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code)
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(block), read_f16(&block[2..]));
        unpack_nibbles(&block[8..24], &mut out.codes[..LEN]);
        unpack_fifth(&block[4..8], &mut out.codes[..LEN]);
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        quantize_affine::<Self>(values, columns, dst, 31.0, |step, low, codes, out| {
            write_f16(step, out);
            write_f16(low, &mut out[2..]);
            pack_fifth(codes, &mut out[4..8]);
            pack_nibbles(codes, &mut out[8..]);
        });
    }
}

/// Blocks of 32, 8 bits, step.
pub(super) struct Q8_0;

impl Blocks for Q8_0 {
    const LEN: usize = LEN;
    const BYTES: usize = 34;
    const GROUP: usize = LEN;
    const LEVELS: usize = 256;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code) - 128.0
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scales[0] = (read_f16(block), NONE);
        for (code, byte) in out.codes[..LEN].iter_mut().zip(&block[2..34]) {
            *code = byte ^ 0x80;
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], _columns: Columns<'_>, dst: &mut [u8]) {
        for (block, out) in values.as_chunks::<LEN>().0.iter().zip(dst.chunks_exact_mut(34)) {
            let (low, high) = span(block);
            // Taken from 0, so that a block of zeros has no step of −0.
            let step = if high > -low { high } else { 0.0 - low } / 127.0;
            let inverse = inverse(step);
            write_f16(step, out);
            for (code, v) in out[2..].iter_mut().zip(block) {
                // Halves away from zero: 0.49999997 is the largest f32 below one half.
                let q = v * inverse;
                *code = ((q + 0.49999997f32.copysign(q)).trunc() + MAGIC).to_bits() as u8;
            }
        }
    }
}
