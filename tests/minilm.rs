//! A real sentence encoder: texts to vectors, against what transformers makes of the same folder.
//!
//! Runs where `MODELPRESS_TEST_MINILM` names the folder that `tests/interop/check_embedding.py` has filled.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/walk.rs"]
mod walk;

use std::path::{Path, PathBuf};

use modelpress_engine::calibrate::{Source, Stash, Tokens, Walk};
use modelpress_engine::models::network_of;
use modelpress_engine::network::{HeadKind, Ops, Run, Weights};
use modelpress_engine::{Checkpoint, SourceFile, inspect};
use serde_json::Value;
use walk::{Plain, Through};

/// The folder with its pooling, as an upload brings it.
fn opened(folder: &Path) -> Checkpoint {
    let mut files = SourceFile::from_path(folder).expect("a folder");
    files.push(SourceFile {
        name: "1_Pooling/config.json".to_owned(),
        path: folder.join("1_Pooling/config.json"),
    });
    inspect(&files).expect("opens")
}

fn floats(value: &Value) -> Vec<f32> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|v| v.as_f64().expect("a number") as f32)
        .collect()
}

#[test]
fn minilm_embeds_texts_as_transformers_does() {
    let Some(folder) = std::env::var_os("MODELPRESS_TEST_MINILM").map(PathBuf::from) else {
        println!("skipped: MODELPRESS_TEST_MINILM is not set");
        return;
    };
    let text = std::fs::read_to_string(folder.join("expected.json")).expect("check_embedding.py wrote it");
    let expected: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let model = opened(&folder);
    let network = network_of(&model).expect("runs");
    assert_eq!(network.head_kind(), HeadKind::Embedding);
    let tokens = Tokens::of(&model, network.sizes().vocab).expect("a tokenizer");
    let mut sequences: Vec<Vec<u32>> = Vec::new();
    for entry in &expected {
        let ids = tokens
            .encode(entry["text"].as_str().expect("a text"), true)
            .expect("ids");
        let theirs: Vec<u32> = serde_json::from_value(entry["input_ids"].clone()).expect("ids");
        assert_eq!(ids, theirs, "{}", entry["text"]);
        sequences.push(ids);
    }
    let scratch = tempfile::tempdir().expect("a folder");
    let (source, stash) = (Plain(&model), Stash::new(scratch.path(), 1 << 30));
    let mut walk = Walk::start(network.as_ref(), &source, &Through, &sequences, stash).expect("embeds");
    for block in 0..network.sizes().blocks {
        walk.block(block, &mut Through).expect("a block");
    }
    let (batches, hidden) = walk.into_hidden().expect("hidden states");
    let mut weights = Weights::default();
    for name in network.head_tensors() {
        source.load(&name, false, &mut weights).expect("the head");
    }
    let mut ours: Vec<Vec<f32>> = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        let run = Run {
            batch,
            weights: &weights,
            ops: Ops::Fused,
            all_experts: false,
        };
        let hidden = hidden.read(index).expect("hidden states");
        let rows = network.head(&hidden, &run).expect("the head").to_vec2::<f32>();
        ours.extend(rows.expect("rows"));
    }
    assert_eq!(ours.len(), expected.len());
    for (entry, ours) in expected.iter().zip(&ours) {
        let theirs = floats(&entry["embedding"]);
        assert_eq!(theirs.len(), ours.len());
        let most = theirs
            .iter()
            .zip(ours)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        let cosine: f32 = theirs.iter().zip(ours).map(|(a, b)| a * b).sum();
        println!(
            "{} tokens: largest difference {most:.2e}, cosine {cosine:.7}",
            entry["input_ids"].as_array().map_or(0, Vec::len)
        );
        assert!(most < 1e-3, "{}: {most}", entry["text"]);
    }
}
