//! Weighted squared distances between vectors, in numbers that neither overflow nor vanish.
//!
//! Owns: the scale of values and weights, the search for the nearest of many vectors. Must not know: how vectors are
//! found.
//! Invariant: values are scaled by a power of two, so nothing is rounded; of equally near vectors the first is found.

use super::WIDTHS;
use crate::error::{Error, Result};
use crate::kernels::kmeans::distinct::usable_weights;
use crate::kernels::{check_finite, wide};
use rayon::prelude::*;

/// Vectors that are compared at once.
const LANES: usize = 16;
/// Values that one task looks at.
const CHUNK: usize = 1 << 18;

/// How far vectors of a matrix are apart.
pub(super) struct Metric {
    cols: usize,
    width: usize,
    scale: f32,
    /// What a column's weight is divided by.
    mean_weight: f64,
    /// By column, 1 on average; 1 in vectors that weigh nothing.
    weights: Vec<f32>,
    /// By vector of a row: whether it weighs anything.
    seen: Vec<bool>,
}

impl Metric {
    /// That of a matrix `[rows, cols]`, whose values must be finite.
    pub(super) fn of(values: &[f32], cols: usize, width: usize, weights: Option<&[f32]>) -> Result<Self> {
        let refuse = |code, what: String| Err(Error::bad_input(code, what));
        if !WIDTHS.contains(&width)
            || cols == 0
            || !cols.is_multiple_of(width)
            || !values.len().is_multiple_of(cols)
        {
            let what = format!(
                "{} values in rows of {cols} do not make vectors of {width}",
                values.len()
            );
            return refuse("bad_vector_width", what);
        }
        if let Some(weights) = weights.filter(|w| w.len() != cols) {
            return refuse(
                "bad_column_weights",
                format!("{} weights of {cols} columns", weights.len()),
            );
        }
        let weights = usable_weights(weights)?;
        let chunks = values.par_chunks(CHUNK).enumerate();
        chunks.try_for_each(|(i, chunk)| check_finite(chunk, i * CHUNK))?;
        let mut made = Self {
            cols,
            width,
            scale: scale_for(values),
            mean_weight: 1.0,
            weights: vec![1.0; cols],
            seen: vec![true; cols / width],
        };
        if let Some(weights) = weights {
            made.weigh(weights);
        }
        Ok(made)
    }

    fn weigh(&mut self, weights: &[f32]) {
        self.mean_weight = weights.iter().map(|w| f64::from(*w)).sum::<f64>() / weights.len() as f64;
        let vectors = self
            .weights
            .chunks_mut(self.width)
            .zip(weights.chunks(self.width));
        for ((own, weights), seen) in vectors.zip(&mut self.seen) {
            *seen = weights.iter().any(|w| *w > 0.0);
            if *seen {
                let shares = weights.iter().map(|w| (f64::from(*w) / self.mean_weight) as f32);
                own.iter_mut().zip(shares).for_each(|(own, share)| *own = share);
            }
        }
    }

    /// The same, of a scale at which those centroids do not overflow either.
    pub(super) fn covering(mut self, centroids: &[f32]) -> Self {
        self.scale = self.scale.min(scale_for(centroids));
        self
    }

    /// What values are multiplied by: a power of two.
    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// Columns of a row.
    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// By column.
    pub(super) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// By vector of a row: whether any of its columns weighs something.
    pub(super) fn seen(&self) -> &[bool] {
        &self.seen
    }

    /// What a distance is multiplied by to be one of the values as they came.
    pub(super) fn unit(&self) -> f64 {
        self.mean_weight / f64::from(self.scale).powi(2)
    }

    /// Values of this metric's scale.
    pub(super) fn scaled(&self, values: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(values).for_each(|(o, v)| *o = v * self.scale);
    }
}

/// The power of two that brings the largest magnitude to about 1.
fn scale_for(values: &[f32]) -> f32 {
    let largest = |chunk: &[f32]| chunk.iter().fold(0, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
    let bits = values.par_chunks(CHUNK).map(largest).reduce(|| 0, u32::max);
    f32::from_bits((253 - (bits >> 23).min(252)) << 23)
}

/// Vectors in blocks of sixteen, each element's lanes beside one another.
pub(super) struct Table {
    width: usize,
    blocks: Vec<[f32; LANES]>,
}

impl Table {
    /// Of `[k, width]`.
    pub(super) fn of(vectors: &[f32], width: usize) -> Self {
        let count = vectors.len() / width;
        // No vector is as near as infinity; where a weight is 0 the distance is NaN, which is not near either.
        let mut blocks = vec![[f32::INFINITY; LANES]; count.div_ceil(LANES) * width];
        for (i, vector) in vectors.chunks_exact(width).enumerate() {
            for (t, v) in vector.iter().enumerate() {
                blocks[i / LANES * width + t][i % LANES] = *v;
            }
        }
        Self { width, blocks }
    }

    #[inline(always)]
    fn nearest(&self, vector: &[f32], weights: &[f32]) -> (usize, f32) {
        let mut least = [f32::INFINITY; LANES];
        let mut found = [0u32; LANES];
        for (b, block) in self.blocks.chunks_exact(self.width).enumerate() {
            let mut sums = [0f32; LANES];
            for ((v, w), elements) in vector.iter().zip(weights).zip(block) {
                for (sum, element) in sums.iter_mut().zip(elements) {
                    let gap = v - element;
                    *sum += w * (gap * gap);
                }
            }
            for lane in 0..LANES {
                let nearer = sums[lane] < least[lane];
                least[lane] = if nearer { sums[lane] } else { least[lane] };
                found[lane] = if nearer { b as u32 } else { found[lane] };
            }
        }
        let mut best = (0, f32::INFINITY);
        for lane in 0..LANES {
            let at = found[lane] as usize * LANES + lane;
            if least[lane] < best.1 || least[lane] == best.1 && at < best.0 {
                best = (at, least[lane]);
            }
        }
        best
    }
}

wide! {
    /// The nearest of a table's vectors to each of `vectors`, `[n, width]`, weighted by `weights` of the same shape, and
    /// its squared distance.
    pub(super) fn nearest(vectors: &[f32], weights: &[f32], table: &Table, codes: &mut [u16], errors: &mut [f32]) {
        let width = table.width;
        let vectors = vectors.chunks_exact(width).zip(weights.chunks_exact(width));
        for ((vector, weights), (code, error)) in vectors.zip(codes.iter_mut().zip(errors)) {
            let found = table.nearest(vector, weights);
            *code = found.0 as u16;
            *error = found.1;
        }
    }
}

wide! {
    /// Lowers each distance to that of one `vector`, and adds all up in the order of sixteen partial sums.
    pub(super) fn approach(
        vectors: &[f32],
        weights: &[f32],
        vector: &[f32],
        distances: &[f32],
        lowered: &mut [f32],
        total: &mut f64,
    ) {
        let width = vector.len();
        let pairs = vectors.chunks_exact(width).zip(weights.chunks_exact(width));
        for (((own, weights), before), after) in pairs.zip(distances).zip(lowered.iter_mut()) {
            let mut sum = 0f32;
            for ((v, w), c) in own.iter().zip(weights).zip(vector) {
                let gap = v - c;
                sum += w * (gap * gap);
            }
            *after = if sum < *before { sum } else { *before };
        }
        let mut sums = [0f64; LANES];
        for chunk in lowered.chunks(LANES) {
            for (sum, v) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(*v);
            }
        }
        *total = sums.iter().sum();
    }
}
