//! Lloyd's iteration over a sample of a matrix's vectors.
//!
//! Owns: the sample, the iteration, what becomes of empty clusters. Must not know: storage types.
//! Invariant: partial sums are of a fixed number of parts, added in order.

use super::metric::{Metric, Table, nearest};
use super::{Spec, seeding};
use crate::error::{Error, Result};
use crate::kernels::random::Random;
use rayon::prelude::*;

/// Vectors a centroid that the start is drawn from.
const SEEDING: usize = 16;
/// Vectors a centroid that the iteration runs on, at least.
const TRAINING: usize = 64;
/// Multiplications a step that are always affordable: more vectors are taken up to it.
const AFFORDABLE: usize = 1 << 28;
/// Iterations at most.
const ITERATIONS: usize = 40;
/// The iteration ends where a step takes away less than this part of the cost.
const TOLERANCE: f64 = 1e-4;
/// Parts of a sample whose sums are taken one by one.
const PARTS: usize = 16;

/// Vectors with weights.
pub(super) struct Sample {
    pub(super) width: usize,
    /// `[n, width]`.
    pub(super) values: Vec<f32>,
    /// `[n, width]`.
    pub(super) weights: Vec<f32>,
}

impl Sample {
    /// At most `most` of a matrix's vectors that weigh something: one from each of as many equal spans, in order.
    fn draw(values: &[f32], metric: &Metric, width: usize, most: usize, random: &mut Random) -> Self {
        let per_row = metric.cols() / width;
        let seen: Vec<usize> = (0..per_row).filter(|b| metric.seen()[*b]).collect();
        let all = values.len() / metric.cols() * seen.len();
        let count = all.min(most);
        let mut made = Self {
            width,
            values: vec![0.0; count * width],
            weights: Vec::with_capacity(count * width),
        };
        for (i, out) in made.values.chunks_exact_mut(width).enumerate() {
            let [from, to] = [i, i + 1].map(|i| (i as u128 * all as u128 / count as u128) as usize);
            let at = from + random.below((to - from) as u64) as usize;
            let (row, column) = (at / seen.len(), seen[at % seen.len()] * width);
            let first = row * metric.cols() + column;
            metric.scaled(&values[first..first + width], out);
            made.weights
                .extend_from_slice(&metric.weights()[column..column + width]);
        }
        made
    }

    /// How many vectors there are.
    pub(super) fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// One of them.
    pub(super) fn vector(&self, at: usize) -> &[f32] {
        &self.values[at * self.width..(at + 1) * self.width]
    }

    /// At most `most` of them, evenly.
    fn thinned(&self, most: usize) -> Self {
        let (all, count) = (self.len(), self.len().min(most));
        let pick = |from: &[f32]| {
            let vectors = (0..count).map(|i| i * all / count * self.width);
            vectors
                .flat_map(|first| &from[first..first + self.width])
                .copied()
                .collect()
        };
        Self {
            width: self.width,
            values: pick(&self.values),
            weights: pick(&self.weights),
        }
    }
}

