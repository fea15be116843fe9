//! Tiny models of every family that runs, with weights that look like trained ones, and data for them.

use std::fs;
use std::path::Path;

use modelpress_engine::{Checkpoint, Datasets, SourceFile, dataset::Dataset, inspect};
use serde_json::{Value, json};

/// Names, shapes and configurations of tiny models of every family.
const CASES: &str = include_str!("../../src/engine/models/golden/logits.json");

/// Numbers between −1 and 1 that look random and are always the same.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// One tensor: norms have a few channels much larger than the rest, as those of trained models do.
fn values(kind: &str, shape: &[usize], numbers: &mut Numbers) -> Vec<f32> {
    let (first, last) = (shape[0] as f32, shape[shape.len() - 1] as f32);
    let mut value = |at: usize| {
        let v = numbers.next();
        match kind {
            "norm" if at % 23 == 5 => 8.0 + v,
            "norm" => 0.5 + 0.2 * v,
            "bias" => 0.1 * v,
            "matrix" => v * 1.5 / last.sqrt(),
            "conv1d" => v * 1.5 / first.sqrt(),
            _ => v,
        }
    };
    (0..shape.iter().product()).map(&mut value).collect()
}

/// The model of that name, as a folder.
pub(super) fn model(name: &str, folder: &Path) -> Checkpoint {
    let cases: Value = serde_json::from_str(CASES).expect("JSON");
    let mut cases = cases["cases"].as_array().expect("cases").iter();
    let case = cases.find(|case| case["name"] == name).expect("a case");
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut numbers = Numbers(7);
    for tensor in case["tensors"].as_array().expect("tensors") {
        let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).expect("a shape");
        let begin = data.len();
        for value in values(tensor["kind"].as_str().expect("a kind"), &shape, &mut numbers) {
            data.extend(value.to_le_bytes());
        }
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(tensor["name"].as_str().expect("a name").to_owned(), entry);
    }
    let mut head = serde_json::to_vec(&header).expect("JSON");
    head.resize(head.len().next_multiple_of(8), b' ');
    let length = (head.len() as u64).to_le_bytes();
    fs::create_dir_all(folder).expect("a folder");
    fs::write(
        folder.join("model.safetensors"),
        [&length, head.as_slice(), &data].concat(),
    )
    .expect("writes");
    fs::write(folder.join("config.json"), case["config"].to_string()).expect("writes");
    opened(folder)
}

/// The model in a folder.
pub(super) fn opened(folder: &Path) -> Checkpoint {
    inspect(&SourceFile::from_path(folder).expect("files")).expect("opens")
}

/// Token ids.
pub(super) fn sequences() -> Vec<Vec<u32>> {
    let mut numbers = Numbers(3);
    let mut sequence = || {
        (0..24)
            .map(|_| ((numbers.next() + 1.0) * 46.0) as u32 + 2)
            .collect()
    };
    (0..24).map(|_| sequence()).collect()
}

/// They as the dataset `data`.
pub(super) fn data(folder: &Path) -> Datasets {
    let lines: Vec<String> = sequences()
        .iter()
        .map(|ids| json!({"input_ids": ids}).to_string())
        .collect();
    fs::write(folder.join("data.jsonl"), lines.join("\n")).expect("writes");
    let files = SourceFile::from_path(&folder.join("data.jsonl")).expect("a file");
    let mut sets = Datasets::new();
    sets.insert("data", Dataset::open(&files).expect("opens"));
    sets
}
