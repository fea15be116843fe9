//! Bytes against loss, unit by unit.
//!
//! Owns: the convex hull of each unit's points, the way along all hulls by steepness, what is made of the rest.
//! Must not know: what a unit is. Invariant: ties go to the unit and the point that come first.
//!
//! Where the whole loss is the sum of its parts, the best choice under a limit has the same slope everywhere (Everett
//! 1963; Shoham and Gersho 1988): the points of each unit that matter lie on the lower hull, and the steps along all
//! hulls are taken in the order of what they gain a byte. What is left of the limit is then spent on single steps.

/// A scheme of a unit: what it takes and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Bytes.
    pub bytes: u64,
    /// Loss, 0 or more.
    pub loss: f64,
}

/// What is decided together: the points of its schemes, at least one.
pub type Unit = Vec<Point>;

/// Sum of the losses of what was chosen.
pub fn loss_of(units: &[Unit], chosen: &[usize]) -> f64 {
    units.iter().zip(chosen).map(|(unit, at)| unit[*at].loss).sum()
}

fn bytes_of(units: &[Unit], chosen: &[usize]) -> u64 {
    units.iter().zip(chosen).map(|(unit, at)| unit[*at].bytes).sum()
}

/// The smallest of each unit; of several, the one with the least loss.
pub fn smallest(units: &[Unit]) -> Vec<usize> {
    let order = |a: &Point, b: &Point| a.bytes.cmp(&b.bytes).then(a.loss.total_cmp(&b.loss));
    units.iter().map(|unit| least(unit, order)).collect()
}

/// The one of each unit that loses least; of several, the smallest.
pub fn largest(units: &[Unit]) -> Vec<usize> {
    let order = |a: &Point, b: &Point| a.loss.total_cmp(&b.loss).then(a.bytes.cmp(&b.bytes));
    units.iter().map(|unit| least(unit, order)).collect()
}

fn least(unit: &Unit, order: impl Fn(&Point, &Point) -> std::cmp::Ordering) -> usize {
    let places = 0..unit.len();
    places.min_by(|a, b| order(&unit[*a], &unit[*b])).unwrap_or(0)
}

/// A step along a unit's hull.
struct Step {
    unit: usize,
    to: usize,
    /// Loss that it takes away for a byte.
    gain: f64,
}

/// Points on the lower convex hull, from the smallest to the one that loses least.
fn hull(unit: &Unit) -> Vec<usize> {
    let mut order: Vec<usize> = (0..unit.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&unit[*a], &unit[*b]);
        a.bytes.cmp(&b.bytes).then(a.loss.total_cmp(&b.loss))
    });
    let gain = |from: usize, to: usize| {
        (unit[from].loss - unit[to].loss) / (unit[to].bytes - unit[from].bytes).max(1) as f64
    };
    let mut hull: Vec<usize> = Vec::new();
    for at in order {
        if hull.last().is_some_and(|last| unit[at].loss >= unit[*last].loss) {
            continue;
        }
        while let [.., before, last] = hull[..] {
            if gain(before, last) > gain(last, at) {
                break;
            }
            hull.pop();
        }
        hull.push(at);
    }
    hull
}

/// All steps along all hulls, those that gain most first; the steps of a unit are in their order.
fn steps(units: &[Unit]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (index, unit) in units.iter().enumerate() {
        for pair in hull(unit).windows(2) {
            let (from, to) = (&unit[pair[0]], &unit[pair[1]]);
            steps.push(Step {
                unit: index,
                to: pair[1],
                gain: (from.loss - to.loss) / (to.bytes - from.bytes).max(1) as f64,
            });
        }
    }
    steps.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    steps
}

/// The least loss that fits into so many bytes; none if nothing does.
pub fn within_bytes(units: &[Unit], limit: u64) -> Option<Vec<usize>> {
    let mut chosen = smallest(units);
    let mut left = limit.checked_sub(bytes_of(units, &chosen))?;
    let mut stuck = vec![false; units.len()];
    for step in steps(units) {
        let unit = &units[step.unit];
        let more = unit[step.to].bytes - unit[chosen[step.unit]].bytes;
        if stuck[step.unit] || more > left {
            // The steps behind it begin where it would have ended.
            stuck[step.unit] = true;
            continue;
        }
        chosen[step.unit] = step.to;
        left -= more;
    }
    while let Some((unit, to)) = upgrade(units, &chosen, left) {
        left -= units[unit][to]
            .bytes
            .saturating_sub(units[unit][chosen[unit]].bytes);
        chosen[unit] = to;
    }
    Some(chosen)
}

/// The single change within `left` bytes that gains most.
fn upgrade(units: &[Unit], chosen: &[usize], left: u64) -> Option<(usize, usize)> {
    let mut best: Option<((usize, usize), f64)> = None;
    for (index, unit) in units.iter().enumerate() {
        let now = unit[chosen[index]];
        for (to, point) in unit.iter().enumerate() {
            let gain = now.loss - point.loss;
            let fits = point.bytes <= now.bytes.saturating_add(left);
            if fits && gain > 0.0 && best.is_none_or(|(_, most)| gain > most) {
                best = Some(((index, to), gain));
            }
        }
    }
    best.map(|(change, _)| change)
}

