//! One matrix in place of several, and where a row of blocks is cut into runs that have one.
//!
//! Owns: the least-squares fit over layers that each have inputs of their own, runs of least cost. Must not know: what
//! blocks are.
//! Invariant: the fit's damped error is never more than the mean's; the bits do not depend on the number of threads.

use super::gptq::Curvature;
use super::linalg::{Precision, matmul_nn, matmul_nt};
use super::sum_over_pairs;
use crate::error::{Error, Result};

/// Elements whose products are added up in f32 before f64 goes on.
const STRETCH: usize = 4096;

/// What is known of several matrices `[m, n]` and their inputs, as seen from their mean.
#[derive(Clone, Debug)]
pub struct Sums {
    mean: Vec<f32>,
    /// `Σ (W − mean) XᵀX`.
    pull: Vec<f32>,
    /// Σ of the squared differences of what the mean makes of the inputs.
    gap: f64,
    /// Σ of the squares of what the matrices make of them.
    energy: f64,
}

impl Sums {
    /// Nothing but the mean.
    pub fn new(mean: Vec<f32>) -> Self {
        Self {
            pull: vec![0.0; mean.len()],
            mean,
            gap: 0.0,
            energy: 0.0,
        }
    }

    /// Bytes that it keeps of a matrix.
    pub fn bytes(elements: usize) -> u64 {
        8 * elements as u64
    }

    /// Bytes that [`Sums::add`] takes on top.
    pub fn adding_bytes(elements: usize) -> u64 {
        8 * elements as u64
    }

    /// The mean.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Adds a matrix whose inputs have this `XᵀX` of `[n, n]`.
    pub fn add(&mut self, w: &[f32], gram: &[f32], n: usize) {
        let mut image = vec![0.0; w.len()];
        matmul_nn(w, gram, n, &mut image, Precision::Full);
        self.energy += dot(w, &image);
        let off = minus(w, &self.mean);
        matmul_nn(&off, gram, n, &mut image, Precision::Full);
        self.gap += dot(&off, &image);
        for (pull, image) in self.pull.iter_mut().zip(&image) {
            *pull += image;
        }
    }

    /// The matrix that comes nearest to all of them on their inputs; `curvature` is that of the sum of their `XᵀX`, in the
    /// order of the columns. None where that could not be factorized.
    pub fn fitted(&self, curvature: &Curvature) -> Option<Vec<f32>> {
        let (factor, n) = (curvature.factor()?, curvature.n);
        let mut half = vec![0.0; self.pull.len()];
        matmul_nt(&self.pull, factor, n, &mut half, Precision::Full);
        let mut fitted = vec![0.0; half.len()];
        matmul_nn(&half, factor, n, &mut fitted, Precision::Full);
        fitted.iter_mut().zip(&self.mean).for_each(|(v, m)| *v += m);
        Some(fitted)
    }

    /// The part of the outputs' energy that is wrong with `w` in place of all; `gram` is the sum of their `XᵀX`.
    pub fn error(&self, w: &[f32], gram: &[f32], n: usize) -> f64 {
        let off = minus(w, &self.mean);
        let mut image = vec![0.0; off.len()];
        matmul_nn(&off, gram, n, &mut image, Precision::Full);
        let wrong = self.gap - 2.0 * dot(&off, &self.pull) + dot(&off, &image);
        share(wrong, self.energy)
    }
}

/// The part of the outputs' energy of `w` that is wrong with the mean of it and another in its place.
pub fn halfway_error(w: &[f32], other: &[f32], gram: &[f32], n: usize) -> f64 {
    let mut image = vec![0.0; w.len()];
    matmul_nn(w, gram, n, &mut image, Precision::Full);
    let energy = dot(w, &image);
    let off = minus(w, other);
    matmul_nn(&off, gram, n, &mut image, Precision::Full);
    share(dot(&off, &image) / 4.0, energy)
}

/// The same of the weights themselves.
pub fn halfway_distance(w: &[f32], other: &[f32]) -> f64 {
    let off = minus(w, other);
    share(dot(&off, &off) / 4.0, dot(w, w))
}

fn minus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let stretches = a.chunks(STRETCH).zip(b.chunks(STRETCH));
    stretches.map(|(a, b)| sum_over_pairs(a, b)).sum()
}

fn share(part: f64, of: f64) -> f64 {
    if of > 0.0 { part.max(0.0) / of } else { 0.0 }
}

