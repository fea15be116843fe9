//! Narrower models through whole jobs, and blocks chosen by their weights: what is not used is not missed.

use super::*;
use crate::models::network_of;

fn cut(technique: &str, options: &Value) -> Value {
    json!({"stages": [{"technique": technique, "options": options}],
        "formats": [{"format": "safetensors", "options": {"dtype": "F32"}}],
        "calibration": {"dataset": "mine", "max_seq_length": 16}})
}

/// The largest difference, as a part of the largest value.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    worst / a.iter().map(|v| v.abs()).fold(0.0, f32::max)
}

/// A model whose first quarter of channels nobody writes.
fn with_silent_channels(case: &Value) -> Small {
    let hidden = case["config"]["hidden_size"].as_u64().unwrap() as usize;
    Small::of(case, |name, values| {
        let writes = ["o_proj", "down_proj", "w2"]
            .iter()
            .any(|end| name.ends_with(&format!("{end}.weight")) || name.ends_with(&format!("{end}.bias")));
        if writes {
            let cols = values.len() / hidden;
            values[..hidden / 4 * cols].fill(0.0);
        }
        if name.ends_with("embed_tokens.weight") {
            for token in values.chunks_mut(hidden) {
                token[..hidden / 4].fill(0.0);
            }
        }
    })
}

#[test]
fn channels_that_nobody_writes_are_not_missed() {
    for family in ["llama_gqa_tied", "llama_biases", "qwen3", "mixtral"] {
        let case = case(family);
        let small = with_silent_channels(&case);
        let before = logits(&small.model, &case);
        let data = small.data(&rows(14));
        let hidden = case["config"]["hidden_size"].as_u64().unwrap();
        for importance in ["activation", "taylor"] {
            let options = json!({"keep": hidden / 4 * 3, "importance": importance});
            let (made, outcome) = small.made(&cut("prune_hidden", &options), &data, "safetensors");
            let apart = apart(&before, &logits(&made, &case));
            assert!(apart < 2e-3, "{family} {importance}: {apart}");
            assert_eq!(made.config.as_ref().unwrap()["hidden_size"], hidden / 4 * 3);
            assert!(outcome.report.formats[0].compression_ratio > 1.2, "{family}");
        }
    }
}

/// Channels that say the same twice can be read once.
#[test]
fn a_fit_makes_up_for_channels_that_others_repeat() {
    let case = case("llama_gqa_tied");
    let hidden = case["config"]["hidden_size"].as_u64().unwrap() as usize;
    let small = Small::of(&case, |name, values| {
        let rows_of_channels = ["o_proj.weight", "down_proj.weight"]
            .iter()
            .any(|end| name.ends_with(end));
        if rows_of_channels {
            let quarter = values.len() / 4;
            values.copy_within(quarter..2 * quarter, 0);
        } else if name.ends_with("embed_tokens.weight") {
            for token in values.chunks_mut(hidden) {
                token.copy_within(hidden / 4..hidden / 2, 0);
            }
        }
    });
    let before = logits(&small.model, &case);
    let data = small.data(&rows(14));
    let error = |options: &Value| {
        let (made, _) = small.made(&cut("prune_hidden", options), &data, "safetensors");
        let after = logits(&made, &case);
        let square = |(a, b): (&f32, &f32)| f64::from((a - b) * (a - b));
        before.iter().zip(&after).map(square).sum::<f64>()
    };
    let fitted = error(&json!({"ratio": 0.125, "multiple_of": 4}));
    let cut = error(&json!({"ratio": 0.125, "multiple_of": 4, "refit": false}));
    assert!(fitted < 0.9 * cut, "{fitted} {cut}");
}

#[test]
fn families_whose_heads_depend_on_the_width_are_refused() {
    for family in ["gpt2", "bert_classes"] {
        let small = Small::new(family);
        let data = small.data(&rows(14));
        let refused = small.refusal(&cut("prune_hidden", &json!({})), &data);
        assert_eq!(refused, ("/stages/0/technique".into(), "no_such_structure"));
    }
}

/// A block that writes nothing has no gradients, and fewer weights.
#[test]
fn a_block_that_writes_nothing_goes_by_its_weights_too() {
    let case = case("llama_gqa_tied");
    let small = Small::of(&case, |name, values| {
        if name.contains("layers.1.")
            && ["o_proj.weight", "down_proj.weight"]
                .iter()
                .any(|out| name.ends_with(out))
        {
            values.fill(0.0);
        }
    });
    let before = logits(&small.model, &case);
    let data = small.data(&rows(14));
    let blocks = network_of(&small.model).unwrap().sizes().blocks;
    for importance in ["taylor", "magnitude"] {
        let options = json!({"keep": blocks - 1, "importance": importance});
        let (made, _) = small.made(&cut("prune_blocks", &options), &data, "safetensors");
        let apart = apart(&before, &logits(&made, &case));
        assert!(apart < 2e-3, "{importance}: {apart}");
    }
}

/// What every stage leaves is what a job that ends there leaves.
#[test]
fn every_stage_is_measured_by_itself_where_that_is_asked_for() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let stages = [
        json!({"technique": "prune_neurons", "options": {"ratio": 0.25, "multiple_of": 1}}),
        json!({"technique": "prune_heads", "options": {"keep": 1}}),
        json!({"technique": "magnitude", "options": {"sparsity": 0.3}}),
        json!({"technique": "rtn", "options": {"n_bits": 4, "granularity": "channel"}}),
    ];
    let job = |count: usize, each: bool| {
        let recipe = json!({"stages": stages[..count], "formats": ["safetensors"],
            "calibration": {"dataset": "mine", "max_seq_length": 16},
            "evaluation": {"dataset": "mine", "max_seq_length": 16, "metrics": ["kl"], "each_stage": each}});
        small.run(&recipe, &data).unwrap().report
    };
    let report = job(4, true);
    let quality = report.quality.as_ref().unwrap();
    let found: Vec<(usize, &str)> = quality
        .stages
        .iter()
        .map(|s| (s.stage, s.technique.as_str()))
        .collect();
    assert_eq!(
        found,
        [(0, "prune_neurons"), (1, "prune_heads"), (2, "magnitude")]
    );
    for (count, effect) in quality.stages.iter().enumerate() {
        let alone = job(count + 1, false).quality.unwrap();
        assert!(alone.stages.is_empty());
        // A result that is written is rounded to the model's own type; between stages it need not be.
        let (behind, alone) = (effect.measures[0].after, alone.measures[0].after);
        assert!(
            alone > 0.0 && (behind / alone - 1.0).abs() < 0.02,
            "{count}: {behind} {alone}"
        );
    }
    let page = html(&report);
    assert!(page.contains("Stage by stage") && page.contains("the result"));
}
