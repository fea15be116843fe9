//! What a checkpoint that cannot run is told.

use super::{case, load, open, run};
use crate::error::Error;
use crate::models::network_of;
use crate::network::{Batch, Ops};
use serde_json::{Value, json};

fn refusal(case: &Value) -> Error {
    let folder = tempfile::tempdir().unwrap();
    network_of(&open(case, folder.path())).err().unwrap()
}

/// The refusal of a case with one field of its configuration set.
fn with(name: &str, key: &str, value: Value) -> Error {
    let mut case = case(name);
    case["config"][key] = value;
    refusal(&case)
}

fn tensors(case: &mut Value) -> &mut Vec<Value> {
    case["tensors"].as_array_mut().unwrap()
}

const EVERY: [&str; 5] = [
    "llama_gqa_tied",
    "bert",
    "roberta_classes",
    "distilbert_classes",
    "gpt2_prefixed",
];

#[test]
fn an_unknown_activation() {
    for (name, key) in [
        ("bert", "hidden_act"),
        ("distilbert", "activation"),
        ("gpt2", "activation_function"),
    ] {
        let error = with(name, key, json!("snake"));
        assert_eq!(error.code, "unsupported_activation");
        assert!(
            error.message.contains("\"snake\"") && error.message.contains("gelu_new"),
            "{error}"
        );
    }
}

#[test]
fn heads_that_do_not_divide() {
    for (name, key) in [
        ("bert", "num_attention_heads"),
        ("distilbert", "n_heads"),
        ("gpt2", "n_head"),
    ] {
        let error = with(name, key, json!(5));
        assert_eq!(error.code, "invalid_config");
        assert!(
            error.message.contains("5 attention heads") && error.message.contains("64"),
            "{error}"
        );
    }
}

/// Each tensor of a network in turn, all names in the message.
#[test]
fn a_missing_tensor() {
    for name in EVERY {
        let whole = case(name);
        for i in 0..whole["tensors"].as_array().unwrap().len() {
            let mut case = whole.clone();
            let gone = tensors(&mut case).remove(i);
            let gone = gone["name"].as_str().unwrap();
            // What is not read may be missing; without its classifier a model is an embedder, and a base without its
            // table of words is taken for one without a prefix.
            let read =
                !gone.contains("classifier") && !gone.contains("pooler") && !gone.starts_with("lm_head");
            if read {
                let error = refusal(&case);
                assert_eq!(error.code, "missing_tensor", "{name} {gone}");
                let table = gone.ends_with("word_embeddings.weight") || gone.ends_with("wte.weight");
                let table = table || gone.ends_with("embed_tokens.weight");
                assert!(table || error.message.contains(gone), "{gone}: {error}");
            }
        }
    }
}

#[test]
fn a_tensor_of_another_shape() {
    for name in EVERY {
        let mut case = case(name);
        let middle = tensors(&mut case).len() / 2;
        tensors(&mut case)[middle]["shape"] = json!([3, 2]);
        let name = case["tensors"][middle]["name"].as_str().unwrap().to_owned();
        let error = refusal(&case);
        assert_eq!(error.code, "shape_mismatch");
        assert!(
            error.message.contains(&name) && error.message.contains("[3, 2]"),
            "{error}"
        );
    }
}

/// A linear stored `[out, in]` is not GPT-2's.
#[test]
fn a_linear_the_other_way_round() {
    let mut case = case("gpt2");
    let linear = tensors(&mut case)
        .iter_mut()
        .find(|t| t["name"] == "h.1.mlp.c_fc.weight");
    linear.unwrap()["shape"] = json!([112, 64]);
    assert_eq!(refusal(&case).code, "shape_mismatch");
}

#[test]
fn a_family_that_does_not_run() {
    let error = with("bert", "model_type", json!("t5"));
    assert_eq!(error.code, "unsupported_architecture");
    for family in [
        "BertModel",
        "llama",
        "qwen3_moe",
        "bert",
        "roberta",
        "distilbert",
        "gpt2",
    ] {
        assert!(error.message.contains(family), "{error}");
    }
}

#[test]
fn variants() {
    for (name, key, value, code) in [
        (
            "bert",
            "position_embedding_type",
            json!("relative_key"),
            "unsupported_positions",
        ),
        ("bert", "is_decoder", json!(true), "unsupported_architecture"),
        (
            "gpt2",
            "scale_attn_by_inverse_layer_idx",
            json!(true),
            "unsupported_architecture",
        ),
        (
            "gpt2",
            "scale_attn_weights",
            json!(false),
            "unsupported_architecture",
        ),
        (
            "gpt2",
            "add_cross_attention",
            json!(true),
            "unsupported_architecture",
        ),
    ] {
        let error = with(name, key, value);
        assert_eq!(error.code, code, "{key}");
        assert!(error.message.contains(key), "{error}");
    }
}

#[test]
fn a_sequence_longer_than_the_learned_positions() {
    for (name, fits) in [("bert", 64), ("roberta", 64), ("gpt2", 64)] {
        let folder = tempfile::tempdir().unwrap();
        let model = open(&case(name), folder.path());
        let network = network_of(&model).unwrap();
        assert_eq!(network.sizes().context, Some(fits));
        let weights = load(&model, network.as_ref(), &network.embed_tensors());
        let embed = |length: usize| {
            let batch = Batch::new(&[&vec![7; length]]);
            network.embed(&run(&batch, &weights, Ops::Fused))
        };
        assert!(embed(fits).is_ok());
        assert_eq!(embed(fits + 1).unwrap_err().code, "sequence_too_long");
    }
}
