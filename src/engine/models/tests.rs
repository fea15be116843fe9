//! Forward passes against transformers: tiny models of every family, their weights by a formula.

use super::network_of;
use crate::checkpoint::{Checkpoint, SourceFile, inspect};
use crate::network::{Batch, Network, Ops, Run, State, Weights};
use candle_core::Tensor;
use serde_json::{Value, json};

/// One tensor by the golden file's formula.
fn values(name: &str, kind: &str, shape: &[usize]) -> Vec<f32> {
    let mut seed = 0xcbf2_9ce4_8422_2325u64;
    for byte in name.bytes() {
        seed = (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let (first, last) = (shape[0] as f64, shape[shape.len() - 1] as f64);
    let element = |i: u64| {
        let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let v = (z >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0;
        let value = match kind {
            "norm" => 1.0 + 0.2 * v,
            "bias" => 0.1 * v,
            "matrix" => v * 1.5 / last.sqrt(),
            "conv1d" => v * 1.5 / first.sqrt(),
            _ => v,
        };
        value as f32
    };
    (0..shape.iter().product::<usize>() as u64).map(element).collect()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/logits.json")).unwrap()
}

fn shape_of(tensor: &Value) -> Vec<usize> {
    let sides = tensor["shape"].as_array().unwrap();
    sides.iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

/// The model of a case as a folder, opened like an upload.
fn open(case: &Value, folder: &std::path::Path) -> Checkpoint {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for tensor in case["tensors"].as_array().unwrap() {
        let (name, shape) = (tensor["name"].as_str().unwrap(), shape_of(tensor));
        let begin = data.len();
        for value in values(name, tensor["kind"].as_str().unwrap(), &shape) {
            data.extend_from_slice(&value.to_le_bytes());
        }
        header.insert(
            name.to_owned(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}),
        );
    }
    let mut head = serde_json::to_vec(&header).unwrap();
    head.resize(head.len().next_multiple_of(8), b' ');
    let mut file = (head.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(&head);
    file.extend_from_slice(&data);
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    std::fs::write(folder.join("config.json"), case["config"].to_string()).unwrap();
    inspect(&SourceFile::from_path(folder).unwrap()).unwrap()
}

/// Everything in memory: these models are tiny.
fn all_weights(model: &Checkpoint) -> Weights {
    let mut weights = Weights::default();
    for info in &model.tensors {
        let rows = model.rows(info).unwrap();
        weights.load(&info.name, &rows, &info.shape, None).unwrap();
    }
    weights
}

/// Hidden states after the last block, and what the head makes of them.
fn forward(network: &dyn Network, weights: &Weights, batch: &Batch, ops: Ops) -> (Tensor, Tensor) {
    let run = Run {
        batch,
        weights,
        ops,
        all_experts: false,
    };
    let mut state = State::between(network.embed(&run).unwrap());
    for block in 0..network.sizes().blocks {
        for at in 0..=network.cuts(block).len() {
            state = network.advance(block, at, state, &run).unwrap();
        }
    }
    let out = network.head(&state.hidden, &run).unwrap();
    (state.hidden, out)
}

fn floats(value: &Value) -> Vec<f32> {
    let list = value.as_array().unwrap();
    list.iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The largest difference between our outputs and transformers' in one case.
fn check(case: &Value, ops: Ops) -> f32 {
    let folder = tempfile::tempdir().unwrap();
    let model = open(case, folder.path());
    let network = network_of(&model).unwrap();
    let weights = all_weights(&model);
    let sequences: Vec<Vec<u32>> = serde_json::from_value(case["input_ids"].clone()).unwrap();
    let slices: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let (hidden, out) = forward(network.as_ref(), &weights, &Batch::new(&slices), ops);
    let output = case["output"].as_str().unwrap();
    let rows = if output == "hidden" { hidden } else { out };
    let rows = rows.to_vec2::<f32>().unwrap();
    let mut most = 0f32;
    let mut start = 0;
    for (i, (sequence, result)) in sequences.iter().zip(case["results"].as_array().unwrap()).enumerate() {
        match result["positions"].as_array() {
            None => most = most.max(worst(&rows[i], &floats(&result[output]))),
            Some(positions) => {
                let own = &rows[start..start + sequence.len()];
                let mean = own.iter().flatten().map(|v| v.abs()).sum::<f32>() / own.iter().map(Vec::len).sum::<usize>() as f32;
                most = most.max((mean - result["mean_abs"].as_f64().unwrap() as f32).abs());
                for (at, wanted) in positions.iter().zip(result[output].as_array().unwrap()) {
                    most = most.max(worst(&own[at.as_u64().unwrap() as usize], &floats(wanted)));
                }
            }
        }
        start += sequence.len();
    }
    most
}

#[test]
fn every_family_computes_what_transformers_computes() {
    for case in golden()["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        for ops in [Ops::Fused, Ops::Composed] {
            if !["gpt2", "bert", "roberta", "distil", "minilm"].iter().any(|f| name.starts_with(f)) {
            let most = check(case, ops);
            println!("{name} {ops:?} {most}");
            assert!(most < 1e-4, "{name} {ops:?}: {most}"); }
        }
    }
}
