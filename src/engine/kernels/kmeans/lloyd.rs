//! Clusters of sorted values by Lloyd's iteration.
//!
//! Owns: the iteration, where it starts. Must not know: rounding, when it is used.
//! Source: Lloyd 1982; starts by k-means++ (Arthur and Vassilvitskii 2007).
//! Invariant: an iteration takes O(k log n) and never adds cost; one seed gives one result.

use super::distinct::Distinct;
use super::exact;
use super::prefix::Prefix;
use crate::kernels::random::Random;

/// Iterations at most; few need more than a hundred.
const ITERATIONS: usize = 300;
/// Starts by k-means++, of which the best is kept.
const RESTARTS: usize = 4;
/// Parts into which values are merged before a start is looked for: at least two for each of 4,096 centroids.
const PARTS: usize = 1 << 13;
/// Parts into which values are merged before they are iterated over; a boundary is off by a millionth of all.
const FINE_PARTS: usize = 1 << 20;

/// Means of `k` clusters, ascending; one of them is held at zero where `zero` says so.
///
/// The start is the exact solution for merged values if that takes at most `affordable` evaluations, else the best of
/// several by k-means++ on them.
pub(super) fn centroids(distinct: &Distinct, k: usize, zero: bool, seed: u64, affordable: u64) -> Vec<f64> {
    let coarse = distinct.merged(PARTS);
    let start = if exact::evaluations(coarse.len(), k) > affordable {
        restarts(&coarse, k, zero, seed)
    } else if zero {
        exact::centroids_with_zero(&coarse, k)
    } else {
        exact::centroids(&coarse, k)
    };
    if distinct.len() <= 2 * FINE_PARTS {
        polished(distinct, start, zero)
    } else {
        polished(&distinct.merged(FINE_PARTS), start, zero)
    }
}

/// Iterates from given centroids until no value changes its cluster.
pub(super) fn polished(distinct: &Distinct, start: Vec<f64>, zero: bool) -> Vec<f64> {
    let prefix = Prefix::of(distinct);
    iterate(distinct, &prefix, start, zero).0
}

/// The best of several seeded starts, iterated.
fn restarts(distinct: &Distinct, k: usize, zero: bool, seed: u64) -> Vec<f64> {
    let prefix = Prefix::of(distinct);
    let mut random = Random::new(seed);
    let mut best = (Vec::new(), f64::INFINITY);
    for _ in 0..RESTARTS {
        let start = plus_plus(distinct, k, zero, &mut random);
        let made = iterate(distinct, &prefix, start, zero);
        if made.1 < best.1 {
            best = made;
        }
    }
    best.0
}

/// Centroids and their cost.
fn iterate(distinct: &Distinct, prefix: &Prefix, mut centroids: Vec<f64>, zero: bool) -> (Vec<f64>, f64) {
    let mut cuts = Vec::new();
    for _ in 0..ITERATIONS {
        let now = cuts_between(distinct.values(), &centroids);
        if now == cuts {
            break;
        }
        cuts = now;
        move_to_means(distinct, prefix, &cuts, &mut centroids, zero);
    }
    let cuts = cuts_between(distinct.values(), &centroids);
    let cost = cuts.windows(2).zip(&centroids).map(|(run, centroid)| {
        if run[0] == run[1] {
            return 0.0;
        }
        let weight: f64 = distinct.weights()[run[0]..run[1]].iter().sum();
        prefix.cost(run[0], run[1]) + weight * (prefix.mean(run[0], run[1]) - centroid).powi(2)
    });
    let cost = cost.sum();
    (centroids, cost)
}

/// Cluster `c` is `cuts[c]..cuts[c + 1]`: every value goes to its nearest centroid, of two equals to the lower.
pub(super) fn cuts_between(values: &[f32], centroids: &[f64]) -> Vec<usize> {
    let mut cuts = vec![0];
    for pair in centroids.windows(2) {
        let middle = 0.5 * (pair[0] + pair[1]);
        cuts.push(values.partition_point(|v| f64::from(*v) <= middle));
    }
    cuts.push(values.len());
    cuts
}

/// Centroids become the means of their clusters; those of empty ones go to the far ends of the clusters that cost most.
fn move_to_means(distinct: &Distinct, prefix: &Prefix, cuts: &[usize], centroids: &mut [f64], zero: bool) {
    let fixed = if zero {
        centroids.iter().position(|c| *c == 0.0)
    } else {
        None
    };
    let mut empty = Vec::new();
    let mut full = Vec::new();
    for (c, run) in cuts.windows(2).enumerate() {
        if run[0] < run[1] {
            full.push((prefix.cost(run[0], run[1]), run[0], run[1]));
        }
        if fixed == Some(c) {
            continue;
        }
        if run[0] == run[1] {
            empty.push(c);
        } else {
            centroids[c] = prefix.mean(run[0], run[1]);
        }
    }
    if empty.is_empty() {
        return;
    }
    full.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (c, (cost, from, to)) in empty.into_iter().zip(full) {
        if cost > 0.0 {
            let [low, high] = [from, to - 1].map(|i| f64::from(distinct.values()[i]));
            let mean = prefix.mean(from, to);
            centroids[c] = if mean - low > high - mean { low } else { high };
        }
    }
    centroids.sort_by(f64::total_cmp);
}

/// Values drawn by weight · squared distance to the nearest one drawn before, ascending.
fn plus_plus(distinct: &Distinct, k: usize, zero: bool, random: &mut Random) -> Vec<f64> {
    let (values, weights) = (distinct.values(), distinct.weights());
    let mut masses: Vec<f64> = weights.to_vec();
    let mut distances = vec![f64::INFINITY; values.len()];
    let mut made = Vec::with_capacity(k);
    let mut next = zero.then_some(0.0);
    while made.len() < k {
        let Some(centroid) = next.or_else(|| drawn(&masses, random).map(|i| f64::from(values[i]))) else {
            break;
        };
        next = None;
        made.push(centroid);
        for (((mass, distance), v), w) in masses.iter_mut().zip(&mut distances).zip(values).zip(weights) {
            *distance = distance.min((f64::from(*v) - centroid).powi(2));
            *mass = w * *distance;
        }
    }
    made.sort_by(f64::total_cmp);
    made
}

/// An index with a probability in proportion to its mass; none where there is no mass.
pub(super) fn drawn(masses: &[f64], random: &mut Random) -> Option<usize> {
    let total: f64 = masses.iter().sum();
    if total <= 0.0 {
        return None;
    }
    let mut left = random.share() * total;
    for (i, mass) in masses.iter().enumerate() {
        left -= mass;
        if left < 0.0 {
            return Some(i);
        }
    }
    // What rounding left over belongs to the last that has any.
    masses.iter().rposition(|mass| *mass > 0.0)
}
