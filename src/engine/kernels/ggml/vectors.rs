//! The search for the scale of a group whose elements are coded as vectors of a codebook.
//!
//! Owns: signs, candidate scales, refits. Must not know: block layouts.
//! Source: ggml-org/ggml, `ggml-quants.c`. Invariant: the bytes are those of the reference, so sums run over a group in
//! element order; candidates, which do not depend on each other, are what runs side by side.
#![expect(
    clippy::needless_range_loop,
    reason = "loops over candidates and elements are written so that they vectorise"
)]

use super::lanes::nearest_int;
use super::lattice::Lattice;

/// Most vectors in a group.
const VECTORS: usize = 8;

/// Magnitudes of a group's elements and how much each matters.
pub(super) struct Group<const N: usize> {
    pub x: [f32; N],
    pub w: [f32; N],
    roots: [f32; N],
    /// Signs of eight elements each.
    pub signs: [u8; 4],
}

impl<const N: usize> Group<N> {
    /// Takes the signs off. With `even`, the number of minus signs in eight elements is made even, by turning round
    /// the element that matters least: seven bits then tell all eight.
    #[inline(always)]
    pub(super) fn new(values: &[f32; N], w: &[f32; N], even: bool) -> Self {
        let mut group = Self {
            x: values.map(|v| if v >= 0.0 { v } else { -v }),
            w: *w,
            roots: w.map(f32::sqrt),
            signs: [0; 4],
        };
        for (k, (values, w)) in values
            .as_chunks::<8>()
            .0
            .iter()
            .zip(w.as_chunks::<8>().0)
            .enumerate()
        {
            let mut signs = 0u8;
            for (i, v) in values.iter().enumerate() {
                signs |= u8::from(*v < 0.0) << i;
            }
            if even && signs.count_ones() % 2 == 1 {
                let least = least_costly(values, w);
                group.x[8 * k + least] = -group.x[8 * k + least];
                signs ^= 1 << least;
            }
            group.signs[k] = signs;
        }
        group
    }

    /// The largest magnitude.
    #[inline(always)]
    pub(super) fn peak(&self) -> f32 {
        self.x[1..]
            .iter()
            .fold(self.x[0], |m, v| if m > *v { m } else { *v })
    }
}

fn least_costly(values: &[f32; 8], w: &[f32; 8]) -> usize {
    let cost: [f32; 8] = std::array::from_fn(|i| w[i] * values[i] * values[i]);
    (1..8).fold(0, |least, i| if cost[i] < cost[least] { i } else { least })
}

/// Which vectors are rounded again to the best candidate's scale.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Refine {
    /// Those that were not entries of the codebook.
    Moved,
    /// All, if one was not.
    AllIfMoved,
    All,
}

/// How a type searches.
pub(super) struct Plan {
    /// Digits are below this.
    pub base: u8,
    /// Candidates on each side of the middle one, and the distance between them in levels.
    pub side: usize,
    pub delta: f32,
    pub refine: Refine,
}

impl Plan {
    /// The largest level.
    pub(super) fn top(&self) -> f32 {
        f32::from(2 * self.base - 1)
    }
}

/// Scale and entries of a group. The scale can be below zero: then all signs are to be turned round.
pub(super) struct Fit {
    pub scale: f32,
    pub entries: [u16; VECTORS],
}

/// Candidate scales put the top level at `peak`, and below and above it; `start` is the scale if none is any good.
/// `C` is the number of candidates, rounded up to whole vectors.
#[inline(always)]
pub(super) fn search<const N: usize, const D: usize, const W: usize, const C: usize>(
    lattice: &Lattice<D, W>,
    group: &Group<N>,
    peak: f32,
    start: f32,
    plan: &Plan,
) -> Fit {
    let mut entries = [[0u16; VECTORS]; C];
    let mut exact = [0u8; C];
    let mut levels = [[0u8; C]; N];
    for c in 0..=2 * plan.side {
        let offset = (c as i32 - plan.side as i32) as f32;
        let inverse = (plan.top() + offset * plan.delta) / peak;
        let step = 1.0 / inverse;
        let digits = digits(&group.x, inverse, plan.base);
        for (k, digits) in digits.as_chunks::<D>().0.iter().enumerate() {
            let (x, w) = (vector(&group.x, k), vector(&group.roots, k));
            let found = lattice.find(digits, x, w, step);
            entries[c][k] = found.entry;
            exact[c] |= u8::from(found.exact) << k;
            let levels = &mut levels[D * k..][..D];
            for (row, level) in levels.iter_mut().zip(lattice.levels(found.entry)) {
                row[c] = *level;
            }
        }
    }
    let (xq, qq) = products(group, &levels);
    let mut fit = Fit {
        scale: start,
        entries: [0; VECTORS],
    };
    let all = (0..N / D).fold(0u8, |mask, k| mask | 1 << k);
    let mut kept = if plan.refine == Refine::Moved { all } else { 0 };
    let mut best = 0.0;
    for c in 0..=2 * plan.side {
        if qq[c] > 0.0 && xq[c] * xq[c] > best * qq[c] {
            fit.scale = xq[c] / qq[c];
            best = fit.scale * xq[c];
            fit.entries = entries[c];
            kept = exact[c];
        }
    }
    let again = match plan.refine {
        Refine::Moved => all & !kept,
        Refine::AllIfMoved if kept == all => 0,
        Refine::AllIfMoved | Refine::All => all,
    };
    if again != 0 && fit.scale > 0.0 {
        refit(lattice, group, plan.base, again, &mut fit);
    }
    fit
}

