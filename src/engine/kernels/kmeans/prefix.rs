//! Sums over runs of sorted values, each found from two prefix sums.
//!
//! Owns: cost and mean of a run. Must not know: how runs are chosen.
//! Invariant: values are taken from a pivot, and the sums are taken from its place outwards. A far outlier so spoils the
//! differences of no two sums on its near side, and a run's cost is off by about 1e-16 of the squares around the pivot.

use super::distinct::Distinct;

/// Prefix sums of `n` values: `n + 1` entries of weight, weight · value and weight · value².
#[derive(Debug)]
pub(super) struct Prefix {
    pivot: f64,
    sums: Vec<[f64; 3]>,
}

impl Prefix {
    /// About the middle value.
    pub(super) fn of(distinct: &Distinct) -> Self {
        let middle = distinct.len() / 2;
        let pivot = distinct.values().get(middle).map_or(0.0, |v| f64::from(*v));
        Self::about(distinct, middle, pivot)
    }

    /// About zero, from the first value on: for values that ascend from there.
    pub(super) fn from_zero(distinct: &Distinct) -> Self {
        Self::about(distinct, 0, 0.0)
    }

    fn about(distinct: &Distinct, middle: usize, pivot: f64) -> Self {
        let mut sums = vec![[0.0; 3]; distinct.len() + 1];
        let term = |i: usize| {
            let (v, w) = (f64::from(distinct.values()[i]) - pivot, distinct.weights()[i]);
            [w, w * v, w * v * v]
        };
        for i in middle..distinct.len() {
            let (sum, term) = (sums[i], term(i));
            sums[i + 1] = [0, 1, 2].map(|m| sum[m] + term[m]);
        }
        for i in (0..middle).rev() {
            let (sum, term) = (sums[i + 1], term(i));
            sums[i] = [0, 1, 2].map(|m| sum[m] - term[m]);
        }
        Self { pivot, sums }
    }

    /// Bytes for `n` values.
    pub(super) fn bytes(n: usize) -> u64 {
        24 * (n as u64 + 1)
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.sums.len() - 1
    }

    /// Σ w (v − mean)² of the values `from..to`, which are some.
    #[inline]
    pub(super) fn cost(&self, from: usize, to: usize) -> f64 {
        let (a, b) = (&self.sums[from], &self.sums[to]);
        let first = b[1] - a[1];
        (b[2] - a[2] - first * first / (b[0] - a[0])).max(0.0)
    }

    /// Weighted mean of the values `from..to`, which are some.
    pub(super) fn mean(&self, from: usize, to: usize) -> f64 {
        let (a, b) = (&self.sums[from], &self.sums[to]);
        self.pivot + (b[1] - a[1]) / (b[0] - a[0])
    }

    /// Σ w (v − pivot)² of the first `to` values, where the sums start with the first.
    pub(super) fn squares(&self, to: usize) -> f64 {
        self.sums[to][2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cost_what_their_values_cost_beside_an_outlier() {
        let mut values: Vec<f32> = (0..200).map(|i| (i as f32 * 0.37).sin() * 0.02).collect();
        values.extend([1e6, -1e6]);
        let distinct = Distinct::of(&values, None).unwrap();
        let prefix = Prefix::of(&distinct);
        let last = prefix.len() - 1;
        for (from, to) in [(1, last), (1, 50), (40, 41), (100, 130), (150, last)] {
            let run = &distinct.values()[from..to];
            let mean = run.iter().map(|v| f64::from(*v)).sum::<f64>() / run.len() as f64;
            let cost: f64 = run.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum();
            assert!((prefix.mean(from, to) - mean).abs() < 1e-15, "{from} {to}");
            assert!((prefix.cost(from, to) - cost).abs() < 1e-15, "{from} {to}");
        }
    }
}
