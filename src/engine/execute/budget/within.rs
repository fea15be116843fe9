//! A limit on size: the least loss within it.
//!
//! Owns: the order of trials. Must not know: how a choice is measured.
//! Invariant: nothing is chosen by the data that the result is evaluated on.

use super::trials::Trials;
use super::{Choice, Found, Search};
use crate::error::Result;
use crate::execute::course::Course;
use crate::plan::Plan;
use crate::recipe::{Budget, Metric};
use crate::report::Round;
use crate::search::{Forecast, Sample, loss_of};

pub(super) fn search<'a>(search: &mut Search<'a>, course: &'a Course<'a>) -> Result<Found> {
    let (most, of_files) = match search.budget.budget.limit {
        Budget::TargetBitsPerWeight(bits) => {
            let bytes = bits * search.made.plan.parameter_count as f64 / 8.0;
            (bytes as u64, false)
        }
        Budget::TargetBytes(bytes) => (bytes, true),
        Budget::MaxPerplexityIncrease(_) | Budget::MaxKl(_) | Budget::MaxAccuracyDrop(_) => (u64::MAX, true),
    };
    let size = |plan: &Plan| {
        let format = &plan.formats[0];
        if of_files {
            format.bytes
        } else {
            format.weight_bytes
        }
    };
    let first = search.within(most, size)?;
    let rounds = search.budget.budget.max_rounds as usize;
    let expected = 1 + rounds + search.class_count();
    let mut trials = Trials::on_calibration(course, [0.0, 1.0], expected);
    let mut done = vec![try_out(search, &mut trials, first)?];
    if rounds > 1 {
        search.correct(&done[0].0, &mut trials)?;
    }
    // What was measured moves the losses; the choice that follows is tried until it is one that was.
    while done.len() < rounds && rounds > 1 {
        let next = search.within(most, size)?;
        if done.iter().any(|(choice, _)| choice.chosen == next.chosen) {
            break;
        }
        let next = try_out(search, &mut trials, next)?;
        done.push(next);
    }
    Ok(found(search, done))
}

fn try_out<'a>(search: &mut Search<'a>, trials: &mut Trials<'a>, choice: Choice) -> Result<(Choice, f64)> {
    let kl = trials.kl(search, &choice.plan, &choice.words())?;
    Ok((choice, kl))
}

/// The best of those that were tried.
fn found(search: &Search<'_>, done: Vec<(Choice, f64)>) -> Found {
    let said = |choice: &Choice| loss_of(&search.units, &choice.chosen);
    let samples: Vec<Sample> = done
        .iter()
        .map(|(choice, kl)| Sample {
            said: said(choice),
            measured: *kl,
        })
        .collect();
    let forecast = Forecast::of(&samples);
    let best = (0..done.len())
        .min_by(|a, b| done[*a].1.total_cmp(&done[*b].1))
        .unwrap_or(0);
    let rounds = done.iter().enumerate().map(|(at, (choice, kl))| Round {
        bytes: choice.plan.formats[0].bytes,
        bits_per_weight: choice.plan.formats[0].bits_per_weight,
        predicted_kl: choice.said,
        metric: Metric::Kl.name().to_owned(),
        measured: *kl,
        interval: None,
        kept: at == best,
    });
    let rounds = rounds.collect();
    let mut choices: Vec<Choice> = done.into_iter().map(|(choice, _)| choice).collect();
    let mut choice = choices.swap_remove(best);
    choice.said = loss_of(&search.units, &choice.chosen);
    Found {
        choice,
        held: true,
        rounds,
        forecast,
    }
}
