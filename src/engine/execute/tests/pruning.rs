//! Zeros through whole jobs: as many as asked, where they were asked, whatever the family, and kept by what follows.

use super::*;
use crate::kernels::linalg::Precision;
use crate::observe::Listening;
use crate::tensor::Rows;

fn pruned(technique: &str, options: &Value) -> Value {
    json!({"stages": [{"technique": technique, "options": options}], "formats": ["safetensors"],
        "calibration": {"dataset": "mine", "max_seq_length": 16}})
}

fn values_of(model: &Checkpoint, name: &str) -> Vec<f32> {
    let info = model.tensors.iter().find(|t| t.name == name).unwrap();
    let mut values = vec![0.0; info.elements()];
    model.rows(info).unwrap().read(0, &mut values).unwrap();
    values
}

/// Name and weights, `[out, in]`, of every pruned layer.
fn layers(outcome: &Outcome, made: &Checkpoint) -> Vec<(String, Vec<f32>)> {
    let pruned = outcome.report.tensors.iter().filter(|t| t.compressed);
    pruned
        .map(|t| (t.name.clone(), values_of(made, &t.name)))
        .collect()
}

/// One more stage.
fn after_it(recipe: &mut Value, technique: &str, options: &Value) {
    let stages = recipe["stages"].as_array_mut().unwrap();
    stages.push(json!({"technique": technique, "options": options}));
}

fn zeros(values: &[f32]) -> usize {
    values.iter().filter(|v| **v == 0.0).count()
}

