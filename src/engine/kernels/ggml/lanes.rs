//! Groups side by side: lane `l` of every vector belongs to group `l`.
//!
//! Owns: the transposition and rounding that the searches share. Must not know: block layouts.
//! Invariant: a lane sees the additions of its group one after another in element order, as a loop over the group
//! would do them. That is what makes the searches both vectorised and equal to ggml's bit for bit.

/// Adding and taking away 1.5 · 2²³ rounds to the nearest whole number, halves to even, below 2²².
pub(super) const MAGIC: f32 = 12_582_912.0;

/// Nearest whole number, halves to even.
#[inline(always)]
pub(super) fn round(value: f32) -> f32 {
    (value + MAGIC) - MAGIC
}

/// The low byte of the nearest whole number; `value` must be within −2²² … 2²².
#[inline(always)]
pub(super) fn round_to_byte(value: f32) -> u8 {
    (value + MAGIC).to_bits() as u8
}

/// Nearest whole number, halves to even, as ggml rounds: beyond ±2²² the result is arbitrary, but it is the same one.
#[inline(always)]
pub(super) fn nearest_int(value: f32) -> i32 {
    ((value + MAGIC).to_bits() & 0x007f_ffff).cast_signed() - 0x0040_0000
}

/// Written so that it becomes one `min` and one `max` instruction.
#[inline(always)]
pub(super) fn clamp(value: f32, low: f32, high: f32) -> f32 {
    let value = if value < high { value } else { high };
    if value > low { value } else { low }
}

/// `out[i][l]` is element `i` of the group that starts at `start(l)`.
#[inline(always)]
pub(super) fn gather<const N: usize, const L: usize>(
    values: &[f32],
    start: impl Fn(usize) -> usize,
) -> [[f32; L]; N] {
    let mut out = [[0.0; L]; N];
    for l in 0..L {
        let group = &values[start(l)..][..N];
        for (lanes, value) in out.iter_mut().zip(group) {
            lanes[l] = *value;
        }
    }
    out
}

/// The value of largest magnitude in each lane (the first of equals), with its sign, and its magnitude.
#[inline(always)]
pub(super) fn extremes<const N: usize, const L: usize>(x: &[[f32; L]; N]) -> ([f32; L], [f32; L]) {
    let (mut signed, mut magnitude) = ([0f32; L], [0f32; L]);
    for lanes in x {
        for l in 0..L {
            let a = lanes[l].abs();
            let larger = a > magnitude[l];
            signed[l] = if larger { lanes[l] } else { signed[l] };
            magnitude[l] = if larger { a } else { magnitude[l] };
        }
    }
    (signed, magnitude)
}

/// `importance · sqrt(spread + x²)`: how much an element's error matters, given the importance of its column.
#[inline(always)]
pub(super) fn importance<const N: usize, const L: usize>(
    x: &[[f32; L]; N],
    column: &[[f32; L]; N],
    spread: [f32; L],
) -> [[f32; L]; N] {
    let mut weights = [[0.0; L]; N];
    for i in 0..N {
        for l in 0..L {
            weights[i][l] = column[i][l] * (spread[l] + x[i][l] * x[i][l]).sqrt();
        }
    }
    weights
}

/// Sums of each lane, in element order.
#[inline(always)]
pub(super) fn sums<const N: usize, const L: usize>(x: &[[f32; L]; N]) -> [f32; L] {
    let mut total = [0.0; L];
    for lanes in x {
        for l in 0..L {
            total[l] += lanes[l];
        }
    }
    total
}

/// Sum of squares in element order.
pub(super) fn sum_of_squares(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |sum, v| sum + v * v)
}
