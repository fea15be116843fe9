//! Weights that become zeros: which, and what the others make up for.
//!
//! Owns: choosing the smallest scores of a layer, of each row, or of each run of M. Must not know: what scores mean.
//! Invariant: as many zeros as asked, the earliest first where scores are equal, for any number of threads.

pub mod columns;
mod obs;
mod refit;

use rayon::prelude::*;

pub use obs::{Pruned, Rule, solve};
pub use refit::{Refit, refit};

/// Scores that one task counts.
const CHUNK: usize = 1 << 18;

/// A score below which everything goes, and how many that have just it go too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    bits: u32,
    ties: usize,
}

impl Cut {
    /// Whether a score goes; those that have just the cut's are to come in order.
    #[inline(always)]
    fn takes(&mut self, score: f32) -> bool {
        let bits = ordered(score);
        let is_tie = bits == self.bits && self.ties > 0;
        self.ties -= usize::from(is_tie);
        bits < self.bits || is_tie
    }
}

/// Scores are no less than 0, where bits are in order. NaN, which no finite weight gives, stays: it is the largest.
#[inline(always)]
fn ordered(score: f32) -> u32 {
    score.to_bits() & 0x7fff_ffff
}

/// Finds the cut that takes the `count` smallest of `n` scores, in two passes over halves of their bits.
pub(crate) fn cut(n: usize, count: usize, score: &(dyn Fn(usize) -> f32 + Sync)) -> Cut {
    let high = histogram(n, &|at| Some(ordered(score(at)) >> 16));
    let (top, before) = reach(&high, count);
    let low = histogram(n, &|at| {
        let bits = ordered(score(at));
        (bits >> 16 == top).then_some(bits & 0xffff)
    });
    let (bottom, below) = reach(&low, count - before);
    Cut {
        bits: top << 16 | bottom,
        ties: count - before - below,
    }
}

/// The first bin in which the running sum reaches `count`, and the sum before it.
fn reach(bins: &[usize], count: usize) -> (u32, usize) {
    let mut before = 0;
    for (bin, n) in (0u32..).zip(bins) {
        if before + n >= count {
            return (bin, before);
        }
        before += n;
    }
    (bins.len().saturating_sub(1) as u32, before)
}

fn histogram(n: usize, bin: &(dyn Fn(usize) -> Option<u32> + Sync)) -> Vec<usize> {
    let count = |chunk: usize| {
        let mut bins = vec![0usize; 1 << 16];
        for at in chunk * CHUNK..((chunk + 1) * CHUNK).min(n) {
            if let Some(bin) = bin(at) {
                bins[bin as usize] += 1;
            }
        }
        bins
    };
    (0..n.div_ceil(CHUNK)).into_par_iter().map(count).reduce(
        || vec![0; 1 << 16],
        |mut a, b| {
            a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
            a
        },
    )
}

/// How many of `n` weights a share is.
pub fn count(n: usize, share: f64) -> usize {
    ((n as f64 * share).round() as usize).min(n)
}

/// Zeroes the `count` values of the smallest scores of all. `score` gets an index and its value.
pub fn layer(values: &mut [f32], count: usize, score: &(dyn Fn(usize, f32) -> f32 + Sync)) {
    if count == 0 {
        return;
    }
    let mut cut = cut(values.len(), count, &|at| score(at, values[at]));
    for (at, value) in values.iter_mut().enumerate() {
        if cut.takes(score(at, *value)) {
            *value = 0.0;
        }
    }
}

/// Zeroes the `count` values of the smallest scores in each row of `cols`.
pub fn rows(values: &mut [f32], cols: usize, count: usize, score: &(dyn Fn(usize, f32) -> f32 + Sync)) {
    smallest_of_each(values, cols, cols, count, score);
}

/// Zeroes all but the `keep` values of the largest scores in each run of `of` of a row; `of` divides the rows.
pub fn n_of_m(
    values: &mut [f32],
    cols: usize,
    (keep, of): (usize, usize),
    score: &(dyn Fn(usize, f32) -> f32 + Sync),
) {
    smallest_of_each(values, cols, of, of - keep, score);
}

fn smallest_of_each(
    values: &mut [f32],
    cols: usize,
    run: usize,
    count: usize,
    score: &(dyn Fn(usize, f32) -> f32 + Sync),
) {
    if count == 0 || cols == 0 {
        return;
    }
    values.par_chunks_mut(cols).enumerate().for_each(|(row, values)| {
        let mut ranked: Vec<(u32, u32)> = Vec::with_capacity(run);
        for (at, values) in values.chunks_mut(run).enumerate() {
            let first = row * cols + at * run;
            ranked.clear();
            ranked.extend(
                (0u32..)
                    .zip(&*values)
                    .map(|(i, v)| (ordered(score(first + i as usize, *v)), i)),
            );
            let taken = count.min(ranked.len());
            if taken < ranked.len() {
                ranked.select_nth_unstable(taken);
            }
            for (_, i) in &ranked[..taken] {
                values[*i as usize] = 0.0;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is zeroed, told by sorting.
    fn sorted(values: &[f32], scores: &[f32], count: usize) -> Vec<f32> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(a.cmp(b)));
        let mut out = values.to_vec();
        order[..count].iter().for_each(|at| out[*at] = 0.0);
        out
    }

    proptest! {
        /// Few different values: many scores are equal.
        #[test]
        fn the_smallest_go_and_the_earliest_of_equals(
            raw in prop::collection::vec(-4i8..5, 1..200), share in 0f64..1.0, scale in 1e-30f32..1e30
        ) {
            let values: Vec<f32> = raw.iter().map(|v| f32::from(*v) * scale).collect();
            let scores: Vec<f32> = values.iter().map(|v| v.abs()).collect();
            let k = count(values.len(), share);
            let mut found = values.clone();
            layer(&mut found, k, &|_, v| v.abs());
            prop_assert_eq!(&found, &sorted(&values, &scores, k));
            let cols = values.len();
            let mut found = values.clone();
            rows(&mut found, cols, k, &|_, v| v.abs());
            prop_assert_eq!(&found, &sorted(&values, &scores, k));
        }

        #[test]
        fn every_run_keeps_its_largest(raw in prop::collection::vec(-100i32..100, 6..7), keep in 1usize..3) {
            let values: Vec<f32> = raw.iter().map(|v| *v as f32).collect();
            let mut found = values.clone();
            n_of_m(&mut found, 6, (keep, 3), &|_, v| v.abs());
            for (found, values) in found.chunks(3).zip(values.chunks(3)) {
                let scores: Vec<f32> = values.iter().map(|v| v.abs()).collect();
                prop_assert_eq!(found, &sorted(values, &scores, 3 - keep)[..]);
            }
        }
    }

    #[test]
    fn scores_of_columns_count() {
        let mut values = vec![1.0, 1.0, 1.0, -1.0];
        layer(&mut values, 2, &|at, v| v.abs() * [4.0, 1.0, 3.0, 2.0][at]);
        assert_eq!(values, [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn all_and_nothing_can_go() {
        let mut values = vec![3.0, -2.0];
        layer(&mut values, 0, &|_, v| v.abs());
        assert_eq!(values, [3.0, -2.0]);
        layer(&mut values, 2, &|_, v| v.abs());
        assert_eq!(values, [0.0, 0.0]);
    }
}