const TECHNIQUES: [(&str, &str); 6] = [
    ("magnitude", r#"{"scope": "row"}"#),
    ("magnitude", r#"{"scope": "layer"}"#),
    ("obd", r#"{"curvature": "fisher", "scope": "layer"}"#),
    ("obd", r#"{"curvature": "hessian", "scope": "row"}"#),
    ("wanda", "{}"),
    ("sparsegpt", "{}"),
];

fn options(text: &str, more: &Value) -> Value {
    let mut options: Value = serde_json::from_str(text).unwrap();
    for (name, value) in more.as_object().unwrap() {
        options[name] = value.clone();
    }
    options
}

#[test]
fn as_many_weights_go_as_asked() {
    for family in ["llama_gqa_tied", "bert_classes", "mixtral"] {
        let small = Small::new(family);
        let data = small.data(&rows(14));
        for (technique, text) in TECHNIQUES {
            let recipe = pruned(technique, &options(text, &json!({"sparsity": 0.5})));
            let recipe = ignoring(&recipe, &small);
            let (made, outcome) = small.made(&recipe, &data, "safetensors");
            let layers = layers(&outcome, &made);
            assert!(layers.len() >= 8, "{family} {technique}");
            for (name, values) in layers {
                let share = zeros(&values) as f64 / values.len() as f64;
                assert!(
                    (share - 0.5).abs() < 0.01,
                    "{family} {technique} {text} {name}: {share}"
                );
            }
            assert!((outcome.report.totals.zero_ratio - 0.5).abs() < 0.01);
        }
    }
}

/// Heads and routers stand in no block.
fn ignoring(recipe: &Value, small: &Small) -> Value {
    let mut recipe = recipe.clone();
    let names = small
        .model
        .tensors
        .iter()
        .map(|t| t.name.trim_end_matches(".weight"));
    let outside = |name: &&str| {
        ["classifier", "pooler", "lm_head", "gate"]
            .iter()
            .any(|end| name.ends_with(end) || name.ends_with(&format!("{end}.dense")))
            && !name.ends_with("mlp.gate_proj")
    };
    let ignored: Vec<&str> = names.filter(outside).collect();
    recipe["stages"][0]["ignore"] = json!(ignored);
    recipe
}

#[test]
fn a_pattern_holds_in_every_run_of_every_row() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    for (technique, text) in TECHNIQUES {
        for (pattern, keep, of) in [("2:4", 2, 4), ("4:8", 4, 8)] {
            let recipe = pruned(technique, &options(text, &json!({"pattern": pattern})));
            let (made, outcome) = small.made(&recipe, &data, "safetensors");
            for (name, values) in layers(&outcome, &made) {
                let held = values.chunks(of).all(|run| of - zeros(run) <= keep);
                assert!(held, "{technique} {pattern} {name}");
            }
        }
    }
}

/// GPT-2 keeps its weights as `[in, out]`.
#[test]
fn rows_are_outputs_also_where_they_are_stored_as_columns() {
    let small = Small::new("gpt2");
    let data = small.data(&rows(14));
    for technique in ["wanda", "sparsegpt"] {
        let (made, outcome) = small.made(
            &pruned(technique, &json!({"pattern": "2:4"})),
            &data,
            "safetensors",
        );
        for (name, values) in layers(&outcome, &made) {
            let cols = outcome
                .report
                .tensors
                .iter()
                .find(|t| t.name == name)
                .unwrap()
                .shape[1];
            for output in 0..cols {
                let inputs: Vec<f32> = values.iter().skip(output).step_by(cols).copied().collect();
                assert!(
                    inputs.chunks(4).all(|run| zeros(run) >= 2),
                    "{technique} {name} {output}"
                );
            }
        }
    }
}

/// Weights that compete over all layers: the one whose weights are small loses more.
#[test]
fn a_global_share_falls_unevenly() {
    let small = Small::edited("llama_gqa_tied", |name, values| {
        if name.contains("layers.0.mlp.up_proj") {
            for value in values {
                *value *= 0.0625;
            }
        }
    });
    let data = small.data(&rows(14));
    for technique in ["magnitude", "obd"] {
        let (made, outcome) = small.made(
            &pruned(technique, &json!({"scope": "global", "sparsity": 0.4})),
            &data,
            "safetensors",
        );
        let layers = layers(&outcome, &made);
        let (gone, all) = layers
            .iter()
            .fold((0, 0), |(z, n), (_, v)| (z + zeros(v), n + v.len()));
        assert!(
            (gone as f64 / all as f64 - 0.4).abs() < 0.01,
            "{technique}: {gone} of {all}"
        );
        let small_one = layers
            .iter()
            .find(|(name, _)| name.contains("layers.0.mlp.up_proj"))
            .unwrap();
        if technique == "magnitude" {
            assert!(zeros(&small_one.1) * 10 > small_one.1.len() * 8);
        }
    }
}

#[test]
fn what_is_quantized_afterwards_keeps_its_zeros() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    for (technique, options) in [
        ("rtn", json!({"group_size": 16})),
        ("gptq", json!({"group_size": 16})),
        (
            "gptq",
            json!({"group_size": 16, "symmetric": false, "act_order": "group"}),
        ),
        ("awq", json!({"group_size": 16})),
        ("fp8", json!({})),
        ("hqq", json!({"group_size": 16})),
        ("kmeans", json!({})),
    ] {
        let mut recipe = pruned("sparsegpt", &json!({"pattern": "2:4"}));
        after_it(&mut recipe, technique, &options);
        let (made, outcome) = small.made(&recipe, &data, "safetensors");
        for (name, values) in layers(&outcome, &made) {
            assert!(
                values.chunks(4).all(|run| zeros(run) >= 2),
                "{technique} {options} {name}"
            );
        }
    }
}

#[test]
fn what_fills_zeros_again_is_refused_or_said() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let then = |options: &Value, technique: &str, after: &Value| {
        let mut recipe = pruned("magnitude", options);
        after_it(&mut recipe, technique, after);
        recipe
    };
    let structured = then(
        &json!({"pattern": "2:4"}),
        "autoround",
        &json!({"group_size": 16}),
    );
    assert_eq!(
        small.refusal(&structured, &data),
        ("/stages/1/technique".into(), "zeros_lost")
    );
    let free = then(&json!({}), "autoround", &json!({"group_size": 16}));
    let warnings = small.plan(&free, &data).unwrap().warnings;
    assert!(
        warnings.iter().any(|w| w.contains("no exact zero")),
        "{warnings:?}"
    );
}

#[test]
fn what_cannot_be_pruned_is_refused_with_its_place() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let refused = |technique: &str, options: &Value| small.refusal(&pruned(technique, options), &data);
    let at = |option: &str| format!("/stages/0/options/{option}");
    assert_eq!(
        refused("wanda", &json!({"pattern": "3:2"})),
        (at("pattern"), "invalid_option")
    );
    assert_eq!(
        refused("wanda", &json!({"pattern": "3:7"})),
        (at("pattern"), "pattern_does_not_divide")
    );
    assert_eq!(
        refused("wanda", &json!({"pattern": "2:4", "sparsity": 0.3})),
        (at("sparsity"), "conflicting_options")
    );
    assert_eq!(
        refused("wanda", &json!({"sparsity": 1.0})),
        (at("sparsity"), "invalid_option")
    );
    assert_eq!(
        refused("obd", &json!({"curvature": "hessian", "scope": "global"})),
        (at("scope"), "conflicting_options")
    );
    let gpt2 = Small::new("gpt2");
    let turned = pruned("magnitude", &json!({"pattern": "2:4"}));
    assert_eq!(
        gpt2.refusal(&turned, &gpt2.data(&rows(14))),
        ("/stages/0/targets".into(), "stored_transposed")
    );
    let mut twice = pruned("wanda", &json!({}));
    twice["stages"] = json!([{"technique": "rtn", "options": {"group_size": 16}}, {"technique": "wanda"}]);
    assert_eq!(
        small.refusal(&twice, &data),
        ("/stages/1/targets".into(), "already_quantized")
    );
}

