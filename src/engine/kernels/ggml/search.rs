//! Searches for the scale (and minimum) of a group that leave the least weighted error.
//!
//! Owns: the grids and least-squares refits of ggml's k-quants and legacy types. Must not know: block layouts.
//! Source: ggml-org/ggml, `ggml-quants.c` (the order of additions is part of the format's reference output).
//! Invariant: the results of a lane do not depend on the other lanes.
#![expect(
    clippy::needless_range_loop,
    clippy::needless_bitwise_bool,
    reason = "loops over lanes and elements are written alike so that they vectorise alike"
)]

use super::lanes::{clamp, extremes, round};

/// Below this magnitude a group counts as zero.
const TINY: f32 = 1e-15;

/// Candidate grids `x ≈ scale · q − min`, `q` in `0 ..= top`.
pub(super) struct Candidates {
    /// Largest code.
    pub top: f32,
    /// Offset of the first candidate's code range from `top`.
    pub first: f32,
    /// Difference between candidates.
    pub delta: f32,
    /// Index of the last candidate.
    pub last: usize,
}

/// The best grid of each lane.
pub(super) struct Affine<const L: usize> {
    /// Step.
    pub scale: [f32; L],
    /// What is taken away: `x ≈ scale · q − min`.
    pub min: [f32; L],
    inverse: [f32; L],
    origin: [f32; L],
    top: f32,
}

impl<const L: usize> Affine<L> {
    /// The code the search itself gave `value`.
    #[inline(always)]
    pub(super) fn code(&self, lane: usize, value: f32) -> u8 {
        clamp(
            round(self.inverse[lane] * (value - self.origin[lane])),
            0.0,
            self.top,
        ) as u8
    }
}

/// Weighted least squares over candidate grids. `ABSOLUTE` sums weighted magnitudes of errors, not squares.
#[inline(always)]
pub(super) fn affine<const N: usize, const L: usize, const ABSOLUTE: bool>(
    x: &[[f32; L]; N],
    w: &[[f32; L]; N],
    grid: &Candidates,
) -> Affine<L> {
    let (mut low, mut high) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = ([0f32; L], [0f32; L]);
    for i in 0..N {
        for l in 0..L {
            let v = x[i][l];
            low[l] = if v < low[l] { v } else { low[l] };
            high[l] = if v > high[l] { v } else { high[l] };
            sum_w[l] += w[i][l];
            sum_x[l] += w[i][l] * v;
        }
    }
    for l in 0..L {
        low[l] = if low[l] > 0.0 { 0.0 } else { low[l] };
    }
    let bottom = low;
    let (mut inverse, mut scale) = ([0f32; L], [0f32; L]);
    let mut codes = [[0f32; L]; N];
    for l in 0..L {
        inverse[l] = grid.top / (high[l] - low[l]);
        scale[l] = 1.0 / inverse[l];
    }
    for i in 0..N {
        for l in 0..L {
            codes[i][l] = clamp(round(inverse[l] * (x[i][l] - low[l])), 0.0, grid.top);
        }
    }
    let mut least = distance::<N, L, ABSOLUTE>(x, w, &codes, scale, low);
    let mut origin = low;
    for step in 0..=grid.last {
        let range = grid.first + grid.delta * step as f32 + grid.top;
        let mut candidate = [0f32; L];
        for l in 0..L {
            candidate[l] = range / (high[l] - low[l]);
        }
        let (new_scale, new_low, usable) = refit(x, w, low, candidate, grid.top, &mut codes, sum_w, sum_x);
        let error = distance::<N, L, ABSOLUTE>(x, w, &codes, new_scale, new_low);
        for l in 0..L {
            let better = usable[l] & (error[l] < least[l]);
            least[l] = if better { error[l] } else { least[l] };
            scale[l] = if better { new_scale[l] } else { scale[l] };
            inverse[l] = if better { candidate[l] } else { inverse[l] };
            origin[l] = if better { low[l] } else { origin[l] };
            // Later candidates start from the refitted minimum, as in ggml.
            low[l] = if better { new_low[l] } else { low[l] };
        }
    }
    let mut min = [0f32; L];
    for l in 0..L {
        let flat = high[l] <= bottom[l];
        scale[l] = if flat { 0.0 } else { scale[l] };
        inverse[l] = if flat { 0.0 } else { inverse[l] };
        min[l] = -(if flat { bottom[l] } else { low[l] });
    }
    Affine {
        scale,
        min,
        inverse,
        origin,
        top: grid.top,
    }
}