/// The fewest bytes that lose at most so much; none if even the most bytes lose more.
pub fn within_loss(units: &[Unit], limit: f64) -> Option<Vec<usize>> {
    let mut chosen = smallest(units);
    let mut loss = loss_of(units, &chosen);
    for step in steps(units) {
        if loss <= limit {
            break;
        }
        chosen[step.unit] = step.to;
        loss = loss_of(units, &chosen);
    }
    if loss > limit {
        return None;
    }
    while let Some((unit, to)) = downgrade(units, &chosen, limit - loss) {
        chosen[unit] = to;
        loss = loss_of(units, &chosen);
    }
    Some(chosen)
}

/// The single change that saves most bytes and costs at most `left`.
fn downgrade(units: &[Unit], chosen: &[usize], left: f64) -> Option<(usize, usize)> {
    let mut best: Option<((usize, usize), u64)> = None;
    for (index, unit) in units.iter().enumerate() {
        let now = unit[chosen[index]];
        for (to, point) in unit.iter().enumerate() {
            let saved = now.bytes.saturating_sub(point.bytes);
            let fits = point.loss - now.loss <= left;
            if fits && saved > 0 && best.is_none_or(|(_, most)| saved > most) {
                best = Some(((index, to), saved));
            }
        }
    }
    best.map(|(change, _)| change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(bytes: u64, loss: f64) -> Point {
        Point { bytes, loss }
    }

    fn units() -> impl Strategy<Value = Vec<Unit>> {
        let point = (1u64..60, 0u32..60).prop_map(|(bytes, loss)| point(bytes, f64::from(loss)));
        prop::collection::vec(prop::collection::vec(point, 1..5), 1..5)
    }

    /// Every choice there is.
    fn all(units: &[Unit]) -> Vec<Vec<usize>> {
        units.iter().fold(vec![Vec::new()], |choices, unit| {
            let longer =
                |choice: Vec<usize>| (0..unit.len()).map(move |at| [choice.clone(), vec![at]].concat());
            choices.into_iter().flat_map(longer).collect()
        })
    }

    /// Between two points of the hull nothing is gained: 4 bytes for 9 is worse than half of each neighbour.
    #[test]
    fn the_hull_leaves_out_what_a_mixture_beats() {
        let unit = vec![
            point(2, 10.0),
            point(4, 9.0),
            point(6, 2.0),
            point(8, 2.0),
            point(9, 0.0),
        ];
        assert_eq!(hull(&unit), [0, 2, 4]);
    }

    #[test]
    fn bytes_go_where_they_gain_most() {
        // The first gains 4 a byte, the second 1.
        let units = vec![
            vec![point(10, 8.0), point(12, 0.0)],
            vec![point(10, 4.0), point(14, 0.0)],
        ];
        assert_eq!(within_bytes(&units, 23), Some(vec![1, 0]));
        assert_eq!(within_bytes(&units, 26), Some(vec![1, 1]));
        assert_eq!(within_bytes(&units, 19), None);
        assert_eq!(within_loss(&units, 4.0), Some(vec![1, 0]));
        assert_eq!(within_loss(&units, -1.0), None);
    }

    proptest! {
        /// Against every choice there is: the limit holds, there is one whenever one exists, and what a step more would
        /// take is the most that is lost to the best one.
        #[test]
        fn within_bytes_is_next_to_the_best(units in units(), limit in 1u64..240) {
            let fitting = all(&units).into_iter().filter(|c| bytes_of(&units, c) <= limit);
            let best = fitting.map(|c| loss_of(&units, &c)).min_by(f64::total_cmp);
            let chosen = within_bytes(&units, limit);
            prop_assert_eq!(chosen.is_some(), best.is_some());
            if let (Some(chosen), Some(best)) = (chosen, best) {
                prop_assert!(bytes_of(&units, &chosen) <= limit);
                let steepest = units.iter().flat_map(|unit| unit.iter().map(|p| p.loss)).fold(0.0, f64::max);
                prop_assert!(loss_of(&units, &chosen) <= best + steepest);
                prop_assert!(upgrade(&units, &chosen, limit - bytes_of(&units, &chosen)).is_none());
            }
        }

        #[test]
        fn within_loss_keeps_it_and_no_single_step_saves_more(units in units(), limit in 0u32..240) {
            let limit = f64::from(limit);
            let possible = all(&units).iter().any(|c| loss_of(&units, c) <= limit);
            let chosen = within_loss(&units, limit);
            prop_assert_eq!(chosen.is_some(), possible);
            if let Some(chosen) = chosen {
                prop_assert!(loss_of(&units, &chosen) <= limit);
                prop_assert!(downgrade(&units, &chosen, limit - loss_of(&units, &chosen)).is_none());
            }
        }
    }
}