/// Up to `k` centroids of the metric's scale, `[≤ k, width]`, at least one.
pub(super) fn centroids(
    values: &[f32],
    metric: &Metric,
    spec: &Spec,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<f32>> {
    let (k, width) = (spec.centroids, spec.width);
    let mut random = Random::new(spec.seed);
    let most = (TRAINING * k).max(AFFORDABLE / (k * width));
    let sample = Sample::draw(values, metric, width, most, &mut random);
    if sample.len() == 0 {
        return Ok(vec![0.0; width]);
    }
    let mut centroids = seeding::start(&sample.thinned(SEEDING * k), k, &mut random, stop)?;
    let mut step = Step::new(&sample);
    let mut before = f64::INFINITY;
    for _ in 0..ITERATIONS {
        if stop() {
            return Err(Error::cancelled());
        }
        let cost = step.assign(&sample, &centroids);
        if cost >= before * (1.0 - TOLERANCE) {
            break;
        }
        before = cost;
        step.move_to_means(&sample, &mut centroids);
    }
    Ok(centroids)
}

/// Codes and squared distances of a sample.
struct Step {
    codes: Vec<u16>,
    errors: Vec<f32>,
    /// Vectors of a part.
    part: usize,
}

impl Step {
    fn new(sample: &Sample) -> Self {
        Self {
            codes: vec![0; sample.len()],
            errors: vec![0.0; sample.len()],
            part: sample.len().div_ceil(PARTS),
        }
    }

    /// Every vector goes to its nearest centroid; the cost.
    fn assign(&mut self, sample: &Sample, centroids: &[f32]) -> f64 {
        let (table, span) = (Table::of(centroids, sample.width), self.part * sample.width);
        let out = self
            .codes
            .par_chunks_mut(self.part)
            .zip(self.errors.par_chunks_mut(self.part));
        let parts = sample
            .values
            .par_chunks(span)
            .zip(sample.weights.par_chunks(span))
            .zip(out);
        let costs: Vec<f64> = parts
            .map(|((values, weights), (codes, errors))| {
                nearest(values, weights, &table, codes, errors);
                errors.iter().map(|e| f64::from(*e)).sum()
            })
            .collect();
        costs.iter().sum()
    }

    /// Every centroid becomes the mean of its vectors; one without vectors becomes one that is far from its own.
    fn move_to_means(&self, sample: &Sample, centroids: &mut [f32]) {
        let (sums, masses, counts) = self.sums(sample, centroids.len());
        for ((centroid, sum), mass) in centroids.iter_mut().zip(sums).zip(masses) {
            // An element of vectors that all weigh 0 there stays where it is.
            if mass > 0.0 {
                *centroid = (sum / mass) as f32;
            }
        }
        let empty: Vec<usize> = (0..counts.len()).filter(|c| counts[*c] == 0).collect();
        let far = self.farthest(empty.len());
        for (c, at) in empty.into_iter().zip(far) {
            centroids[c * sample.width..(c + 1) * sample.width].copy_from_slice(sample.vector(at));
        }
    }

    /// Σ w v and Σ w by element of each centroid, and vectors by centroid.
    fn sums(&self, sample: &Sample, elements: usize) -> (Vec<f64>, Vec<f64>, Vec<u32>) {
        let (width, span) = (sample.width, self.part * sample.width);
        let zeros = || {
            (
                vec![0f64; elements],
                vec![0f64; elements],
                vec![0u32; elements / width],
            )
        };
        let vectors = sample
            .values
            .par_chunks(span)
            .zip(sample.weights.par_chunks(span));
        let parts: Vec<_> = vectors
            .zip(self.codes.par_chunks(self.part))
            .map(|((values, weights), codes)| {
                let mut part = zeros();
                let vectors = values.chunks_exact(width).zip(weights.chunks_exact(width));
                for ((values, weights), code) in vectors.zip(codes) {
                    let first = usize::from(*code) * width;
                    part.2[usize::from(*code)] += 1;
                    let sums = part.0[first..first + width]
                        .iter_mut()
                        .zip(&mut part.1[first..first + width]);
                    for ((sum, mass), (v, w)) in sums.zip(values.iter().zip(weights)) {
                        let w = f64::from(*w);
                        *sum += w * f64::from(*v);
                        *mass += w;
                    }
                }
                part
            })
            .collect();
        parts.into_iter().fold(zeros(), |mut all, part| {
            all.0.iter_mut().zip(part.0).for_each(|(a, b)| *a += b);
            all.1.iter_mut().zip(part.1).for_each(|(a, b)| *a += b);
            all.2.iter_mut().zip(part.2).for_each(|(a, b)| *a += b);
            all
        })
    }

    /// The `count` vectors farthest from their centroids, farthest first; none that is its centroid.
    fn farthest(&self, count: usize) -> Vec<usize> {
        if count == 0 {
            return Vec::new();
        }
        let mut order: Vec<usize> = (0..self.errors.len()).filter(|i| self.errors[*i] > 0.0).collect();
        order.sort_by(|a, b| self.errors[*b].total_cmp(&self.errors[*a]).then(a.cmp(b)));
        order.truncate(count);
        order
    }
}