/// GPT-2 stores `[in, out]`: what no input reaches is a row there, and goes first.
#[test]
fn obd_knows_weights_that_are_stored_input_by_input() {
    const DEAD: usize = 5;
    let small = Small::edited("gpt2", |name, values| {
        if name.starts_with("h.0.ln_1.") || name.starts_with("transformer.h.0.ln_1.") {
            values[DEAD] = 0.0;
        }
    });
    let data = small.data(&rows(14));
    let options = json!({"curvature": "fisher", "scope": "layer", "sparsity": 0.1});
    let recipe = ignoring(&pruned("obd", &options), &small);
    let (made, outcome) = small.made(&recipe, &data, "safetensors");
    let layers = layers(&outcome, &made);
    let (name, values) = layers
        .iter()
        .find(|(name, _)| name.ends_with("h.0.attn.c_attn.weight"))
        .unwrap();
    let info = made.tensors.iter().find(|t| t.name == *name).unwrap();
    let row = &values[DEAD * info.shape[1]..][..info.shape[1]];
    assert_eq!(zeros(row), row.len());
    assert!(zeros(values) < values.len() / 5);
    let by_inputs = json!({"curvature": "hessian", "scope": "layer"});
    let (_, code) = small.refusal(&ignoring(&pruned("obd", &by_inputs), &small), &data);
    assert_eq!(code, "stored_transposed");
}

/// Only where the next token is predicted the first one is an attention sink.
#[test]
fn wanda_leaves_out_sinks_where_there_are_some() {
    for (family, sinks) in [("llama_gqa_tied", 1), ("mixtral", 1), ("bert_classes", 0)] {
        let small = Small::new(family);
        let data = small.data(&rows(14));
        let made = |options: &Value| {
            let recipe = ignoring(&pruned("wanda", options), &small);
            let (made, outcome) = small.made(&recipe, &data, "safetensors");
            layers(&outcome, &made)
        };
        let default = made(&json!({}));
        for tokens in 0..3 {
            let others = made(&json!({"sink_tokens": tokens}));
            assert_eq!(default == others, tokens == sinks, "{family} {tokens}");
        }
    }
}

