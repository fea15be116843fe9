//! Ranks of many matrices under one budget of parameters.
//!
//! Owns: which matrix gets the next parameters. Must not know: where loss curves come from, how much a matrix matters (its
//! curve is given weighed).
//! Invariant: the sum of costs is at most the budget; the same curves give the same ranks, ties go to the earlier matrix.
//!
//! The sum of losses is least, up to one step of one matrix, where every matrix is on the lower convex hull of its curve and
//! all slopes of last steps reach the same multiplier λ (Everett 1963). Taking hull steps by falling slope finds that point; what
//! the budget has left then goes to single ranks in the order of what they gain per parameter.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::error::{Error, Result};

/// What a matrix would lose at every rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Loss at rank 0, 1, …: not negative, never rising; those of [`super::svd::Decomposition::losses`], times the weight of
    /// the matrix.
    pub losses: Vec<f64>,
    /// Smallest rank it may get: at least 1.
    pub least: usize,
    /// Whether it may also stay as it is, at rows · cols parameters and no loss.
    pub may_stay: bool,
}

/// What a matrix gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Two factors of this rank.
    Rank(usize),
    /// It is not factored.
    Whole,
}

/// What all get.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// In the order of the curves.
    pub shares: Vec<Share>,
    /// Parameters taken.
    pub parameters: u64,
    /// Sum of losses.
    pub loss: f64,
}

/// Bytes that [`allocate`] holds at its peak, for so many ranks of all curves together.
pub fn working_bytes(ranks: usize) -> u64 {
    // A choice, and its place in a hull.
    2 * (size_of::<Choice>() * ranks) as u64
}

/// One point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    cost: u64,
    loss: f64,
    share: Share,
}

