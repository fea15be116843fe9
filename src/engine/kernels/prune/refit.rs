//! What is left of a pruned matrix, fitted again: least squares of the outputs over the weights that stayed.
//!
//! Owns: conjugate gradients on one matrix, a row by itself (the layer-wise problem of Hubara et al. 2021 and Meng et al.
//! 2024). Must not know: how zeros were chosen.
//! Invariant: zeros stay zeros; the error of the outputs never grows; the bits do not depend on the number of threads.

use crate::error::{Error, Result};
use crate::kernels::linalg::{Into, View, product};
use crate::kernels::sum_over_pairs;
use rayon::prelude::*;

/// Rows that one task fits.
const ROWS: usize = 96;

/// What is fitted to.
#[derive(Clone, Copy, Debug)]
pub struct Refit<'a> {
    /// `XᵀX` of `[n, n]`.
    pub gram: &'a [f32],
    /// Inputs.
    pub n: usize,
    /// What is added to its diagonal, as a part of the diagonal's mean.
    pub damp_percent: f64,
    /// Steps of conjugate gradients.
    pub iterations: usize,
}

/// Moves the weights in `w` that are not zero, `[rows, n]`, so that `X·wᵀ` comes as near to `X·originalᵀ` as the steps lead.
pub fn refit(
    w: &mut [f32],
    original: &[f32],
    by: &Refit<'_>,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<()> {
    let n = by.n.max(1);
    let mean = (0..by.n).map(|i| f64::from(by.gram[i * n + i])).sum::<f64>() / n as f64;
    let damp = (by.damp_percent * mean) as f32;
    let scale: Vec<f32> = (0..by.n).map(|i| by.gram[i * n + i] + damp).collect();
    // Nothing is known of inputs that never were anything else than 0.
    let scale: Vec<f32> = scale
        .iter()
        .map(|d| if *d > 0.0 { 1.0 / d } else { 0.0 })
        .collect();
    let tasks = w.par_chunks_mut(ROWS * n).zip(original.par_chunks(ROWS * n));
    tasks.try_for_each(|(w, original)| {
        let mut descent = Descent::new(by, damp, &scale, w, original);
        for _ in 0..by.iterations {
            if stop() {
                return Err(Error::cancelled());
            }
            descent.step(w);
        }
        Ok(())
    })
}

/// Some rows on their way.
struct Descent<'a> {
    by: &'a Refit<'a>,
    damp: f32,
    scale: &'a [f32],
    /// 1 where a weight may move.
    free: Vec<f32>,
    residual: Vec<f32>,
    direction: Vec<f32>,
    /// `direction · H`.
    image: Vec<f32>,
    /// Of each row: residual · scaled residual.
    energy: Vec<f64>,
}

impl<'a> Descent<'a> {
    fn new(by: &'a Refit<'a>, damp: f32, scale: &'a [f32], w: &[f32], original: &[f32]) -> Self {
        let gap: Vec<f32> = original.iter().zip(w).map(|(a, b)| a - b).collect();
        let mut this = Self {
            by,
            damp,
            scale,
            free: w.iter().map(|w| f32::from(u8::from(*w != 0.0))).collect(),
            residual: vec![0.0; w.len()],
            direction: gap,
            image: vec![0.0; w.len()],
            energy: vec![0.0; w.len() / by.n.max(1)],
        };
        this.apply();
        std::mem::swap(&mut this.residual, &mut this.image);
        for (row, energy) in this.residual.chunks(by.n).zip(&mut this.energy) {
            *energy = scaled_square(row, scale);
        }
        let rows = this.direction.chunks_mut(by.n).zip(this.residual.chunks(by.n));
        rows.for_each(|(d, r)| {
            d.iter_mut()
                .zip(r.iter().zip(scale))
                .for_each(|(d, (r, s))| *d = r * s);
        });
        this
    }

    /// `image = direction · H` where weights may move, 0 elsewhere.
    fn apply(&mut self) {
        let n = self.by.n;
        let rows = self.direction.len() / n;
        let (a, b) = (
            View::rows(&self.direction, rows, n, n),
            View::rows(self.by.gram, n, n, n),
        );
        product(&mut self.image, n, Into::Replace, a, b, 1.0);
        let all = self.image.iter_mut().zip(self.direction.iter().zip(&self.free));
        all.for_each(|(image, (d, free))| *image = (*image + self.damp * d) * free);
    }

    fn step(&mut self, w: &mut [f32]) {
        self.apply();
        let n = self.by.n;
        for (row, energy) in self.energy.iter_mut().enumerate() {
            let at = row * n..(row + 1) * n;
            let (d, image) = (&mut self.direction[at.clone()], &self.image[at.clone()]);
            let curvature = sum_over_pairs(d, image);
            // The row is as good as it gets, or rounding has the last word.
            if !(*energy > 0.0 && curvature > 0.0) {
                d.fill(0.0);
                continue;
            }
            let length = (*energy / curvature) as f32;
            let residual = &mut self.residual[at.clone()];
            w[at].iter_mut().zip(&*d).for_each(|(w, d)| *w += length * d);
            residual.iter_mut().zip(image).for_each(|(r, i)| *r -= length * i);
            let now = scaled_square(residual, self.scale);
            let turn = (now / *energy) as f32;
            let next = d.iter_mut().zip(residual.iter().zip(self.scale));
            next.for_each(|(d, (r, s))| *d = r * s + turn * *d);
            *energy = now;
        }
    }
}