/// Least-squares scale and minimum for the codes a candidate gives; unusable where the codes are all equal.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "the running state of one search, in registers"
)]
fn refit<const N: usize, const L: usize>(
    x: &[[f32; L]; N],
    w: &[[f32; L]; N],
    low: [f32; L],
    candidate: [f32; L],
    top: f32,
    codes: &mut [[f32; L]; N],
    sum_w: [f32; L],
    sum_x: [f32; L],
) -> ([f32; L], [f32; L], [bool; L]) {
    let (mut sum_q, mut sum_qq, mut sum_xq) = ([0f32; L], [0f32; L], [0f32; L]);
    for i in 0..N {
        for l in 0..L {
            let q = clamp(round(candidate[l] * (x[i][l] - low[l])), 0.0, top);
            codes[i][l] = q;
            let wq = w[i][l] * q;
            sum_q[l] += wq;
            sum_qq[l] += wq * q;
            sum_xq[l] += wq * x[i][l];
        }
    }
    let (mut new_scale, mut new_low, mut usable) = ([0f32; L], [0f32; L], [false; L]);
    for l in 0..L {
        let det = sum_w[l] * sum_qq[l] - sum_q[l] * sum_q[l];
        let fitted = (sum_qq[l] * sum_x[l] - sum_q[l] * sum_xq[l]) / det;
        let above = fitted > 0.0;
        new_low[l] = if above { 0.0 } else { fitted };
        new_scale[l] = if above {
            sum_xq[l] / sum_qq[l]
        } else {
            (sum_w[l] * sum_xq[l] - sum_x[l] * sum_q[l]) / det
        };
        usable[l] = det > 0.0;
    }
    (new_scale, new_low, usable)
}

#[inline(always)]
fn distance<const N: usize, const L: usize, const ABSOLUTE: bool>(
    x: &[[f32; L]; N],
    w: &[[f32; L]; N],
    codes: &[[f32; L]; N],
    scale: [f32; L],
    low: [f32; L],
) -> [f32; L] {
    let mut error = [0f32; L];
    for i in 0..N {
        for l in 0..L {
            let e = scale[l] * codes[i][l] + low[l] - x[i][l];
            let e = if ABSOLUTE { e.abs() } else { e * e };
            error[l] += w[i][l] * e;
        }
    }
    error
}

/// The best symmetric grid `x ≈ scale · q`, `q` in `−half .. half`, of each lane.
pub(super) struct Symmetric<const L: usize> {
    /// Step; its sign is that of the grid's longer side.
    pub scale: [f32; L],
    inverse: [f32; L],
    zero: [bool; L],
    half: f32,
}

impl<const L: usize> Symmetric<L> {
    /// The code the search itself gave `value`, `half` added; 0 throughout a group of zeros.
    #[inline(always)]
    pub(super) fn code(&self, lane: usize, value: f32) -> u8 {
        if self.zero[lane] {
            return 0;
        }
        let q = clamp(round(self.inverse[lane] * value), -self.half, self.half - 1.0);
        (q + self.half) as u8
    }
}

