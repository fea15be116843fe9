//! A limit on quality: the fewest bytes that keep it.
//!
//! Owns: the way from choice to choice, between one that keeps the limit and one that misses it. Must not know: how a
//! choice is measured. Invariant: what is handed back keeps the limit with the upper end of its interval, or is said not
//! to.

use super::trials::Trials;
use super::{Choice, Found, Search};
use crate::error::{Error, Result};
use crate::evaluate::Measure;
use crate::execute::course::Course;
use crate::recipe::{Budget, Metric};
use crate::report::Round;
use crate::search::{Forecast, Sample, largest, loss_of, within_loss};

/// What a nat of divergence does to the logarithm of perplexity before anything is measured.
const PERPLEXITY_A_NAT: f64 = 0.8;

/// Sizes so near each other, as a share, need no further trial between them.
const NEAR: f64 = 0.002;

/// A choice that was measured.
struct Tried {
    choice: Choice,
    said: f64,
    metric: String,
    kl: f64,
    /// What the limit is on, and its interval.
    lost: f64,
    interval: [f64; 2],
    /// Its upper end.
    upper: f64,
}

pub(super) fn search<'a>(search: &mut Search<'a>, course: &'a Course<'a>) -> Result<Found> {
    let limit = search.budget.budget.limit;
    let (metric, most, first) = match limit {
        Budget::MaxPerplexityIncrease(share) => (Metric::Perplexity, share, share.ln_1p() / PERPLEXITY_A_NAT),
        Budget::MaxKl(kl) | Budget::TargetBitsPerWeight(kl) => (Metric::Kl, kl, kl),
        // As many answers change as the distributions differ in total variation; Pinsker bounds that by the divergence.
        Budget::MaxAccuracyDrop(share) => (Metric::Accuracy, share, 2.0 * share * share),
        Budget::TargetBytes(_) => return Err(Error::internal("a size is no limit on quality")),
    };
    let rounds = search.budget.budget.max_rounds as usize;
    let begin = at_most(search, first)?;
    let classes = search.class_count();
    let parts = (classes + 1) as f64 / (classes + 2 + 3 * rounds) as f64;
    if rounds > 1 {
        // Let go before the next: each holds the original's states.
        let mut trials = Trials::on_calibration(course, [0.0, parts], 1 + classes);
        search.correct(&begin, &mut trials)?;
    }
    let metrics = if metric == Metric::Kl {
        vec![metric]
    } else {
        vec![metric, Metric::Kl]
    };
    let mut trials = Trials::on_evaluation(course, metrics, [parts, 1.0], 1 + rounds);
    let mut tried: Vec<Tried> = Vec::new();
    let mut ask = first;
    while tried.len() < rounds {
        let choice = at_most(search, ask)?;
        if tried.iter().any(|t| t.choice.chosen == choice.chosen) {
            break;
        }
        let measures = trials.measure(search, &choice.plan, &choice.words())?;
        tried.push(judged(search, choice, &measures, metric)?);
        let Some(next) = next_loss(&tried, most) else {
            break;
        };
        ask = next;
    }
    found(search, tried, most)
}

/// The smallest choice that loses at most so much, or the one that loses least.
fn at_most(search: &Search<'_>, loss: f64) -> Result<Choice> {
    search.planned(within_loss(&search.units, loss).unwrap_or_else(|| largest(&search.units)))
}

fn judged(search: &Search<'_>, choice: Choice, measures: &[Measure], metric: Metric) -> Result<Tried> {
    let of = |metric: Metric| measures.iter().find(|m| m.metric == metric.name());
    let none = || Error::internal("a trial without its metric");
    let measure = of(metric).ok_or_else(none)?;
    let (lost, interval) = lost(measure, metric);
    Ok(Tried {
        said: loss_of(&search.units, &choice.chosen),
        kl: of(Metric::Kl).ok_or_else(none)?.after,
        choice,
        metric: measure.metric.clone(),
        lost,
        interval,
        upper: interval[1],
    })
}

/// What is lost by a metric, with its interval: accuracy falls where others grow.
fn lost(measure: &Measure, metric: Metric) -> (f64, [f64; 2]) {
    let change = measure.change.unwrap_or(measure.after);
    let interval = measure.change_interval.unwrap_or(measure.interval);
    if metric == Metric::Accuracy {
        (-change, [-interval[1], -interval[0]])
    } else {
        (change, interval)
    }
}

/// The loss to ask for next; none where no further trial is worth it.
fn next_loss(tried: &[Tried], most: f64) -> Option<f64> {
    let last = tried.last()?;
    let best = smallest_kept(tried, most);
    let missed = tried
        .iter()
        .filter(|t| t.upper > most)
        .max_by_key(|t| t.choice.plan.formats[0].bytes);
    // What is on the limit by what the last one was measured to cost.
    let scaled = if last.upper > 0.0 {
        last.said * most / last.upper
    } else {
        2.0 * last.said
    };
    match (best, missed) {
        (Some(kept), Some(missed)) => {
            let (large, small) = (
                kept.choice.plan.formats[0].bytes,
                missed.choice.plan.formats[0].bytes,
            );
            if large <= small || (large - small) as f64 <= NEAR * large as f64 || missed.said <= kept.said {
                return None;
            }
            let [low, high] = [kept.said, missed.said].map(|said| said.max(f64::MIN_POSITIVE).ln());
            let within = scaled.max(f64::MIN_POSITIVE).ln();
            let margin = 0.15 * (high - low);
            Some(within.clamp(low + margin, high - margin).exp())
        }
        (Some(kept), None) => Some(scaled.clamp(1.05 * kept.said, 4.0 * kept.said)),
        (None, Some(missed)) if missed.said <= 0.0 => None,
        (None, Some(_)) => Some(scaled.clamp(0.1 * last.said, 0.95 * last.said)),
        (None, None) => None,
    }
}

fn smallest_kept(tried: &[Tried], most: f64) -> Option<&Tried> {
    let kept = tried.iter().filter(|t| t.upper <= most);
    kept.min_by_key(|t| t.choice.plan.formats[0].bytes)
}

/// The smallest that kept the limit; where none did, the one that came nearest.
fn found(search: &Search<'_>, mut tried: Vec<Tried>, most: f64) -> Result<Found> {
    let samples: Vec<Sample> = tried
        .iter()
        .map(|t| Sample {
            said: t.said,
            measured: t.kl,
        })
        .collect();
    let bytes = |t: &Tried| t.choice.plan.formats[0].bytes;
    let places = 0..tried.len();
    let kept = places.clone().filter(|at| tried[*at].upper <= most);
    let held = kept.clone().next().is_some();
    let best = kept.min_by_key(|at| bytes(&tried[*at]));
    let best = best.or_else(|| places.min_by(|a, b| tried[*a].upper.total_cmp(&tried[*b].upper)));
    let best = best.ok_or_else(|| Error::internal("no choice was tried"))?;
    let rounds = tried.iter().enumerate().map(|(at, t)| Round {
        bytes: bytes(t),
        bits_per_weight: t.choice.plan.formats[0].bits_per_weight,
        predicted_kl: t.choice.said,
        metric: t.metric.clone(),
        measured: t.lost,
        interval: Some(t.interval),
        kept: at == best,
    });
    let rounds = rounds.collect();
    let mut choice = tried.swap_remove(best).choice;
    choice.said = loss_of(&search.units, &choice.chosen);
    Ok(Found {
        choice,
        held,
        rounds,
        forecast: Forecast::of(&samples),
    })
}