/// Cuts a row of blocks into `keep` runs so that their costs add up to least; `steps` says how far apart each block and the
/// next are, squared. Answers the first block of each block's run.
///
/// What is apart along a run is taken as a walk whose steps know nothing of each other, so that distances add up: a run's cost
/// is the squared distance of its blocks from their mean. Long runs cost more than the same steps in pairs.
pub fn runs(steps: &[f64], keep: usize, stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u32>> {
    let count = steps.len() + 1;
    let keep = keep.clamp(1, count);
    let longest = count - keep + 1;
    // Of the first `end` blocks in so many runs: the least cost, and how long the last run is then.
    let mut least = vec![f64::INFINITY; count + 1];
    least[0] = 0.0;
    let mut lasts: Vec<Vec<usize>> = Vec::with_capacity(keep);
    for _ in 0..keep {
        if stop() {
            return Err(Error::cancelled());
        }
        let mut next = vec![f64::INFINITY; count + 1];
        let mut last = vec![0; count + 1];
        for end in 1..=count {
            for length in 1..=longest.min(end) {
                let cost = least[end - length] + cost(&steps[end - length..end - 1]);
                if cost < next[end] {
                    (next[end], last[end]) = (cost, length);
                }
            }
        }
        least = next;
        lasts.push(last);
    }
    let mut first = vec![0; count];
    let mut end = count;
    for last in lasts.iter().rev() {
        // Costs that are no numbers leave nothing to choose by.
        let length = last[end].clamp(1, end.max(1));
        let begin = end.saturating_sub(length);
        first[begin..end].fill(begin as u32);
        end = begin;
    }
    Ok(first)
}

/// Of a run with these steps.
fn cost(steps: &[f64]) -> f64 {
    let length = steps.len() + 1;
    let each = |(at, step): (usize, &f64)| step * ((at + 1) * (length - at - 1)) as f64;
    steps.iter().enumerate().map(each).sum::<f64>() / length as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gptq::ActOrder;
    use crate::kernels::linalg::Gram;
    use crate::kernels::random::Random;

    const ROWS: usize = 40;
    const COLS: usize = 64;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        (0..n).map(|_| random.share() as f32 - 0.5).collect()
    }

    /// Inputs in which some columns are much larger than others, not the same for each layer.
    fn inputs(seed: u64) -> Vec<f32> {
        let mut x = noise(500 * COLS, seed);
        for row in x.chunks_mut(COLS) {
            let shared: f32 = row[0];
            for (c, v) in row.iter_mut().enumerate() {
                *v = *v * (1.0 + ((c * 7 + seed as usize * 5) % 11) as f32) + shared;
            }
        }
        x
    }

    fn gram(x: &[f32]) -> Vec<f32> {
        let mut gram = Gram::new(COLS);
        gram.add(x, Precision::Full);
        gram.into_full()
    }

    fn outputs(x: &[f32], w: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / COLS * ROWS];
        matmul_nt(x, w, COLS, &mut out, Precision::Full);
        out
    }

    fn square(values: impl Iterator<Item = f32>) -> f64 {
        values.map(|v| f64::from(v).powi(2)).sum()
    }

    #[test]
    fn the_error_is_that_of_the_outputs_and_the_fit_has_the_least() {
        let layers: Vec<(Vec<f32>, Vec<f32>)> = (1..4)
            .map(|seed| (noise(ROWS * COLS, seed), inputs(seed + 10)))
            .collect();
        let mut mean = vec![0.0; ROWS * COLS];
        for (w, _) in &layers {
            mean.iter_mut().zip(w).for_each(|(m, w)| *m += w / 3.0);
        }
        let (mut sums, mut all) = (Sums::new(mean.clone()), vec![0.0; COLS * COLS]);
        for (w, x) in &layers {
            let gram = gram(x);
            sums.add(w, &gram, COLS);
            all.iter_mut().zip(&gram).for_each(|(a, g)| *a += g);
        }
        let curvature = Curvature::new(&all, COLS, 1e-4, ActOrder::None, true, &|| false).unwrap();
        let fitted = sums.fitted(&curvature).unwrap();
        let measured = |shared: &[f32]| {
            let (mut wrong, mut energy) = (0.0, 0.0);
            for (w, x) in &layers {
                let (right, out) = (outputs(x, w), outputs(x, shared));
                wrong += square(right.iter().zip(&out).map(|(a, b)| a - b));
                energy += square(right.iter().copied());
            }
            wrong / energy
        };
        for w in [&mean, &layers[0].0, &fitted] {
            let (right, told) = (measured(w), sums.error(w, &all, COLS));
            assert!((right - told).abs() < 1e-4 * right.max(0.1), "{right} {told}");
        }
        assert!(measured(&fitted) < 0.98 * measured(&mean));
        assert!(measured(&mean) < measured(&layers[0].0));
        // Any step away from the fit is a step up.
        let mut moved = fitted;
        moved[17] += 0.05;
        assert!(measured(&moved) > sums.error(&sums.fitted(&curvature).unwrap(), &all, COLS));
    }

    #[test]
    fn equal_matrices_are_shared_without_an_error() {
        let (w, gram) = (noise(ROWS * COLS, 1), gram(&inputs(3)));
        let mut sums = Sums::new(w.clone());
        sums.add(&w, &gram, COLS);
        assert_eq!(sums.error(&w, &gram, COLS), 0.0);
        assert_eq!(
            (halfway_error(&w, &w, &gram, COLS), halfway_distance(&w, &w)),
            (0.0, 0.0)
        );
        let other = noise(ROWS * COLS, 2);
        assert!(halfway_error(&w, &other, &gram, COLS) > 0.1);
        assert!(halfway_distance(&w, &other) > 0.1);
    }

    #[test]
    fn runs_are_cut_where_blocks_are_far_apart() {
        let cut = |steps: &[f64], keep| runs(steps, keep, &|| false).unwrap();
        assert_eq!(cut(&[1.0, 9.0, 1.0], 2), [0, 0, 2, 2]);
        // Three alike in one run cost more than two pairs of which one is a little worse.
        assert_eq!(cut(&[1.0, 1.0, 9.0, 1.2, 9.0], 4), [0, 0, 2, 3, 3, 5]);
        assert_eq!(cut(&[1.0, 1.0, 9.0, 4.0, 9.0], 4), [0, 0, 0, 3, 4, 5]);
        assert_eq!(cut(&[3.0, 1.0], 1), [0, 0, 0]);
        assert_eq!(cut(&[3.0, 1.0], 3), [0, 1, 2]);
        assert_eq!(cut(&[], 1), [0]);
        // Of equals the first; what is no number stops nothing.
        assert_eq!(cut(&[f64::NAN, f64::NAN], 2).len(), 3);
        assert_eq!(runs(&[1.0], 1, &|| true).unwrap_err().code, "cancelled");
    }
}
