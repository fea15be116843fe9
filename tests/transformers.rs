//! Real models: what they make of texts, against what transformers makes of the same folder.
//!
//! Runs where `MODELPRESS_TEST_MINILM` and `MODELPRESS_TEST_LOGITS` name folders that `tests/interop/check_embedding.py`
//! and `tests/interop/check_logits.py` have filled.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/walk.rs"]
mod walk;

use std::path::{Path, PathBuf};

use answers::answers;
use modelpress_engine::calibrate::Tokens;
use modelpress_engine::models::network_of;
use modelpress_engine::network::HeadKind;
use modelpress_engine::{Checkpoint, SourceFile, inspect};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Embedded {
    text: String,
    input_ids: Vec<u32>,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Predicted {
    input_ids: Vec<u32>,
    positions: Vec<usize>,
    logits: Vec<Vec<f32>>,
}

fn folder(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn expected<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).expect("the script wrote it");
    serde_json::from_str(&text).expect("JSON")
}

fn opened(folder: &Path) -> Checkpoint {
    inspect(&SourceFile::from_path(folder).expect("a folder")).expect("opens")
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn minilm_embeds_texts_as_transformers_does() {
    let Some(folder) = folder("MODELPRESS_TEST_MINILM") else {
        println!("skipped: MODELPRESS_TEST_MINILM is not set");
        return;
    };
    let expected: Vec<Embedded> = expected(&folder.join("expected.json"));
    let model = opened(&folder);
    let network = network_of(&model).expect("runs");
    assert_eq!(network.head_kind(), HeadKind::Embedding);
    let tokens = Tokens::of(&model, network.sizes().vocab).expect("a tokenizer");
    let mut sequences = Vec::new();
    for entry in &expected {
        let ids = tokens.encode(&entry.text, true).expect("ids");
        assert_eq!(ids, entry.input_ids, "{}", entry.text);
        sequences.push(ids);
    }
    let ours = answers(&model, &sequences);
    assert_eq!(ours.len(), expected.len());
    for (entry, ours) in expected.iter().zip(&ours) {
        let most = apart(&entry.embedding, ours);
        println!("{} tokens: largest difference {most:.2e}", entry.input_ids.len());
        assert!(most < 1e-3, "{}: {most}", entry.text);
    }
}

#[test]
fn a_decoder_predicts_as_transformers_does() {
    let Some(folder) = folder("MODELPRESS_TEST_LOGITS") else {
        println!("skipped: MODELPRESS_TEST_LOGITS is not set");
        return;
    };
    let model = opened(&folder);
    let network = network_of(&model).expect("runs");
    assert_eq!(network.head_kind(), HeadKind::NextToken);
    for entry in expected::<Predicted>(&folder.join("expected-logits.json")) {
        let ours = answers(&model, std::slice::from_ref(&entry.input_ids));
        let rows = entry.positions.iter().zip(&entry.logits);
        let most = rows.map(|(at, row)| apart(row, &ours[*at])).fold(0.0, f32::max);
        println!(
            "{} tokens: largest difference of a logit {most:.2e}",
            entry.input_ids.len()
        );
        assert!(most < 1e-3, "{most}");
    }
}
