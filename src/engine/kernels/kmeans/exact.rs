//! Clusters of least cost, for certain.
//!
//! Owns: the dynamic program over runs of sorted values. Must not know: where values come from, rounding.
//! Source: Wang and Song 2011 (Ckmeans.1d.dp); the cost of a run is concave Monge, so the best last runs ascend, which
//! divide and conquer uses (Grønlund et al. 2017).
//! Invariant: no other `k` centroids cost less, but for the rounding of the prefix sums (see `prefix`).

use super::distinct::Distinct;
use super::prefix::Prefix;

/// Rows longer than this are halved between threads.
const PARALLEL: usize = 4096;

/// Bytes that `centroids` needs for `n` distinct values beside those themselves: a table of `k · n` choices, two rows
/// of costs and the prefix sums.
pub fn working_bytes(n: usize, k: usize) -> u64 {
    let row = n as u64 + 1;
    4 * row * k as u64 + 2 * 8 * row + 2 * Prefix::bytes(n)
}

/// Evaluations of a run's cost that `centroids` needs at most, about.
pub fn evaluations(n: usize, k: usize) -> u64 {
    (n as u64)
        .saturating_mul(k as u64)
        .saturating_mul(u64::from(n.max(2).ilog2()))
}

/// The means of the `k` runs of least Σ w (v − mean)², ascending; every value where there are at most `k`.
pub(super) fn centroids(distinct: &Distinct, k: usize) -> Vec<f64> {
    if distinct.len() <= k {
        return distinct.values().iter().map(|v| f64::from(*v)).collect();
    }
    let prefix = Prefix::of(distinct);
    let mut start = vec![f64::INFINITY; prefix.len() + 1];
    start[0] = 0.0;
    Program::run(&prefix, start, k).means(&prefix, k)
}

/// The same with one of the `k` centroids held at zero.
///
/// Values that go to zero are a run around it, so its cost falls apart into one of the negative and one of the positive
/// values: each side is a program that begins with the squares of what goes to zero.
pub(super) fn centroids_with_zero(distinct: &Distinct, k: usize) -> Vec<f64> {
    let sides = distinct.sides();
    let free = k.saturating_sub(1);
    if sides[0].len() + sides[1].len() <= free {
        let negative = sides[0].values().iter().rev().map(|v| f64::from(-v));
        let positive = sides[1].values().iter().map(|v| f64::from(*v));
        return negative.chain([0.0]).chain(positive).collect();
    }
    let solved = sides.each_ref().map(|side| {
        let prefix = Prefix::from_zero(side);
        let start = (0..=side.len()).map(|i| prefix.squares(i)).collect();
        let program = Program::run(&prefix, start, free.min(side.len()));
        (prefix, program)
    });
    let [(below, negative), (above, positive)] = &solved;
    let total = |n: usize| negative.costs[n] + positive.costs[(free - n).min(above.len())];
    let mut best = 0;
    for n in 1..=free.min(below.len()) {
        if total(n) < total(best) {
            best = n;
        }
    }
    let mut made: Vec<f64> = negative.means(below, best).iter().rev().map(|c| -c).collect();
    made.push(0.0);
    made.extend(positive.means(above, (free - best).min(above.len())));
    made
}

/// A solved program: layer `l` has `l` runs.
struct Program {
    /// Row `l - 1`, entry `i`: where the last of `l` runs over the first `i` values begins.
    begins: Vec<u32>,
    /// Cost of all values by number of runs, from 0.
    costs: Vec<f64>,
}

impl Program {
    /// Layers `1..=layers` on top of one without runs, whose costs are `start`; `layers` is at most the values.
    fn run(prefix: &Prefix, start: Vec<f64>, layers: usize) -> Self {
        let row = prefix.len() + 1;
        let mut begins = vec![0u32; layers * row];
        let mut costs = vec![start[row - 1]];
        let (mut before, mut current) = (start, vec![f64::INFINITY; row]);
        let mut bounds: &[u32] = &vec![0; row];
        for (layer, begins) in begins.chunks_mut(row).enumerate() {
            let step = Layer {
                prefix,
                before: &before,
                bounds,
            };
            current[..=layer].fill(f64::INFINITY);
            step.fill(
                layer + 1,
                &mut current[layer + 1..],
                &mut begins[layer + 1..],
                layer,
                row - 1,
            );
            costs.push(current[row - 1]);
            std::mem::swap(&mut before, &mut current);
            bounds = begins;
        }
        Self { begins, costs }
    }

    /// Means of the `runs` runs, ascending.
    fn means(&self, prefix: &Prefix, runs: usize) -> Vec<f64> {
        let row = prefix.len() + 1;
        let mut end = prefix.len();
        let mut means = Vec::with_capacity(runs);
        for begins in self.begins.chunks(row).take(runs).rev() {
            let begin = begins[end] as usize;
            means.push(prefix.mean(begin, end));
            end = begin;
        }
        means.reverse();
        means
    }
}

/// One layer of the program from the one before.
#[derive(Clone, Copy)]
struct Layer<'a> {
    prefix: &'a Prefix,
    before: &'a [f64],
    /// Where the last runs of the layer before begin: with one more run none begins earlier.
    bounds: &'a [u32],
}

impl Layer<'_> {
    /// Fills the entries of the first `first..` values. Their last runs begin in `low..=high`.
    fn fill(self, first: usize, costs: &mut [f64], begins: &mut [u32], low: usize, high: usize) {
        let middle = costs.len() / 2;
        let (left, [cost, right @ ..]) = costs.split_at_mut(middle) else {
            return;
        };
        let (left_begins, [begin, right_begins @ ..]) = begins.split_at_mut(middle) else {
            return;
        };
        let end = first + middle;
        let best = self.last_run(end, low, high);
        (*cost, *begin) = (best.0, best.1 as u32);
        let mut lower = move || self.fill(first, left, left_begins, low, best.1);
        let mut upper = move || self.fill(end + 1, right, right_begins, best.1, high);
        if middle > PARALLEL {
            rayon::join(lower, upper);
        } else {
            lower();
            upper();
        }
    }

    /// Least cost of the first `end` values, and where its last run begins; of equals the earliest.
    #[inline]
    fn last_run(&self, end: usize, low: usize, high: usize) -> (f64, usize) {
        let high = high.min(end - 1);
        let low = low.max(self.bounds[end] as usize).min(high);
        let mut best = (f64::INFINITY, low);
        for (begin, before) in (low..).zip(&self.before[low..=high]) {
            let cost = before + self.prefix.cost(begin, end);
            if cost < best.0 {
                best = (cost, begin);
            }
        }
        best
    }
}