/// A step on a hull; the greatest is taken next.
struct Step {
    /// Loss saved per parameter.
    slope: f64,
    matrix: usize,
    /// Point of the hull that it leads to.
    to: usize,
}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> Ordering {
        let slope = self.slope.total_cmp(&other.slope);
        slope
            .then(other.matrix.cmp(&self.matrix))
            .then(other.to.cmp(&self.to))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Step {}

/// Shares a budget of parameters so that the sum of losses is least.
///
/// # Errors
/// `budget_too_small` where the smallest ranks alone take more; `bad_curve` where a loss is not finite, negative or rises.
pub fn allocate(curves: &[Curve], budget: u64) -> Result<Allocation> {
    let choices: Vec<Vec<Choice>> = curves.iter().enumerate().map(choices).collect::<Result<_>>()?;
    let hulls: Vec<Vec<Choice>> = choices.iter().map(|choices| hull(choices)).collect();
    let mut taken: Vec<Choice> = choices.iter().map(|choices| choices[0]).collect();
    let least: u64 = taken.iter().map(|choice| choice.cost).sum();
    let mut left = budget.checked_sub(least).ok_or_else(|| {
        Error::bad_input(
            "budget_too_small",
            format!("{budget} parameters are fewer than the {least} that the smallest ranks take"),
        )
    })?;
    climb(&hulls, &mut taken, &mut left);
    fill(&choices, &mut taken, &mut left);
    Ok(Allocation {
        shares: taken.iter().map(|choice| choice.share).collect(),
        parameters: budget - left,
        loss: taken.iter().map(|choice| choice.loss).sum(),
    })
}

/// Steps by falling slope; a matrix whose next step does not fit stays where it is.
fn climb(hulls: &[Vec<Choice>], taken: &mut [Choice], left: &mut u64) {
    let mut steps: BinaryHeap<Step> = (0..hulls.len()).filter_map(|m| step(&hulls[m], m, 1)).collect();
    while let Some(Step { matrix, to, .. }) = steps.pop() {
        let next = hulls[matrix][to];
        let Some(rest) = left.checked_sub(next.cost - taken[matrix].cost) else {
            continue;
        };
        *left = rest;
        taken[matrix] = next;
        steps.extend(step(&hulls[matrix], matrix, to + 1));
    }
}

fn step(hull: &[Choice], matrix: usize, to: usize) -> Option<Step> {
    let (from, next) = (hull[to - 1], hull.get(to)?);
    let slope = (from.loss - next.loss) / (next.cost - from.cost) as f64;
    (slope > 0.0).then_some(Step { slope, matrix, to })
}

/// What is left goes, time after time, to the choice that gains most per parameter among those that still fit.
fn fill(choices: &[Vec<Choice>], taken: &mut [Choice], left: &mut u64) {
    loop {
        let mut best: Option<(f64, usize, Choice)> = None;
        for (matrix, choices) in choices.iter().enumerate() {
            let now = taken[matrix];
            let behind = choices.partition_point(|choice| choice.cost <= now.cost);
            let fits = choices[behind..]
                .iter()
                .take_while(|choice| choice.cost - now.cost <= *left);
            for choice in fits {
                let slope = (now.loss - choice.loss) / (choice.cost - now.cost) as f64;
                if slope > best.map_or(0.0, |(slope, ..)| slope) {
                    best = Some((slope, matrix, *choice));
                }
            }
        }
        let Some((_, matrix, choice)) = best else { return };
        *left -= choice.cost - taken[matrix].cost;
        taken[matrix] = choice;
    }
}

/// Choices of a curve by rising cost. Ranks that cost as much as the whole are none where it may stay.
fn choices((at, curve): (usize, &Curve)) -> Result<Vec<Choice>> {
    let falls = curve.losses.windows(2).all(|two| two[0] >= two[1]);
    if !falls || !curve.losses.iter().all(|loss| loss.is_finite() && *loss >= 0.0) {
        return Err(bad_curve(at, "its losses are negative, not finite or rise"));
    }
    let whole = curve.rows as u64 * curve.cols as u64;
    let least = curve.least.max(1);
    let mut out: Vec<Choice> = (least..curve.losses.len())
        .map(|rank| Choice {
            cost: rank as u64 * (curve.rows as u64 + curve.cols as u64),
            loss: curve.losses[rank],
            share: Share::Rank(rank),
        })
        .filter(|choice| !curve.may_stay || choice.cost < whole)
        .collect();
    if curve.may_stay {
        out.push(Choice {
            cost: whole,
            loss: 0.0,
            share: Share::Whole,
        });
    }
    if out.is_empty() || whole == 0 {
        return Err(bad_curve(at, "it has no rank that is allowed"));
    }
    Ok(out)
}

fn bad_curve(at: usize, what: &str) -> Error {
    Error::bad_input("bad_curve", format!("loss curve {at} cannot be used: {what}"))
}

/// The lower convex hull: slopes fall strictly.
fn hull(choices: &[Choice]) -> Vec<Choice> {
    let mut out: Vec<Choice> = Vec::with_capacity(choices.len());
    for choice in choices {
        while let [.., before, last] = out.as_slice() {
            let slope = |a: &Choice, b: &Choice| (a.loss - b.loss) / (b.cost - a.cost) as f64;
            if slope(before, last) > slope(last, choice) {
                break;
            }
            out.pop();
        }
        out.push(*choice);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Random;
    use proptest::prelude::*;

    fn curve(rows: usize, cols: usize, losses: &[f64]) -> Curve {
        Curve {
            rows,
            cols,
            losses: losses.to_vec(),
            least: 1,
            may_stay: false,
        }
    }

    fn falling(ranks: usize, random: &mut Random) -> Vec<f64> {
        let mut losses: Vec<f64> = (0..ranks).map(|_| random.share() * 10.0).collect();
        losses.sort_by(|a, b| b.total_cmp(a));
        losses
    }

    /// Least loss over all combinations.
    fn exhaustive(choices: &[Vec<Choice>], budget: u64) -> Option<f64> {
        let Some((first, rest)) = choices.split_first() else {
            return Some(0.0);
        };
        first
            .iter()
            .filter_map(|choice| Some(choice.loss + exhaustive(rest, budget.checked_sub(choice.cost)?)?))
            .min_by(f64::total_cmp)
    }

    #[test]
    fn parameters_go_where_they_save_most() {
        let curves = [
            curve(4, 4, &[9.0, 8.0, 7.5, 7.4, 7.4]),
            curve(4, 4, &[90.0, 50.0, 20.0, 5.0, 0.0]),
        ];
        let found = allocate(&curves, 40).unwrap();
        assert_eq!(found.shares, [Share::Rank(1), Share::Rank(4)]);
        assert_eq!((found.parameters, found.loss), (40, 8.0));
        let found = allocate(&curves, 1000).unwrap();
        // Rank 4 of the first saves nothing.
        assert_eq!(found.shares[0], Share::Rank(3));
    }

    #[test]
    fn a_matrix_may_stay_whole_where_factors_would_be_as_large() {
        let mut curves = [curve(4, 4, &[9.0, 6.0, 4.0, 2.0, 0.0])];
        curves[0].may_stay = true;
        assert_eq!(allocate(&curves, 15).unwrap().shares, [Share::Rank(1)]);
        let found = allocate(&curves, 16).unwrap();
        assert_eq!(
            (found.shares.as_slice(), found.loss, found.parameters),
            ([Share::Whole].as_slice(), 0.0, 16)
        );
    }

    #[test]
    fn what_cannot_be_shared_is_refused() {
        let run = |losses: &[f64], budget| allocate(&[curve(2, 2, losses)], budget).unwrap_err().code;
        assert_eq!(run(&[3.0, 2.0], 3), "budget_too_small");
        assert_eq!(run(&[3.0, 4.0], 9), "bad_curve");
        assert_eq!(run(&[3.0, f64::NAN], 9), "bad_curve");
        assert_eq!(run(&[3.0, -1.0], 9), "bad_curve");
        assert_eq!(run(&[3.0], 9), "bad_curve");
        assert_eq!(allocate(&[], 0).unwrap().shares, []);
    }

    proptest! {
        #[test]
        fn no_combination_is_better_by_more_than_one_step(seed in any::<u64>(), extra in 0_u64..120) {
            let mut random = Random::new(seed);
            let curves: Vec<Curve> = (0..3)
                .map(|_| {
                    let (rows, cols) = (1 + random.below(6) as usize, 1 + random.below(6) as usize);
                    Curve { may_stay: random.below(2) == 0, ..curve(rows, cols, &falling(6, &mut random)) }
                })
                .collect();
            let all: Vec<Vec<Choice>> = curves.iter().enumerate().map(|c| choices(c).unwrap()).collect();
            let budget = all.iter().map(|c| c[0].cost).sum::<u64>() + extra;
            let found = allocate(&curves, budget).unwrap();
            prop_assert!(found.parameters <= budget);
            let best = exhaustive(&all, budget).unwrap();
            let step = all.iter().map(|c| c[0].loss - c[c.len() - 1].loss).fold(0.0, f64::max);
            prop_assert!(found.loss >= best - 1e-9 && found.loss <= best + step + 1e-9);
            // More never hurts where all are convex, and the answer is the same again.
            prop_assert_eq!(found, allocate(&curves, budget).unwrap());
        }

        /// Of curves that bend upwards and cost the same per rank, the greedy answer is the best there is.
        #[test]
        fn convex_curves_of_equal_cost_are_shared_at_the_optimum(seed in any::<u64>(), ranks in 3_u64..18) {
            let mut random = Random::new(seed);
            let curves: Vec<Curve> = (0..3)
                .map(|_| {
                    let steps = falling(6, &mut random);
                    let losses: Vec<f64> = (0..=6).map(|rank| steps[rank..].iter().sum()).collect();
                    curve(5, 3, &losses)
                })
                .collect();
            let all: Vec<Vec<Choice>> = curves.iter().enumerate().map(|c| choices(c).unwrap()).collect();
            let found = allocate(&curves, 8 * ranks).unwrap();
            prop_assert!((found.loss - exhaustive(&all, 8 * ranks).unwrap()).abs() < 1e-9);
        }
    }
}
