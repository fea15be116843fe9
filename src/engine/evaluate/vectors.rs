//! Embeddings of whole sequences under two models.
//!
//! Owns: their cosines, and whether each sequence's nearest neighbours stay the same. Must not know: weights.
//! Invariant: neighbours at the same distance come in the order of the sequences, so that ties never differ.

use super::{Measure, NEIGHBOURS, Resampled};
use crate::recipe::Metric;
use rayon::prelude::*;

/// Vectors of all sequences, one after another, each of length 1.
#[derive(Default)]
pub(super) struct Vectors {
    values: Vec<f32>,
    cols: usize,
}

impl Vectors {
    /// Adds rows of `cols` values.
    pub(super) fn extend(&mut self, values: &[f32], cols: usize) {
        self.cols = cols;
        for row in values.chunks_exact(cols.max(1)) {
            let length = dot(row, row).sqrt();
            let inverse = if length > 0.0 { 1.0 / length } else { 0.0 };
            self.values
                .extend(row.iter().map(|v| (f64::from(*v) * inverse) as f32));
        }
    }

    fn count(&self) -> usize {
        self.values.len() / self.cols.max(1)
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.cols..][..self.cols]
    }

    /// The nearest sequences to one of them, itself left out.
    fn neighbours(&self, i: usize) -> Vec<usize> {
        let mut nearest: Vec<(f32, usize)> = Vec::with_capacity(NEIGHBOURS + 1);
        for other in (0..self.count()).filter(|other| *other != i) {
            let cosine = dot(self.row(i), self.row(other)) as f32;
            let full = nearest.len() == NEIGHBOURS;
            if full && nearest.last().is_some_and(|last| cosine <= last.0) {
                continue;
            }
            let at = nearest.partition_point(|(near, _)| *near >= cosine);
            nearest.insert(at, (cosine, other));
            nearest.truncate(NEIGHBOURS);
        }
        nearest.into_iter().map(|(_, other)| other).collect()
    }
}

/// In f32 partial sums of a fixed order, which vectorise, joined as f64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f32; 16];
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest
        .iter()
        .zip(b_rest)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    sums.iter().map(|s| f64::from(*s)).sum::<f64>() + rest
}

/// Cosine of two vectors, exactly 1 for equal ones.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a == b {
        return 1.0;
    }
    let (ab, aa, bb) = a.iter().zip(b).fold((0.0, 0.0, 0.0), |(ab, aa, bb), (a, b)| {
        let (a, b) = (f64::from(*a), f64::from(*b));
        (ab + a * b, aa + a * a, bb + b * b)
    });
    if aa > 0.0 && bb > 0.0 {
        (ab / (aa * bb).sqrt()).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

/// One metric of all sequences.
pub(super) fn measure(metric: Metric, [before, after]: &[Vectors; 2], seed: u64) -> Measure {
    let of = |i: usize| match metric {
        Metric::Retrieval => {
            let (old, new) = (before.neighbours(i), after.neighbours(i));
            let kept = old.iter().filter(|other| new.contains(other)).count();
            kept as f64 / old.len().max(1) as f64
        }
        _ => cosine(before.row(i), after.row(i)),
    };
    let values: Vec<f64> = (0..before.count()).into_par_iter().map(of).collect();
    let items = Resampled {
        metric,
        items: values.len(),
        seed,
    };
    items.one(&|at| at.iter().map(|i| values[*i]).sum::<f64>() / at.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a half circle: the neighbours of each are known.
    fn circle(count: usize, shift: impl Fn(usize) -> f32) -> Vectors {
        let mut vectors = Vectors::default();
        for i in 0..count {
            let angle = i as f32 / count as f32 * 3.0 + shift(i);
            vectors.extend(&[angle.cos() * 5.0, angle.sin() * 5.0], 2);
        }
        vectors
    }

    #[test]
    fn the_same_vectors_agree_wholly() {
        let same = [circle(30, |_| 0.0), circle(30, |_| 0.0)];
        for metric in [Metric::Cosine, Metric::Retrieval] {
            let measure = measure(metric, &same, 0);
            assert_eq!(
                (measure.after, measure.interval),
                (1.0, [1.0, 1.0]),
                "{}",
                measure.metric
            );
        }
    }

    #[test]
    fn a_turn_of_all_keeps_neighbours_and_a_swap_does_not() {
        let turned = [circle(30, |_| 0.0), circle(30, |_| 0.5)];
        assert!((measure(Metric::Cosine, &turned, 0).after - 0.5f64.cos()).abs() < 1e-6);
        assert_eq!(measure(Metric::Retrieval, &turned, 0).after, 1.0);
        // Every other point goes to the far side: half of each one's neighbours leave it.
        let parted = [
            circle(40, |_| 0.0),
            circle(40, |i| if i % 2 == 0 { 0.0 } else { 3.1 }),
        ];
        let kept = measure(Metric::Retrieval, &parted, 0);
        assert!(kept.after > 0.35 && kept.after < 0.65, "{}", kept.after);
        assert!(kept.interval[0] < kept.after && kept.after < kept.interval[1]);
    }

    #[test]
    fn the_nearest_come_first_and_without_oneself() {
        let vectors = circle(30, |_| 0.0);
        let mut near = vectors.neighbours(15);
        assert_eq!(near.len(), NEIGHBOURS);
        near.sort_unstable();
        assert_eq!(near, [10, 11, 12, 13, 14, 16, 17, 18, 19, 20]);
    }
}
