//! The vectors that clustering begins with.
//!
//! Owns: greedy k-means++ (Arthur and Vassilvitskii 2007, section 5). Must not know: where the vectors come from.
//! Invariant: sums are taken in the order of fixed chunks; what equals a vector drawn before is never drawn.

use super::metric::approach;
use super::train::Sample;
use crate::error::{Error, Result};
use crate::kernels::kmeans::lloyd::drawn;
use crate::kernels::random::Random;
use rayon::prelude::*;

/// Vectors that one task looks at.
const CHUNK: usize = 4096;
/// Up to so many centroids each is the best of several draws.
const GREEDY: usize = 1024;

/// Up to `k` vectors of a sample, `[≤ k, width]`, drawn by squared distance to those drawn before; fewer where no vector
/// is apart from them.
pub(super) fn start(
    sample: &Sample,
    k: usize,
    random: &mut Random,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<f32>> {
    let trials = if k <= GREEDY { 2 + k.ilog2() as usize } else { 1 };
    let mut made = Vec::with_capacity(k * sample.width);
    let mut field = Field::new(sample);
    for _ in 0..k {
        if stop() {
            return Err(Error::cancelled());
        }
        let mut best: Option<(usize, Field)> = None;
        for _ in 0..trials {
            let Some(at) = field.draw(random) else {
                return Ok(made);
            };
            let tried = field.with(sample, at);
            if best.as_ref().is_none_or(|(_, best)| tried.total() < best.total()) {
                best = Some((at, tried));
            }
        }
        if let Some((at, lowered)) = best {
            made.extend_from_slice(sample.vector(at));
            field = lowered;
        }
    }
    Ok(made)
}

/// Squared distances to the nearest vector drawn, and their sums by chunk.
struct Field {
    distances: Vec<f32>,
    sums: Vec<f64>,
}

impl Field {
    /// Before any is drawn all are as far.
    fn new(sample: &Sample) -> Self {
        let distances = vec![1.0; sample.len()];
        let sums = distances.chunks(CHUNK).map(|chunk| chunk.len() as f64).collect();
        Self { distances, sums }
    }

    fn total(&self) -> f64 {
        self.sums.iter().sum()
    }

    fn draw(&self, random: &mut Random) -> Option<usize> {
        let chunk = drawn(&self.sums, random)?;
        let distances = self.distances.chunks(CHUNK).nth(chunk)?;
        let masses: Vec<f64> = distances.iter().map(|d| f64::from(*d)).collect();
        drawn(&masses, random).map(|at| chunk * CHUNK + at)
    }

    fn with(&self, sample: &Sample, at: usize) -> Self {
        let (vector, span) = (sample.vector(at), CHUNK * sample.width);
        let mut distances = vec![0.0; self.distances.len()];
        let chunks = distances
            .par_chunks_mut(CHUNK)
            .zip(self.distances.par_chunks(CHUNK));
        let inputs = sample
            .values
            .par_chunks(span)
            .zip(sample.weights.par_chunks(span));
        let sums = chunks.zip(inputs).map(|((lowered, before), (values, weights))| {
            let mut total = 0.0;
            approach(values, weights, vector, before, lowered, &mut total);
            total
        });
        let sums = sums.collect();
        Self { distances, sums }
    }
}
