//! What two classifiers answer.
//!
//! Owns: accuracy against labels, divergence and agreement of the two models' classes, labels to class numbers.
//! Must not know: weights. Invariant: a label that the model cannot answer is refused, never counted as a miss.

use super::distributions::{first, pair};
use super::{Measure, Resampled};
use crate::checkpoint::Checkpoint;
use crate::dataset::Label;
use crate::error::{Error, Result};
use crate::recipe::Metric;
use serde_json::Value;

/// One sequence's answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Class that each model puts first.
    first: [usize; 2],
    kl: f64,
}

/// Answers of sequences whose logits lie one after another.
pub(super) fn answers(before: &[f32], after: &[f32], classes: usize) -> Vec<Answer> {
    let rows = before
        .chunks_exact(classes.max(1))
        .zip(after.chunks_exact(classes.max(1)));
    rows.map(|(before, after)| Answer {
        first: [first(before), first(after)],
        kl: pair(before, after).kl,
    })
    .collect()
}

/// One metric of all sequences; `labels` has the right class of each, where the dataset says so.
pub(super) fn measure(metric: Metric, answers: &[Answer], labels: &[usize], seed: u64) -> Measure {
    let mean = |at: &[usize], of: &dyn Fn(usize) -> f64| {
        at.iter().map(|i| of(*i)).sum::<f64>() / at.len().max(1) as f64
    };
    let share = |is: bool| f64::from(u8::from(is));
    let right = |side: usize, i: usize| share(labels.get(i) == Some(&answers[i].first[side]));
    let items = Resampled {
        metric,
        items: answers.len(),
        seed,
    };
    match metric {
        Metric::Accuracy => items.pair(
            &|at| mean(at, &|i| right(0, i)),
            &|at| mean(at, &|i| right(1, i)),
            &|before, after| after - before,
        ),
        Metric::Kl => items.one(&|at| mean(at, &|i| answers[i].kl)),
        _ => items.one(&|at| mean(at, &|i| share(answers[i].first[0] == answers[i].first[1]))),
    }
}

/// The class number of each label, by the numbers themselves or by the names in the model's configuration.
pub(crate) fn class_numbers(model: &Checkpoint, classes: usize, labels: &[Label]) -> Result<Vec<usize>> {
    let names = names(model);
    let number = |label: &Label| {
        let found = match label {
            Label::Class(number) => usize::try_from(*number).ok(),
            Label::Name(name) => names
                .iter()
                .find(|(_, own)| own == name)
                .map(|(number, _)| *number),
        };
        found
            .filter(|number| *number < classes)
            .ok_or_else(|| unknown(label, classes, &names))
    };
    labels.iter().map(number).collect()
}

fn unknown(label: &Label, classes: usize, names: &[(usize, String)]) -> Error {
    let spelled = match label {
        Label::Class(number) => number.to_string(),
        Label::Name(name) => format!("{name:?}"),
    };
    let listed: Vec<&str> = names.iter().take(20).map(|(_, name)| name.as_str()).collect();
    let known = if listed.is_empty() {
        "config.json names no classes".to_owned()
    } else {
        format!("config.json names them {}", listed.join(", "))
    };
    Error::bad_input(
        "unknown_label",
        format!(
            "the dataset has the label {spelled}, which the model cannot answer: it has {classes} classes, 0 to {}, \
             and {known}; correct the labels, or ask for metrics that need none",
            classes.saturating_sub(1)
        ),
    )
}

/// Classes by number, as `id2label` spells them.
fn names(model: &Checkpoint) -> Vec<(usize, String)> {
    let map = model
        .config
        .as_ref()
        .and_then(|config| config.get("id2label")?.as_object());
    let entry = |(number, name): (&String, &Value)| Some((number.parse().ok()?, name.as_str()?.to_owned()));
    let mut names: Vec<(usize, String)> = map.into_iter().flatten().filter_map(entry).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four sequences, two classes: the first model is right in three of them, the second in two, and they part once.
    #[test]
    fn accuracy_before_and_after() {
        let before = [1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 2.0];
        let after = [1.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 2.0];
        let answers = answers(&before, &after, 2);
        let accuracy = measure(Metric::Accuracy, &answers, &[0, 1, 1, 1], 0);
        assert_eq!((accuracy.before, accuracy.after), (Some(0.75), 0.5));
        assert_eq!(accuracy.change, Some(-0.25));
        assert_eq!(measure(Metric::Top1Agreement, &answers, &[], 0).after, 0.75);
        let kl = measure(Metric::Kl, &answers, &[], 0);
        // One of four: p = σ(1), and the log of the odds differs by two.
        let p = 1.0 / (1.0 + (-1f64).exp());
        assert!((kl.after - (2.0 * p - 1.0) / 4.0).abs() < 1e-6, "{}", kl.after);
        assert!(kl.before.is_none() && kl.change.is_none());
    }
}
