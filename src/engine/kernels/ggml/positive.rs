//! Scales that are never negative, as small integers.
//!
//! Owns: ggml's weighted search for their common step. Must not know: what the scales belong to.
//! Invariant: the results of a lane do not depend on the other lanes. Codes are bytes and wrap as the reference's do,
//! because a value below zero can be among those searched.
#![expect(
    clippy::needless_bitwise_bool,
    reason = "a lazy operator would be a branch in each lane"
)]

use super::lanes::nearest_int;

/// Below this a lane counts as zero.
const TINY: f32 = 1e-15;

/// Quantizes each lane to `0 ..= top` with weights; gives the steps and the codes.
#[inline(always)]
pub(super) fn positive<const N: usize, const L: usize>(
    x: &[[f32; L]; N],
    w: &[[f32; L]; N],
    top: i32,
) -> ([f32; L], [[u8; L]; N]) {
    let mut peak = [0f32; L];
    for lanes in x {
        for l in 0..L {
            peak[l] = if peak[l] > lanes[l] { peak[l] } else { lanes[l] };
        }
    }
    let inverse = best_inverse(x, w, top, &peak);
    let mut codes = [[0i32; L]; N];
    let (mut xq, mut qq) = ([0f32; L], [0f32; L]);
    for i in 0..N {
        for l in 0..L {
            let q = nearest_int(inverse[l] * x[i][l]).min(top);
            codes[i][l] = q & 255;
            xq[l] += w[i][l] * x[i][l] * q as f32;
            qq[l] += w[i][l] * q as f32 * q as f32;
        }
    }
    descend(x, w, top, &mut codes, &mut xq, &mut qq);
    let mut step = [0f32; L];
    let mut bytes = [[0u8; L]; N];
    for l in 0..L {
        let zero = peak[l] < TINY;
        step[l] = if !zero & (qq[l] > 0.0) { xq[l] / qq[l] } else { 0.0 };
        for i in 0..N {
            bytes[i][l] = if zero { 0 } else { codes[i][l] as u8 };
        }
    }
    (step, bytes)
}

/// The inverse step of least weighted squared error among nine.
#[inline(always)]
fn best_inverse<const N: usize, const L: usize>(
    x: &[[f32; L]; N],
    w: &[[f32; L]; N],
    top: i32,
    peak: &[f32; L],
) -> [f32; L] {
    let (mut inverse, mut least) = ([0f32; L], [0f32; L]);
    for l in 0..L {
        inverse[l] = top as f32 / peak[l];
    }
    for i in 0..N {
        for l in 0..L {
            let q = nearest_int(inverse[l] * x[i][l]) & 255;
            let e = x[i][l] - 1.0 / inverse[l] * q as f32;
            least[l] += w[i][l] * e * e;
        }
    }
    for offset in (-4i8..=4).filter(|offset| *offset != 0) {
        let (mut candidate, mut error) = ([0f32; L], [0f32; L]);
        for l in 0..L {
            candidate[l] = (0.1 * f32::from(offset) + top as f32) / peak[l];
        }
        for i in 0..N {
            for l in 0..L {
                let q = nearest_int(candidate[l] * x[i][l]).min(top);
                let e = x[i][l] - 1.0 / candidate[l] * q as f32;
                error[l] += w[i][l] * e * e;
            }
        }
        for l in 0..L {
            let better = error[l] < least[l];
            least[l] = if better { error[l] } else { least[l] };
            inverse[l] = if better { candidate[l] } else { inverse[l] };
        }
    }
    inverse
}

/// Changes one code at a time while that lessens the error, at most five times round.
#[inline(always)]
fn descend<const N: usize, const L: usize>(
    x: &[[f32; L]; N],
    w: &[[f32; L]; N],
    top: i32,
    codes: &mut [[i32; L]; N],
    xq: &mut [f32; L],
    qq: &mut [f32; L],
) {
    for _ in 0..5 {
        let mut changed = [false; L];
        for i in 0..N {
            for l in 0..L {
                let (old, wx) = (codes[i][l] as f32, w[i][l] * x[i][l]);
                let xq_without = xq[l] - wx * old;
                let qq_without = qq[l] - w[i][l] * old * old;
                let code = nearest_int(x[i][l] * qq_without / xq_without).min(top);
                let new = code as f32;
                let xq_with = xq_without + wx * new;
                let qq_with = qq_without + w[i][l] * new * new;
                let better = (xq_without > 0.0)
                    & (qq_without > 0.0)
                    & (new != old)
                    & (xq_with * xq_with * qq[l] > xq[l] * xq[l] * qq_with);
                codes[i][l] = if better { code & 255 } else { codes[i][l] };
                xq[l] = if better { xq_with } else { xq[l] };
                qq[l] = if better { qq_with } else { qq[l] };
                changed[l] |= better;
            }
        }
        if !changed.contains(&true) {
            break;
        }
    }
}
