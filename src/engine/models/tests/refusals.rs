//! What a checkpoint that cannot run is told.

use super::{golden, open};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::models::network_of;
use crate::network::{Batch, HeadKind, Ops};
use serde_json::{Value, json};
use std::path::Path;

fn case(name: &str) -> Value {
    let cases = golden()["cases"].as_array().unwrap().clone();
    cases.into_iter().find(|c| c["name"] == name).unwrap()
}

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

const EVERY: [&str; 5] = ["llama_gqa_tied", "bert", "roberta_classes", "distilbert_classes", "gpt2_prefixed"];

#[test]
fn an_unknown_activation() {
    for (name, key) in [("bert", "hidden_act"), ("distilbert", "activation"), ("gpt2", "activation_function")] {
        let error = with(name, key, json!("snake"));
        assert_eq!(error.code, "unsupported_activation");
        assert!(error.message.contains("\"snake\"") && error.message.contains("gelu_new"), "{error}");
    }
}

#[test]
fn heads_that_do_not_divide() {
    for (name, key) in [("bert", "num_attention_heads"), ("distilbert", "n_heads"), ("gpt2", "n_head")] {
        let error = with(name, key, json!(5));
        assert_eq!(error.code, "invalid_config");
        assert!(error.message.contains("5 attention heads") && error.message.contains("64"), "{error}");
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
            let read = !gone.contains("classifier") && !gone.contains("pooler") && !gone.starts_with("lm_head");
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
        assert!(error.message.contains(&name) && error.message.contains("[3, 2]"), "{error}");
    }
}

/// A linear stored `[out, in]` is not GPT-2's.
#[test]
fn a_linear_the_other_way_round() {
    let mut case = case("gpt2");
    let linear = tensors(&mut case).iter_mut().find(|t| t["name"] == "h.1.mlp.c_fc.weight");
    linear.unwrap()["shape"] = json!([112, 64]);
    assert_eq!(refusal(&case).code, "shape_mismatch");
}

#[test]
fn a_family_that_does_not_run() {
    let error = with("bert", "model_type", json!("t5"));
    assert_eq!(error.code, "unsupported_architecture");
    for family in ["BertModel", "llama", "qwen3_moe", "bert", "roberta", "distilbert", "gpt2"] {
        assert!(error.message.contains(family), "{error}");
    }
}

#[test]
fn variants() {
    for (name, key, value, code) in [
        ("bert", "position_embedding_type", json!("relative_key"), "unsupported_positions"),
        ("bert", "is_decoder", json!(true), "unsupported_architecture"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true), "unsupported_architecture"),
        ("gpt2", "scale_attn_weights", json!(false), "unsupported_architecture"),
        ("gpt2", "add_cross_attention", json!(true), "unsupported_architecture"),
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
        let weights = super::load(&model, network.as_ref(), &network.embed_tensors());
        let embed = |length: usize| {
            let batch = Batch::new(&[&vec![7; length]]);
            network.embed(&super::run(&batch, &weights, Ops::Fused))
        };
        assert!(embed(fits).is_ok());
        assert_eq!(embed(fits + 1).unwrap_err().code, "sequence_too_long");
    }
}

/// The MiniLM of the golden file with sentence-transformers' files beside it.
fn sentence(folder: &Path, files: &[(&str, Value)]) -> Checkpoint {
    for (name, value) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    }
    let model = open(&case("minilm"), folder);
    let mut sources = model.files.clone();
    for (name, _) in files.iter().filter(|(name, _)| name.contains('/')) {
        sources.push(crate::checkpoint::SourceFile {
            name: (*name).to_owned(),
            path: folder.join(name),
        });
    }
    crate::checkpoint::inspect(&sources).unwrap()
}

fn modules(last: &[&str]) -> Value {
    let names = ["Transformer", "Pooling"].iter().chain(last);
    let row = |name: &&str| {
        let path = if *name == "Pooling" { "1_Pooling" } else { "" };
        json!({"path": path, "type": format!("sentence_transformers.models.{name}")})
    };
    names.map(row).collect()
}

fn embed(files: &[(&str, Value)]) -> Result<(Vec<Vec<f32>>, Vec<Vec<f32>>), Error> {
    let folder = tempfile::tempdir().unwrap();
    let model = sentence(folder.path(), files);
    let network = network_of(&model)?;
    assert_eq!(network.head_kind(), HeadKind::Embedding);
    let batch = Batch::new(&[&[5, 6, 7, 8], &[9, 10]]);
    let (hidden, out) = super::forward(&model, network.as_ref(), &batch, Ops::Fused);
    Ok((hidden.to_vec2().unwrap(), out.to_vec2().unwrap()))
}

/// Pooling follows the files, each way of it on two sequences in one batch.
#[test]
fn poolings() {
    let by_hand = |hidden: &[Vec<f32>], mode: &str| -> Vec<f32> {
        let element = |i: usize| {
            let column = hidden.iter().map(|row| row[i]);
            match mode {
                "cls" => hidden[0][i],
                "max" => column.fold(f32::MIN, f32::max),
                _ => column.sum::<f32>() / hidden.len() as f32,
            }
        };
        (0..64).map(element).collect()
    };
    let flag = |mode: &str| json!({"word_embedding_dimension": 64, format!("pooling_mode_{mode}"): true});
    for (files, mode, unit) in [
        (vec![], "mean", true),
        (vec![("modules.json", modules(&["Normalize"]))], "mean", true),
        (vec![("modules.json", modules(&[]))], "mean", false),
        (vec![("modules.json", modules(&[])), ("1_Pooling/config.json", flag("cls_token"))], "cls", false),
        (vec![("pooling.json", flag("max_tokens"))], "max", true),
        (vec![("pooling.json", json!({"pooling_mode": "cls"}))], "cls", true),
    ] {
        let (hidden, out) = embed(&files).unwrap();
        for (own, out) in [&hidden[..4], &hidden[4..]].into_iter().zip(&out) {
            let mut wanted = by_hand(own, mode);
            let length = wanted.iter().map(|v| v * v).sum::<f32>().sqrt();
            if unit {
                wanted.iter_mut().for_each(|v| *v /= length);
            }
            assert!(super::worst(&wanted, out) < 1e-5, "{files:?}");
        }
    }
}

#[test]
fn poolings_and_modules_that_are_not_computed() {
    let two = json!({"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true});
    for (file, value, code, word) in [
        ("pooling.json", two, "unsupported_pooling", "max_tokens"),
        ("pooling.json", json!({"pooling_mode": "lasttoken"}), "unsupported_pooling", "lasttoken"),
        ("modules.json", modules(&["Dense"]), "unsupported_head", "Dense"),
    ] {
        let error = embed(&[(file, value)]).err().unwrap();
        assert_eq!(error.code, code);
        assert!(error.message.contains(word) && error.message.contains(file), "{error}");
    }
}

/// A classifier of tokens has the names of one of sequences.
#[test]
fn a_classifier_of_tokens_is_not_one_of_sequences() {
    let mut case = case("bert_classes");
    case["config"]["architectures"] = json!(["BertForTokenClassification"]);
    let folder = tempfile::tempdir().unwrap();
    let network = network_of(&open(&case, folder.path())).unwrap();
    assert_eq!(network.head_kind(), HeadKind::Embedding);
    assert_eq!(network.head_tensors(), Vec::<String>::new());
}
