//! Which of several results are worth having: none of the others is smaller and loses less.
//!
//! Owns: the Pareto front over size, loss and, where it is known, speed, and what each point of it is best for. Must not
//! know: what was measured.
//! Invariant: a point is on the front unless another is at least as good in all and better in one.

/// A result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Bytes.
    pub bytes: u64,
    /// Loss; may be below 0 where a metric improved.
    pub loss: f64,
    /// Seconds a decoded token, where they are known of all results.
    pub seconds: Option<f64>,
}

/// What a result is best for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BestFor {
    /// It has the fewest bytes of all.
    Size,
    /// It loses least of all.
    Quality,
    /// It decodes fastest of all.
    Speed,
    /// It lies farthest below the straight line between those two, on logarithmic scales.
    Balance,
}

fn beats(a: &Outcome, b: &Outcome) -> bool {
    let (slower, faster) = a
        .seconds
        .zip(b.seconds)
        .map_or((false, false), |(a, b)| (a > b, a < b));
    a.bytes <= b.bytes && a.loss <= b.loss && !slower && (a.bytes < b.bytes || a.loss < b.loss || faster)
}

/// Places of those on the front, from the smallest to the largest. Of equals all are.
pub fn front(results: &[Outcome]) -> Vec<usize> {
    let is_beaten = |at: &usize| results.iter().any(|other| beats(other, &results[*at]));
    let mut front: Vec<usize> = (0..results.len()).filter(|at| !is_beaten(at)).collect();
    front.sort_by(|a, b| {
        let (a, b) = (&results[*a], &results[*b]);
        a.bytes.cmp(&b.bytes).then(a.loss.total_cmp(&b.loss))
    });
    front
}

/// What the points of a front are best for, each at most one thing.
pub fn best_for(results: &[Outcome], front: &[usize]) -> Vec<(usize, BestFor)> {
    // Size against loss, whatever is fast.
    let plane: Vec<usize> = {
        let beaten = |at: &usize| {
            let flat = |at: usize| Outcome {
                seconds: None,
                ..results[at]
            };
            front.iter().any(|other| beats(&flat(*other), &flat(*at)))
        };
        front.iter().copied().filter(|at| !beaten(at)).collect()
    };
    let mut best = best_on_plane(results, &plane);
    let timed = front.iter().copied().filter(|at| results[*at].seconds.is_some());
    let fastest = timed.min_by(|a, b| {
        let seconds = |at: usize| results[at].seconds.unwrap_or(f64::INFINITY);
        seconds(*a).total_cmp(&seconds(*b))
    });
    best.extend(
        fastest
            .filter(|at| best.iter().all(|(other, _)| other != at))
            .map(|at| (at, BestFor::Speed)),
    );
    best
}

fn best_on_plane(results: &[Outcome], front: &[usize]) -> Vec<(usize, BestFor)> {
    let (Some(first), Some(last)) = (front.first(), front.last()) else {
        return Vec::new();
    };
    if first == last {
        return vec![(*first, BestFor::Quality)];
    }
    let mut best = vec![(*first, BestFor::Size), (*last, BestFor::Quality)];
    // What improved counts as next to nothing lost.
    let least = results
        .iter()
        .map(|r| r.loss)
        .filter(|loss| *loss > 0.0)
        .fold(1.0, f64::min);
    let place = |at: usize| {
        let result = &results[at];
        (
            (result.bytes.max(1) as f64).ln(),
            result.loss.max(least / 10.0).ln(),
        )
    };
    let ((x0, y0), (x1, y1)) = (place(*first), place(*last));
    let below = |at: usize| {
        let (x, y) = place(at);
        y0 + (y1 - y0) * (x - x0) / (x1 - x0).max(f64::MIN_POSITIVE) - y
    };
    let between = front[1..front.len() - 1].iter().copied();
    let middle = between.max_by(|a, b| below(*a).total_cmp(&below(*b)));
    best.extend(
        middle
            .filter(|at| below(*at) > 0.0)
            .map(|at| (at, BestFor::Balance)),
    );
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn results(points: &[(u64, f64)]) -> Vec<Outcome> {
        points
            .iter()
            .map(|(bytes, loss)| Outcome {
                bytes: *bytes,
                loss: *loss,
                seconds: None,
            })
            .collect()
    }

    #[test]
    fn the_front_goes_from_the_smallest_to_the_best() {
        let all = results(&[
            (80, 0.4),
            (100, 0.03),
            (110, 0.05),
            (140, 0.003),
            (150, 0.003),
            (90, 0.39),
        ]);
        assert_eq!(front(&all), [0, 5, 1, 3]);
        let best = best_for(&all, &front(&all));
        assert_eq!(
            best,
            [(0, BestFor::Size), (3, BestFor::Quality), (1, BestFor::Balance)]
        );
        assert_eq!(best_for(&all[..1], &[0]), [(0, BestFor::Quality)]);
        assert!(best_for(&[], &[]).is_empty());
    }

    /// What is larger and loses more is worth having where it is faster.
    #[test]
    fn speed_is_worth_bytes() {
        let timed = |bytes, loss, seconds| Outcome {
            bytes,
            loss,
            seconds: Some(seconds),
        };
        let all = [
            timed(80, 0.4, 0.02),
            timed(100, 0.03, 0.03),
            timed(120, 0.05, 0.01),
            timed(130, 0.05, 0.01),
        ];
        assert_eq!(front(&all), [0, 1, 2]);
        assert_eq!(
            best_for(&all, &front(&all)),
            [(0, BestFor::Size), (1, BestFor::Quality), (2, BestFor::Speed)]
        );
    }

    #[test]
    fn a_metric_that_improved_is_no_trap() {
        let all = results(&[(80, 0.4), (100, 0.01), (140, -0.002)]);
        assert_eq!(best_for(&all, &front(&all)).len(), 3);
    }

    proptest! {
        #[test]
        fn whatever_is_not_on_it_is_beaten_by_something_that_is(
            points in prop::collection::vec((1u64..20, 0u32..20, 1u32..20), 0..24), timed: bool,
        ) {
            let all: Vec<Outcome> = points.iter().map(|(b, l, s)| Outcome {
                bytes: *b, loss: f64::from(*l), seconds: timed.then_some(f64::from(*s)),
            }).collect();
            let front = front(&all);
            for at in 0..all.len() {
                let beaten = front.iter().any(|f| beats(&all[*f], &all[at]));
                prop_assert_eq!(beaten, !front.contains(&at));
            }
        }
    }
}
