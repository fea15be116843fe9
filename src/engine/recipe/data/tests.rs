//! Recipes that ask for data: defaults, short forms, refusals.

use super::*;
use crate::recipe::Recipe;
use serde_json::json;

fn with(field: &str, value: &Value) -> Parsed<Recipe> {
    Recipe::from_value(&json!({"preset": "W4A16", field: value}))
}

fn refusal(field: &str, value: &Value) -> (String, &'static str) {
    let refusal = with(field, value).unwrap_err().remove(0);
    (refusal.pointer, refusal.code)
}

#[test]
fn a_recipe_that_asks_for_no_data_is_the_recipe_it_was() {
    let plain = Recipe::from_value(&json!("W4A16")).unwrap();
    let spelled = serde_json::to_value(&plain).unwrap();
    for field in FIELDS {
        assert!(spelled.get(field).is_none(), "{field}");
    }
    // The hash that version 0.1.0 without these parts computed: results are found by it.
    assert_eq!(
        plain.hash(),
        "d15e18ef88d18e51cf858937871bc100d419c695ec5dbecf45a595f9e1b9ed76"
    );
    let off = with("evaluation", &json!(false)).unwrap();
    assert_eq!(off.hash(), plain.hash());
}

#[test]
fn every_part_has_a_short_form_and_defaults() {
    let short = with("calibration", &json!("ds_1")).unwrap();
    let long = with(
        "calibration",
        &json!({"dataset": "ds_1", "num_samples": 128, "max_seq_length": 512}),
    )
    .unwrap();
    assert_eq!(short.hash(), long.hash());
    assert_eq!(
        with("calibration", &json!({})).unwrap().calibration,
        Some(CalibrationSpec::default())
    );
    assert_eq!(
        with("evaluation", &json!(true)).unwrap().evaluation,
        Some(EvaluationSpec::default())
    );
    let plain = Recipe::from_value(&json!("W4A16")).unwrap();
    assert_ne!(short.hash(), plain.hash());
}

#[test]
fn a_gate_brings_its_evaluation() {
    let recipe = with("gates", &json!({"max_kl": 0.1})).unwrap();
    assert_eq!(recipe.evaluation, Some(EvaluationSpec::default()));
    assert_eq!(
        recipe.gates.map(|gates| (gates.max_kl, gates.keep_artifact)),
        Some((Some(0.1), false))
    );
    let asked = |evaluation: Value| {
        let asked = json!({"preset": "W4A16", "gates": {"max_kl": 0.1}, "evaluation": evaluation});
        Recipe::from_value(&asked).map_err(|mut refusals| refusals.remove(0).code)
    };
    assert_eq!(asked(json!(false)), Err("gates_without_evaluation"));
    assert_eq!(
        asked(json!({"metrics": ["perplexity"]})),
        Err("gate_without_metric")
    );
    assert!(asked(json!({"metrics": ["kl"]})).is_ok());
}

#[test]
fn refusals_point_at_the_field() {
    for (field, value, pointer, code) in [
        ("calibration", json!(7), "/calibration", "wrong_type"),
        (
            "calibration",
            json!({"datset": "x"}),
            "/calibration/datset",
            "unknown_field",
        ),
        (
            "calibration",
            json!({"dataset": ""}),
            "/calibration/dataset",
            "invalid_value",
        ),
        (
            "calibration",
            json!({"num_samples": 0}),
            "/calibration/num_samples",
            "out_of_range",
        ),
        (
            "calibration",
            json!({"num_samples": 65_537}),
            "/calibration/num_samples",
            "out_of_range",
        ),
        (
            "calibration",
            json!({"max_seq_length": 7}),
            "/calibration/max_seq_length",
            "out_of_range",
        ),
        (
            "calibration",
            json!({"shuffle": "yes"}),
            "/calibration/shuffle",
            "wrong_type",
        ),
        ("evaluation", json!("ds_1"), "/evaluation", "wrong_type"),
        (
            "evaluation",
            json!({"metrics": ["bleu"]}),
            "/evaluation/metrics/0",
            "unknown_metric",
        ),
        (
            "evaluation",
            json!({"metrics": ["kl", "kl"]}),
            "/evaluation/metrics/1",
            "duplicate_metric",
        ),
        ("gates", json!({}), "/gates", "missing_field"),
        ("gates", json!({"max_kl": -0.1}), "/gates/max_kl", "out_of_range"),
        (
            "gates",
            json!({"min_accuracy": 1.5}),
            "/gates/min_accuracy",
            "out_of_range",
        ),
        ("gates", json!({"max_kl": "small"}), "/gates/max_kl", "wrong_type"),
    ] {
        assert_eq!(
            refusal(field, &value),
            (pointer.to_owned(), code),
            "{field}: {value}"
        );
    }
}

#[test]
fn what_is_stored_is_read_back() {
    let asked = json!({"preset": "W4A16", "calibration": {"shuffle": true},
        "evaluation": {"metrics": ["top1_agreement", "perplexity", "layer_error"]},
        "gates": {"max_perplexity_increase": 0.01, "keep_artifact": true}});
    let recipe = Recipe::from_value(&asked).unwrap();
    let stored = serde_json::to_string(&recipe).unwrap();
    assert_eq!(serde_json::from_str::<Recipe>(&stored).unwrap(), recipe);
    let mut spelled = serde_json::to_value(&recipe).unwrap();
    spelled.as_object_mut().unwrap().remove("preset");
    assert_eq!(Recipe::from_value(&spelled).unwrap().hash(), recipe.hash());
}