/// The second stage takes what the first one left, and more.
#[test]
fn pruning_goes_on_step_by_step() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let mut recipe = pruned("obd", &json!({"sparsity": 0.3}));
    after_it(&mut recipe, "obd", &json!({"sparsity": 0.6}));
    let (made, outcome) = small.made(&recipe, &data, "safetensors");
    let (once, first) = small.made(&pruned("obd", &json!({"sparsity": 0.3})), &data, "safetensors");
    for ((name, after), (_, before)) in layers(&outcome, &made).iter().zip(layers(&first, &once)) {
        assert!(
            (zeros(after) as f64 / after.len() as f64 - 0.6).abs() < 0.01,
            "{name}"
        );
        let kept = before.iter().zip(after).all(|(b, a)| *b != 0.0 || *a == 0.0);
        assert!(kept, "{name}: what was zero stays so");
    }
}

#[test]
fn single_modules_can_have_their_own_share() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let options = json!({"sparsity": 0.5, "tensor_sparsity": {"0.25": ["re:.*down_proj"]}});
    let (made, outcome) = small.made(&pruned("sparsegpt", &options), &data, "safetensors");
    for (name, values) in layers(&outcome, &made) {
        let expected = if name.contains("down_proj") { 0.25 } else { 0.5 };
        assert!(
            (zeros(&values) as f64 / values.len() as f64 - expected).abs() < 0.01,
            "{name}"
        );
    }
}

/// What is looked at again behind the zeros so far can be chosen better than at once; the share is the same.
#[test]
fn a_sparsity_is_reached_in_steps() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    for (technique, text) in TECHNIQUES {
        let at_once = options(text, &json!({"sparsity": 0.6}));
        let in_steps = options(text, &json!({"sparsity": 0.6, "iterations": 3}));
        let plan = small.plan(&pruned(technique, &in_steps), &data).unwrap();
        let shares = plan
            .stages
            .iter()
            .map(|s| s.options["sparsity"].as_f64().unwrap());
        let shares: Vec<f64> = shares.map(|s| (s * 1e3).round() / 1e3).collect();
        assert_eq!(shares, [0.422, 0.578, 0.6], "{technique}");
        let (one, _) = small.made(&pruned(technique, &at_once), &data, "safetensors");
        let (many, outcome) = small.made(&pruned(technique, &in_steps), &data, "safetensors");
        assert!(
            (outcome.report.totals.zero_ratio - 0.6).abs() < 0.02,
            "{technique}"
        );
        let changed = layers(&outcome, &many)
            .iter()
            .any(|(name, values)| *values != values_of(&one, name));
        // Weights do not change their sizes on the way.
        assert_eq!(changed, technique != "magnitude", "{technique} {text}");
    }
}

#[test]
fn steps_are_refused_where_there_is_one_sparsity_only() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let at = |recipe: &Value| small.refusal(recipe, &data);
    let pattern = pruned("wanda", &json!({"pattern": "2:4", "iterations": 2}));
    let pointer = "/stages/0/options/iterations".to_owned();
    assert_eq!(at(&pattern), (pointer, "conflicting_options"));
    let mut later = pruned("wanda", &json!({"iterations": 4}));
    after_it(&mut later, "rtn", &json!({"n_bits": 99}));
    assert_eq!(at(&later).0, "/stages/1/options/n_bits");
}

/// Sums of squares take coarser products than the fit of weights to what layers answer; a job says what it took.
#[test]
fn norms_are_of_bf16_and_a_fit_is_of_more() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let out = tempfile::tempdir().unwrap();
    let taken = |technique: &str, options: &Value| {
        let plan = small.plan(&pruned(technique, options), &data).unwrap();
        let (out, scratch) = (out.path().join(&plan.recipe_hash), out.path().join("scratch"));
        let heard = Listening::default();
        let site = Site::on_cpu(&out, &scratch);
        execute(&plan, &small.model, &data, &site, &heard).unwrap();
        let told = heard.told("products");
        told.iter()
            .map(|t| t["products"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (coarse, fine) = (Precision::Bf16.products(), Precision::Split.products());
    assert_eq!(taken("wanda", &json!({})), [coarse]);
    assert_eq!(taken("wanda", &json!({"refit_iterations": 2})), [fine]);
    assert_eq!(taken("sparsegpt", &json!({})), [fine]);
}