/// Rounds the vectors in the mask to the scale found, then fits the scale to all of them.
#[inline(always)]
fn refit<const N: usize, const D: usize, const W: usize>(
    lattice: &Lattice<D, W>,
    group: &Group<N>,
    base: u8,
    again: u8,
    fit: &mut Fit,
) {
    let digits = digits(&group.x, 1.0 / fit.scale, base);
    let mut levels = [[0u8; 1]; N];
    for (k, digits) in digits.as_chunks::<D>().0.iter().enumerate() {
        if again >> k & 1 == 1 {
            let (x, w) = (vector(&group.x, k), vector(&group.roots, k));
            fit.entries[k] = lattice.find(digits, x, w, fit.scale).entry;
        }
        let levels = &mut levels[D * k..][..D];
        for (row, level) in levels.iter_mut().zip(lattice.levels(fit.entries[k])) {
            row[0] = *level;
        }
    }
    let ([xq], [qq]) = products(group, &levels);
    if qq > 0.0 {
        fit.scale = xq / qq;
    }
}

/// The numerator and the denominator of each candidate's best scale.
#[inline(always)]
fn products<const N: usize, const C: usize>(group: &Group<N>, levels: &[[u8; C]; N]) -> ([f32; C], [f32; C]) {
    let (mut xq, mut qq) = ([0f32; C], [0f32; C]);
    for i in 0..N {
        let (w, wx) = (group.w[i], group.w[i] * group.x[i]);
        for c in 0..C {
            let q = f32::from(levels[i][c]);
            xq[c] += wx * q;
            qq[c] += w * q * q;
        }
    }
    (xq, qq)
}

/// Digit `d` stands for level `2d + 1`.
#[inline(always)]
fn digits<const N: usize>(x: &[f32; N], inverse: f32, base: u8) -> [u8; N] {
    let mut out = [0; N];
    for i in 0..N {
        out[i] = nearest_int(0.5 * (inverse * x[i] - 1.0)).clamp(0, i32::from(base) - 1) as u8;
    }
    out
}

#[inline(always)]
fn vector<const N: usize, const D: usize>(values: &[f32; N], k: usize) -> &[f32; D] {
    &values.as_chunks::<D>().0[k]
}

/// Scales of the groups of a super-block as odd multiples of a step: step, and codes of 4 bits. `None` where all are 0.
#[inline(always)]
pub(super) fn odd_scales<const L: usize>(scales: &[f32; L]) -> Option<(f32, [u8; L])> {
    let largest = scales.iter().fold(0f32, |m, v| if m > *v { m } else { *v });
    if largest == 0.0 {
        return None;
    }
    let step = largest / 31.0;
    let inverse = 1.0 / step;
    Some((
        step,
        scales.map(|scale| nearest_int(0.5 * (inverse * scale - 1.0)).clamp(0, 15) as u8),
    ))
}

/// Codes of eight elements as [`super::blocks::Blocks`] has them: negative levels first, `half` of each sign.
#[inline(always)]
pub(super) fn spread(out: &mut [u8], digits: impl Fn(usize) -> u8, half: u8, signs: u8) {
    for (j, code) in out.iter_mut().enumerate().take(8) {
        let digit = digits(j);
        *code = if signs >> j & 1 == 1 {
            half - 1 - digit
        } else {
            half + digit
        };
    }
}

/// Eight signs from seven bits: the eighth makes the number of minus signs even.
pub(super) fn eight_signs(seven: u32) -> u8 {
    let bits = (seven & 127) as u8;
    bits | (bits.count_ones() as u8 & 1) << 7
}
