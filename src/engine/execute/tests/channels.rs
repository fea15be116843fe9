//! Narrower models through whole jobs, and blocks chosen by their weights: what is not used is not missed.

use super::*;
use crate::models::network_of;
use crate::models::tests::forward;
use crate::network::{Batch, Ops};

fn cut(technique: &str, options: &Value) -> Value {
    json!({"stages": [{"technique": technique, "options": options}],
        "formats": [{"format": "safetensors", "options": {"dtype": "F32"}}],
        "calibration": {"dataset": "mine", "max_seq_length": 16}})
}

fn logits(model: &Checkpoint, case: &Value) -> Vec<f32> {
    let network = network_of(model).unwrap();
    let sequences: Vec<Vec<u32>> = serde_json::from_value(case["input_ids"].clone()).unwrap();
    let slices: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let (_, out) = forward(model, network.as_ref(), &Batch::new(&slices), Ops::Fused);
    out.flatten_all().unwrap().to_vec1().unwrap()
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

/// What is left of a model whose channels all matter is nearer to it with a fit than without.
#[test]
fn a_fit_makes_up_for_channels_that_were_read() {
    let case = case("llama_gqa_tied");
    let small = Small::of(&case, |_, _| {});
    let before = logits(&small.model, &case);
    let data = small.data(&rows(14));
    let error = |options: &Value| {
        let (made, _) = small.made(&cut("prune_hidden", options), &data, "safetensors");
        let after = logits(&made, &case);
        before
            .iter()
            .zip(&after)
            .map(|(a, b)| f64::from((a - b) * (a - b)))
            .sum::<f64>()
    };
    let fitted = error(&json!({"ratio": 0.25, "multiple_of": 4}));
    let cut = error(&json!({"ratio": 0.25, "multiple_of": 4, "refit": false}));
    assert!(fitted < cut, "{fitted} {cut}");
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
