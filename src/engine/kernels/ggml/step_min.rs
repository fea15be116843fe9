//! The scales and minima of a super-block as small integers: what Q2_K, Q4_K and Q5_K share.
//!
//! Owns: quantizing the groups' scales and minima, choosing codes against them. Must not know: layouts, searches.
//! Invariant: codes are chosen against the scales as they are stored.

use super::lanes::{clamp, round, round_to_byte};
use super::positive::positive;
use super::search::Affine;

/// A scale and a minimum for each of `L` groups.
pub(super) struct StepMin<const L: usize> {
    pub(super) step: f32,
    pub(super) min_step: f32,
    pub(super) scales: [u8; L],
    pub(super) mins: [u8; L],
}

impl<const L: usize> StepMin<L> {
    /// The largest scale and the largest minimum take the top code.
    #[inline(always)]
    pub(super) fn by_largest(fit: &Affine<L>, top: f32) -> Self {
        let (scale, min) = (largest(&fit.scale), largest(&fit.min));
        Self {
            step: scale / top,
            min_step: min / top,
            scales: parts(&fit.scale, scale, top),
            mins: parts(&fit.min, min, top),
        }
    }

    /// The steps of least squared error over the groups, each by its weight.
    #[inline(always)]
    pub(super) fn by_weight(fit: &Affine<L>, weights: &[f32; L], top: f32) -> Self {
        // Scales and minima side by side.
        let x = std::array::from_fn(|l| [fit.scale[l], fit.min[l]]);
        let ([step, min_step], codes) = positive::<L, 2>(&x, &weights.map(|w| [w; 2]), top as i32);
        Self {
            step,
            min_step,
            scales: codes.map(|pair| pair[0]),
            mins: codes.map(|pair| pair[1]),
        }
    }

    /// Codes of group `l` against the stored steps; a group without a scale keeps those of the fit.
    #[inline(always)]
    pub(super) fn codes(
        &self,
        fit: &Affine<L>,
        l: usize,
        stored: (f32, f32),
        top: f32,
        values: &[f32],
        out: &mut [u8],
    ) {
        let d = stored.0 * f32::from(self.scales[l]);
        let m = stored.1 * f32::from(self.mins[l]);
        for (code, v) in out.iter_mut().zip(values) {
            *code = if d == 0.0 {
                fit.code(l, *v)
            } else {
                round_to_byte(clamp(round((v + m) / d), 0.0, top))
            };
        }
    }
}

#[inline(always)]
fn largest<const L: usize>(values: &[f32; L]) -> f32 {
    values.iter().fold(0.0, |m, v| if *v > m { *v } else { m })
}

#[inline(always)]
fn parts<const L: usize>(values: &[f32; L], largest: f32, top: f32) -> [u8; L] {
    let inverse = if largest > 0.0 { top / largest } else { 0.0 };
    values.map(|v| clamp(round(inverse * v), 0.0, top) as u8)
}