/// Weighted least squares over nineteen candidate grids.
#[inline(always)]
pub(super) fn symmetric<const N: usize, const L: usize>(
    x: &[[f32; L]; N],
    w: &[[f32; L]; N],
    half: f32,
) -> Symmetric<L> {
    let (peak, magnitude) = extremes(x);
    let mut wx = [[0f32; L]; N];
    for i in 0..N {
        for l in 0..L {
            wx[i][l] = w[i][l] * x[i][l];
        }
    }
    let mut inverse = [0f32; L];
    for l in 0..L {
        inverse[l] = -half / peak[l];
    }
    let (xq, qq) = products(x, w, &wx, inverse, half);
    let (mut scale, mut best) = ([0f32; L], [0f32; L]);
    for l in 0..L {
        scale[l] = if qq[l] == 0.0 { 0.0 } else { xq[l] / qq[l] };
        best[l] = scale[l] * xq[l];
    }
    for step in (-9i8..=9).filter(|step| *step != 0) {
        let range = -(half + 0.1 * f32::from(step));
        let mut candidate = [0f32; L];
        for l in 0..L {
            candidate[l] = range / peak[l];
        }
        let (xq, qq) = products(x, w, &wx, candidate, half);
        for l in 0..L {
            let better = (qq[l] > 0.0) & (xq[l] * xq[l] > best[l] * qq[l]);
            let fitted = xq[l] / qq[l];
            scale[l] = if better { fitted } else { scale[l] };
            best[l] = if better { fitted * xq[l] } else { best[l] };
            inverse[l] = if better { candidate[l] } else { inverse[l] };
        }
    }
    let mut zero = [false; L];
    for l in 0..L {
        zero[l] = magnitude[l] < TINY;
        scale[l] = if zero[l] { 0.0 } else { scale[l] };
    }
    Symmetric {
        scale,
        inverse,
        zero,
        half,
    }
}

#[inline(always)]
fn products<const N: usize, const L: usize>(
    x: &[[f32; L]; N],
    w: &[[f32; L]; N],
    wx: &[[f32; L]; N],
    inverse: [f32; L],
    half: f32,
) -> ([f32; L], [f32; L]) {
    let (mut xq, mut qq) = ([0f32; L], [0f32; L]);
    for i in 0..N {
        for l in 0..L {
            let q = clamp(round(inverse[l] * x[i][l]), -half, half - 1.0);
            xq[l] += wx[i][l] * q;
            qq[l] += w[i][l] * q * q;
        }
    }
    (xq, qq)
}

/// Coordinate descent on codes in `−half .. half`, weights x². Gives the scale and the codes, `half` added (0 in a
/// group of zeros).
#[inline(always)]
pub(super) fn descent<const N: usize, const L: usize>(
    x: &[[f32; L]; N],
    half: f32,
) -> ([f32; L], [[f32; L]; N]) {
    let (peak, magnitude) = extremes(x);
    let mut codes = [[0f32; L]; N];
    let (mut xq, mut qq) = ([0f32; L], [0f32; L]);
    for i in 0..N {
        for l in 0..L {
            let v = x[i][l];
            let q = clamp(round(-half / peak[l] * v), -half, half - 1.0);
            codes[i][l] = q;
            xq[l] += v * v * v * q;
            qq[l] += v * v * q * q;
        }
    }
    for _ in 0..5 {
        let mut changed = [false; L];
        for i in 0..N {
            for l in 0..L {
                let (v, old) = (x[i][l], codes[i][l]);
                let w = v * v;
                let xq_without = xq[l] - w * v * old;
                let qq_without = qq[l] - w * old * old;
                let q = clamp(round(v * qq_without / xq_without), -half, half - 1.0);
                let xq_with = xq_without + w * v * q;
                let qq_with = qq_without + w * q * q;
                let better = (xq_without > 0.0)
                    & (q != old)
                    & (qq_with > 0.0)
                    & (xq_with * xq_with * qq[l] > xq[l] * xq[l] * qq_with);
                codes[i][l] = if better { q } else { old };
                xq[l] = if better { xq_with } else { xq[l] };
                qq[l] = if better { qq_with } else { qq[l] };
                changed[l] |= better;
            }
        }
        if !changed.contains(&true) {
            break;
        }
    }
    let mut scale = [0f32; L];
    for l in 0..L {
        let zero = magnitude[l] < TINY;
        scale[l] = if zero || qq[l] <= 0.0 { 0.0 } else { xq[l] / qq[l] };
        for lanes in &mut codes {
            lanes[l] = if zero { 0.0 } else { lanes[l] + half };
        }
    }
    (scale, codes)
}