fn scaled_square(values: &[f32], scale: &[f32]) -> f64 {
    let terms = values.iter().zip(scale);
    terms
        .map(|(v, s)| f64::from(*v) * f64::from(*v) * f64::from(*s))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gptq::{ActOrder, Curvature};
    use crate::kernels::linalg::{Gram, Precision, matmul_nt};
    use crate::kernels::prune::{Rule, layer, solve};
    use crate::kernels::random::Random;
    use crate::weight::Pattern;

    const ROWS: usize = 50;
    const COLS: usize = 160;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        let mut one = || (0..6).map(|_| random.share() as f32 - 0.5).sum();
        (0..n).map(|_| one()).collect()
    }

    /// Inputs whose columns go together.
    fn inputs(rows: usize) -> Vec<f32> {
        let mut x = noise(rows * COLS, 7);
        for row in x.chunks_mut(COLS) {
            for c in 1..COLS {
                row[c] = 0.8 * row[c - 1] + row[c] * (1.0 + (c % 7) as f32);
            }
        }
        x
    }

    fn gram(x: &[f32]) -> Vec<f32> {
        let mut gram = Gram::new(COLS);
        gram.add(x, Precision::Full);
        gram.into_full()
    }

    fn output_error(x: &[f32], w: &[f32], back: &[f32]) -> f64 {
        let gap: Vec<f32> = w.iter().zip(back).map(|(a, b)| a - b).collect();
        let mut out = vec![0.0; x.len() / COLS * (w.len() / COLS)];
        matmul_nt(x, &gap, COLS, &mut out, Precision::Full);
        out.iter().map(|v| f64::from(*v).powi(2)).sum()
    }

    fn pruned(w: &[f32], gram: &[f32], pattern: Pattern) -> Vec<f32> {
        let curvature = Curvature::new(gram, COLS, 0.01, ActOrder::None, true, &|| false).unwrap();
        let rule = Rule { pattern, share: 0.5 };
        solve(w.to_vec(), &curvature, rule, &|| false).unwrap().values
    }

    #[test]
    fn compensation_beats_magnitude_and_a_refit_beats_both() {
        let (x, w) = (inputs(2000), noise(ROWS * COLS, 3));
        let gram = gram(&x);
        let mut smallest = w.clone();
        layer(&mut smallest, w.len() / 2, &|_, v| v.abs());
        let compensated = pruned(&w, &gram, Pattern::Unstructured);
        let by = Refit {
            gram: &gram,
            n: COLS,
            damp_percent: 0.001,
            iterations: 10,
        };
        let mut fitted = compensated.clone();
        refit(&mut fitted, &w, &by, &|| false).unwrap();
        let errors = [&smallest, &compensated, &fitted].map(|back| output_error(&x, &w, back));
        assert!(
            errors[1] < 0.6 * errors[0] && errors[2] < 0.95 * errors[1],
            "{errors:?}"
        );
        for values in [&smallest, &compensated, &fitted] {
            assert_eq!(values.iter().filter(|v| **v == 0.0).count(), w.len() / 2);
        }
    }

    #[test]
    fn a_pattern_holds_in_every_run() {
        let (x, w) = (inputs(500), noise(ROWS * COLS, 3));
        let gram = gram(&x);
        for (keep, of) in [(2, 4), (4, 8), (1, 4)] {
            let values = pruned(&w, &gram, Pattern::NOfM { keep, of });
            for run in values.chunks(of) {
                assert_eq!(run.iter().filter(|v| **v != 0.0).count(), keep);
            }
        }
    }

    /// The optimum over a support of one row, by elimination in f64.
    #[test]
    fn enough_steps_lead_to_the_least_squares() {
        let (x, w) = (inputs(400), noise(COLS, 5));
        let gram = gram(&x);
        let mut fitted: Vec<f32> = w.clone();
        (0..COLS).filter(|c| c % 3 != 0).for_each(|c| fitted[c] = 0.0);
        let start = output_error(&x, &w, &fitted);
        let by = Refit {
            gram: &gram,
            n: COLS,
            damp_percent: 0.0,
            iterations: 300,
        };
        refit(&mut fitted, &w, &by, &|| false).unwrap();
        let gradient = |c: usize| -> f64 {
            (0..COLS)
                .map(|k| f64::from(gram[c * COLS + k]) * f64::from(w[k] - fitted[k]))
                .sum()
        };
        let size = (0..COLS).map(|c| f64::from(gram[c * COLS + c])).sum::<f64>() / COLS as f64;
        for c in (0..COLS).step_by(3) {
            assert!(gradient(c).abs() < 1e-4 * size, "{c}: {} of {size}", gradient(c));
        }
        assert!(output_error(&x, &w, &fitted) < start);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let (x, w) = (inputs(300), noise(ROWS * COLS, 3));
        let gram = gram(&x);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let mut values = pruned(&w, &gram, Pattern::Unstructured);
                let by = Refit {
                    gram: &gram,
                    n: COLS,
                    damp_percent: 0.01,
                    iterations: 3,
                };
                refit(&mut values, &w, &by, &|| false).unwrap();
                values
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn inputs_that_are_always_zero_are_pruned_first() {
        let mut x = inputs(300);
        x.chunks_mut(COLS).for_each(|row| row[5] = 0.0);
        let values = pruned(&noise(ROWS * COLS, 3), &gram(&x), Pattern::Unstructured);
        assert!(values.chunks(COLS).all(|row| row[5] == 0.0));
        assert!(values.iter().all(|v| v.is_finite()));
    }
}
