//! A layer's Hessian, prepared for a solve.
//!
//! Owns: damping, the order of columns, and the factor of the inverse. Must not know: weights.
//! Invariant: the bits do not depend on the number of threads.

use super::ActOrder;
use crate::error::{Error, Result};
use crate::kernels::check_finite;
use crate::kernels::cholesky::inverse_factor;
use rayon::prelude::*;

/// How often damping is raised before giving up.
const ATTEMPTS: usize = 6;

/// What the curvature of a layer's loss says, prepared for a solve; layers that read the same input share it.
#[derive(Clone, Debug)]
pub struct Curvature {
    /// Inputs.
    pub n: usize,
    /// How much each column counts when a group's grid is chosen, in the order of the checkpoint.
    pub(super) importance: Vec<f32>,
    /// Order in which columns are quantized: position → column.
    pub(super) order: Vec<u32>,
    /// U, `UᵀU` = (`XᵀX` + damping)⁻¹, in that order, row-major; none where it cannot be had.
    pub(super) factor: Option<Vec<f32>>,
    /// Part of the mean diagonal that was added in the end.
    pub damp_percent: f64,
    /// Inputs that were zero throughout.
    pub dead: usize,
}

impl Curvature {
    /// Damps, orders and factorizes `XᵀX` of `[n, n]`; with `by_hessian`, its diagonal also weighs the search for grids.
    pub fn new(
        gram: &[f32],
        n: usize,
        damp: f64,
        act_order: ActOrder,
        by_hessian: bool,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self> {
        check_finite(gram, 0).map_err(|_nan| {
            Error::numeric(
                "non_finite_activations",
                "the inputs of this layer hold NaN or infinities: the model overflows on the calibration data",
            )
        })?;
        let diagonal: Vec<f32> = (0..n).map(|i| gram[i * n + i]).collect();
        let mut order: Vec<u32> = (0..n as u32).collect();
        if act_order != ActOrder::None {
            order.sort_by(|a, b| {
                diagonal[*b as usize]
                    .total_cmp(&diagonal[*a as usize])
                    .then(a.cmp(b))
            });
        }
        let dead = diagonal.iter().filter(|d| **d == 0.0).count();
        let mean = diagonal.iter().map(|d| f64::from(*d)).sum::<f64>() / n.max(1) as f64;
        let mut curvature = Self {
            n,
            importance: if by_hessian { diagonal } else { vec![1.0; n] },
            order,
            factor: None,
            damp_percent: damp,
            dead,
        };
        for attempt in 0..ATTEMPTS {
            curvature.damp_percent = damp * 10f64.powi(attempt as i32);
            let factor = inverse_factor(curvature.damped(gram, mean), n, stop);
            if stop() {
                return Err(Error::cancelled());
            }
            if let Some(factor) = factor {
                let factor: Vec<f32> = factor.into_par_iter().map(|v| v as f32).collect();
                if check_finite(&factor, 0).is_ok() {
                    curvature.factor = Some(factor);
                    break;
                }
            }
        }
        Ok(curvature)
    }

    /// U, `UᵀU` = (`XᵀX` + damping)⁻¹, in the order of columns, row-major; none where it cannot be had.
    pub fn factor(&self) -> Option<&[f32]> {
        self.factor.as_deref()
    }

    /// How much each column counts, in the order of the checkpoint: the diagonal of `XᵀX` where that was asked for.
    pub fn importance(&self) -> &[f32] {
        &self.importance
    }

    /// False where even strong damping did not help: weights are then rounded to nearest.
    pub fn is_usable(&self) -> bool {
        self.factor.is_some()
    }

    /// The damped Hessian's lower triangle, last column of the order first.
    fn damped(&self, gram: &[f32], mean: f64) -> Vec<f64> {
        let n = self.n;
        let add = self.damp_percent * mean;
        let mut reversed = vec![0.0; n * n];
        let rows = reversed.par_chunks_mut(n.max(1)).zip(self.order.par_iter().rev());
        rows.enumerate().for_each(|(i, (row, a))| {
            let from = &gram[*a as usize * n..][..n];
            for (value, b) in row[..=i].iter_mut().zip(self.order.iter().rev()) {
                *value = f64::from(from[*b as usize]);
            }
            // An input that never was anything else than 0 says nothing: its weight is rounded by itself.
            if row[i] == 0.0 {
                row[i] = if mean > 0.0 { mean } else { 1.0 };
            }
            row[i] += add;
        });
        reversed
    }
}
