//! Budgets on models of every kind of answer: decoders, mixtures, classifiers, and encoders that have none to weigh.

use super::{Outcome, Recipe, Silent, Site, Small, on, plan, rows};
use crate::analyze::AnalysisPlan;
use crate::execute::execute_analysis;
use crate::report::{Allocation, ClassLoss, analysis_html, analysis_plots};
use serde_json::{Value, json};

fn recipe(metrics: &[&str], budget: &Value) -> Value {
    json!({"stages": [{"technique": "rtn", "options": {"n_bits": 4, "group_size": 16}}],
        "formats": ["compressed-tensors"], "evaluation": on(metrics), "budget": budget,
        "calibration": {"dataset": "mine", "max_seq_length": 16}})
}

fn allocation(outcome: &Outcome) -> &Allocation {
    outcome.report.allocation.as_ref().unwrap()
}

/// Parts cost about what the gradients say, whatever a model answers with: the scale is right. One part of so small a
/// classifier has too few numbers to be held to it alone.
#[test]
fn what_gradients_say_is_what_is_measured_in_every_family() {
    for name in ["llama_gqa_tied", "mixtral", "bert_classes"] {
        let small = Small::new(name);
        let data = small.data(&rows(40));
        let budget = json!({"target_bits_per_weight": 12, "candidates": ["W3", "W4", "W5", "W6", "W8"]});
        let outcome = small.run(&recipe(&[], &budget), &data).unwrap();
        let found = allocation(&outcome);
        assert!(found.held && !found.tensors.is_empty(), "{name}");
        let sum = |of: &dyn Fn(&ClassLoss) -> f64| found.classes.iter().map(of).sum::<f64>();
        let ratio = sum(&|c| c.measured_kl) / sum(&|c| c.predicted_kl);
        assert!((0.4..2.5).contains(&ratio), "{name} {:?}", found.classes);
        let kl = outcome
            .report
            .quality
            .as_ref()
            .unwrap()
            .measure("kl")
            .unwrap()
            .after;
        assert!(
            kl < 4.0 * found.predicted_kl_interval[1],
            "{name}: {kl} {found:?}"
        );
    }
}

#[test]
fn what_cannot_be_weighed_or_measured_is_refused_when_planned() {
    let encoder = Small::new("minilm");
    let budget = json!({"max_kl": 0.1});
    assert_eq!(
        encoder.refusal(&recipe(&[], &budget), &encoder.data(&rows(14))),
        ("/budget".to_owned(), "budget_without_distribution")
    );
    let classifier = Small::new("bert_classes");
    let perplexity = json!({"max_perplexity_increase": 0.1});
    assert_eq!(
        classifier.refusal(&recipe(&[], &perplexity), &classifier.data(&rows(14))),
        (
            "/budget/max_perplexity_increase".to_owned(),
            "metric_does_not_fit"
        )
    );
}

/// A classifier keeps its accuracy on labels that the original itself gives, and one that may lose more becomes smaller.
#[test]
fn accuracy_is_kept_within_its_limit() {
    let small = Small::new("bert_classes");
    let labelled: Vec<Value> = rows(60)
        .into_iter()
        .enumerate()
        .map(|(i, mut row)| {
            row["label"] = json!(i % 3);
            row
        })
        .collect();
    let data = small.data(&labelled);
    let within = |drop: f64| {
        let budget =
            json!({"max_accuracy_drop": drop, "candidates": ["W2", "W3", "W4", "W8"], "max_rounds": 4});
        small.run(&recipe(&["accuracy", "kl"], &budget), &data).unwrap()
    };
    let (strict, loose) = (within(0.05), within(0.5));
    for (outcome, most) in [(&strict, 0.05), (&loose, 0.5)] {
        let found = allocation(outcome);
        let kept = found.rounds.iter().find(|round| round.kept).unwrap();
        assert_eq!(kept.metric, "accuracy");
        let accuracy = outcome
            .report
            .quality
            .as_ref()
            .unwrap()
            .measure("accuracy")
            .unwrap();
        let fell = -accuracy.change.unwrap();
        assert!((kept.measured - fell).abs() < 1e-9, "{kept:?} {accuracy:?}");
        assert_eq!(found.held, kept.interval.unwrap()[1] <= most, "{kept:?}");
        assert_eq!(outcome.gate.is_none(), found.held);
    }
    let bytes = |outcome: &Outcome| outcome.report.formats[0].bytes;
    assert!(
        bytes(&loose) < bytes(&strict),
        "{} {}",
        bytes(&loose),
        bytes(&strict)
    );
}

/// What schemes would cost is what a budget would reckon with: every tensor that can have one, the fewer bits the more.
#[test]
fn sensitivity_is_weighed_where_it_is_asked_for() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(8));
    let recipe = json!({"stages": [{"technique": "rtn", "options": {"n_bits": 4, "group_size": 16}}],
        "formats": ["compressed-tensors"], "calibration": {"dataset": "mine", "max_seq_length": 16},
        "budget": {"target_bytes": 1, "candidates": ["W2", "W4", "W8"]}});
    let recipe = Recipe::from_value(&recipe).unwrap().to_weigh();
    let plan = plan(&recipe, &small.model, &data).unwrap();
    let planned = AnalysisPlan::of(&small.model).with_sensitivity(plan);
    let stored = serde_json::to_string(&planned).unwrap();
    let planned = AnalysisPlan::read(&stored).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let site = Site::on_cpu(scratch.path(), scratch.path());
    let analysis = execute_analysis(&planned, &small.model, &data, &site, &Silent).unwrap();
    let found = analysis.sensitivity.as_ref().unwrap();
    assert_eq!((found.candidates.len(), found.dataset.as_str()), (3, "mine"));
    assert!(!found.units.is_empty());
    for unit in &found.units {
        let losses: Vec<f64> = unit.schemes.iter().map(|scheme| scheme.predicted_kl).collect();
        assert!(losses.is_sorted_by(|a, b| a > b), "{unit:?}");
        assert!(unit.schemes.is_sorted_by(|a, b| a.bytes < b.bytes), "{unit:?}");
    }
    let totals = found.totals();
    let weights: u64 = found.units.iter().map(|unit| unit.parameters).sum();
    assert!(
        totals.iter().all(|total| total.parameters == weights),
        "{totals:?}"
    );
    assert!(
        totals.is_sorted_by(|a, b| a.bits_per_weight() < b.bits_per_weight()),
        "{totals:?}"
    );
    let page = analysis_html(&analysis);
    assert!(page.contains("<h2>Sensitivity</h2>"));
    let plots = analysis_plots(&analysis);
    assert_eq!(plots.len(), 2);
    assert!(plots.iter().all(|plot| plot.png().is_ok()));
    let without = execute_analysis(
        &AnalysisPlan::of(&small.model),
        &small.model,
        &data,
        &site,
        &Silent,
    );
    assert_eq!(without.unwrap().sensitivity, None);
}
