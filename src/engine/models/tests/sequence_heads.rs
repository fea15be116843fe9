//! Which head a checkpoint has, and how sentence-transformers' files steer an embedding.

use super::{case, forward, open, worst};
use crate::checkpoint::{Checkpoint, SourceFile, inspect};
use crate::error::Error;
use crate::models::network_of;
use crate::network::{Batch, HeadKind, Ops};
use serde_json::{Value, json};
use std::path::Path;

/// The `MiniLM` of the golden file with sentence-transformers' files beside it.
fn sentence(folder: &Path, files: &[(&str, Value)]) -> Checkpoint {
    for (name, value) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    }
    let model = open(&case("minilm"), folder);
    let mut sources = model.files.clone();
    for (name, _) in files.iter().filter(|(name, _)| name.contains('/')) {
        sources.push(SourceFile::new((*name).to_owned(), folder.join(name)));
    }
    inspect(&sources).unwrap()
}

fn modules(last: &[&str]) -> Value {
    let names = ["Transformer", "Pooling"].iter().chain(last);
    let row = |name: &&str| {
        let path = if *name == "Pooling" { "1_Pooling" } else { "" };
        json!({"path": path, "type": format!("sentence_transformers.models.{name}")})
    };
    names.map(row).collect()
}

type Rows = Vec<Vec<f32>>;

/// Hidden states and embeddings of two sequences in one batch.
fn embed(files: &[(&str, Value)]) -> Result<(Rows, Rows), Error> {
    let folder = tempfile::tempdir().unwrap();
    let model = sentence(folder.path(), files);
    let network = network_of(&model)?;
    assert_eq!(network.head_kind(), HeadKind::Embedding);
    let batch = Batch::new(&[&[5, 6, 7, 8], &[9, 10]]);
    let (hidden, out) = forward(&model, network.as_ref(), &batch, Ops::Fused);
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
        (
            vec![
                ("modules.json", modules(&[])),
                ("1_Pooling/config.json", flag("cls_token")),
            ],
            "cls",
            false,
        ),
        (vec![("pooling.json", flag("max_tokens"))], "max", true),
        (
            vec![("pooling.json", json!({"pooling_mode": "cls"}))],
            "cls",
            true,
        ),
    ] {
        let (hidden, out) = embed(&files).unwrap();
        for (own, out) in [&hidden[..4], &hidden[4..]].into_iter().zip(&out) {
            let mut wanted = by_hand(own, mode);
            let length = wanted.iter().map(|v| v * v).sum::<f32>().sqrt();
            if unit {
                wanted = wanted.iter().map(|v| v / length).collect();
            }
            assert!(worst(&wanted, out) < 1e-5, "{files:?}");
        }
    }
}

#[test]
fn poolings_and_modules_that_are_not_computed() {
    let two = json!({"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true});
    for (file, value, code, word) in [
        ("pooling.json", two, "unsupported_pooling", "max_tokens"),
        (
            "pooling.json",
            json!({"pooling_mode": "lasttoken"}),
            "unsupported_pooling",
            "lasttoken",
        ),
        ("modules.json", modules(&["Dense"]), "unsupported_head", "Dense"),
    ] {
        let error = embed(&[(file, value)]).err().unwrap();
        assert_eq!(error.code, code);
        assert!(
            error.message.contains(word) && error.message.contains(file),
            "{error}"
        );
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
