//! Forward passes against transformers: tiny models of every family, their weights by a formula.

use super::{Role, network_of};
use crate::checkpoint::{Checkpoint, SourceFile, inspect};
use crate::network::{Batch, Compute, HeadKind, Network, Ops, Run, State, Weights};
use candle_core::Tensor;
use serde_json::{Value, json};
use std::path::Path;

mod gradients;
mod refusals;
mod sequence_heads;

/// One tensor by the golden file's formula.
pub(crate) fn values(name: &str, kind: &str, shape: &[usize]) -> Vec<f32> {
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

/// The golden file.
pub(crate) fn golden() -> Value {
    serde_json::from_str(include_str!("golden/logits.json")).unwrap()
}

/// The case of that name.
pub(crate) fn case(name: &str) -> Value {
    let golden = golden();
    let mut cases = golden["cases"].as_array().unwrap().iter();
    cases.find(|c| c["name"] == name).unwrap().clone()
}

pub(crate) fn shape_of(tensor: &Value) -> Vec<usize> {
    let sides = tensor["shape"].as_array().unwrap();
    sides.iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

/// A checkpoint's file while it is put together.
#[derive(Default)]
pub(crate) struct File {
    header: serde_json::Map<String, Value>,
    data: Vec<u8>,
}

impl File {
    pub(crate) fn add(
        &mut self,
        name: &str,
        dtype: &str,
        shape: &[usize],
        bytes: impl IntoIterator<Item = u8>,
    ) {
        let begin = self.data.len();
        self.data.extend(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, self.data.len()]});
        self.header.insert(name.to_owned(), entry);
    }

    pub(crate) fn write(self, folder: &Path) {
        let mut head = serde_json::to_vec(&self.header).unwrap();
        head.resize(head.len().next_multiple_of(8), b' ');
        let length = (head.len() as u64).to_le_bytes();
        let bytes = [&length, head.as_slice(), &self.data].concat();
        std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    }
}

/// What old checkpoints hold beside their weights: causal masks and positions.
fn add_buffer(file: &mut File, buffer: &Value) {
    let shape = shape_of(buffer);
    let side = shape[shape.len() - 1];
    let name = buffer["name"].as_str().unwrap();
    if buffer["values"] == "arange" {
        file.add(name, "I64", &shape, (0..side as i64).flat_map(i64::to_le_bytes));
        return;
    }
    let seen = |i: usize| f32::from(u8::from(i % side <= i / side));
    let bytes = (0..side * side).flat_map(|i| seen(i).to_le_bytes());
    file.add(name, "F32", &shape, bytes);
}

/// The model of a case as a folder, opened like an upload.
fn open(case: &Value, folder: &Path) -> Checkpoint {
    let mut file = File::default();
    for tensor in case["tensors"].as_array().unwrap() {
        let (name, shape) = (tensor["name"].as_str().unwrap(), shape_of(tensor));
        let values = values(name, tensor["kind"].as_str().unwrap(), &shape);
        file.add(name, "F32", &shape, values.into_iter().flat_map(f32::to_le_bytes));
    }
    for buffer in case["buffers"].as_array().into_iter().flatten() {
        add_buffer(&mut file, buffer);
    }
    file.write(folder);
    std::fs::write(folder.join("config.json"), case["config"].to_string()).unwrap();
    inspect(&SourceFile::from_path(folder).unwrap()).unwrap()
}

/// Tensors as a walk loads them: only those that are asked for.
fn load(model: &Checkpoint, network: &dyn Network, names: &[String]) -> Weights {
    let mut weights = Compute::cpu().weights();
    for name in names {
        let info = model.tensors.iter().find(|t| t.name == *name).unwrap();
        let rows = model.rows(info).unwrap();
        if network.stored_transposed(name) {
            weights.load_transposed(name, &rows, None).unwrap();
        } else {
            weights.load(name, &rows, &info.shape, None).unwrap();
        }
    }
    weights
}

/// Names of what a block reads: its linears, and the rest.
fn names_of(network: &dyn Network, block: usize) -> (Vec<String>, Vec<String>) {
    let cuts = network.cuts(block);
    let linears = cuts
        .iter()
        .flat_map(|c| c.readers.iter().map(|r| r.tensor.clone()));
    (linears.collect(), network.block_tensors(block))
}

fn run<'a>(batch: &'a Batch, weights: &'a Weights, ops: Ops) -> Run<'a> {
    Run {
        batch,
        weights,
        ops,
        all_experts: false,
    }
}

/// Hidden states after the last block, and what the head makes of them.
pub(crate) fn forward(
    model: &Checkpoint,
    network: &dyn Network,
    batch: &Batch,
    ops: Ops,
) -> (Tensor, Tensor) {
    let weights = load(model, network, &network.embed_tensors());
    let mut state = State::between(network.embed(&run(batch, &weights, ops)).unwrap());
    for block in 0..network.sizes().blocks {
        let (linears, rest) = names_of(network, block);
        let weights = load(model, network, &[linears, rest].concat());
        for at in 0..=network.cuts(block).len() {
            state = network
                .advance(block, at, state, &run(batch, &weights, ops))
                .unwrap();
        }
    }
    let weights = load(model, network, &network.head_tensors());
    let out = network.head(&state.hidden, &run(batch, &weights, ops)).unwrap();
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

/// The head that makes an output.
fn head_of(output: &str) -> HeadKind {
    match output {
        "logits" => HeadKind::NextToken,
        "class_logits" => HeadKind::Classes,
        _ => HeadKind::Embedding,
    }
}

/// The largest difference between our outputs and transformers' in one case.
fn check(case: &Value, ops: Ops) -> f32 {
    let folder = tempfile::tempdir().unwrap();
    let model = open(case, folder.path());
    let network = network_of(&model).unwrap();
    let sequences: Vec<Vec<u32>> = serde_json::from_value(case["input_ids"].clone()).unwrap();
    let slices: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let (hidden, out) = forward(&model, network.as_ref(), &Batch::new(&slices), ops);
    let output = case["output"].as_str().unwrap();
    assert_eq!(network.head_kind(), head_of(output), "{}", case["name"]);
    let rows = if output == "hidden" { hidden } else { out };
    let rows = rows.to_vec2::<f32>().unwrap();
    let mut most = 0f32;
    let mut start = 0;
    for (i, (sequence, result)) in sequences
        .iter()
        .zip(case["results"].as_array().unwrap())
        .enumerate()
    {
        match result["positions"].as_array() {
            None => most = most.max(worst(&rows[i], &floats(&result[output]))),
            Some(positions) => {
                let own = &rows[start..start + sequence.len()];
                let sum: f32 = own.iter().flatten().map(|v| v.abs()).sum();
                let mean = sum / own.iter().map(Vec::len).sum::<usize>() as f32;
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
            let most = check(case, ops);
            println!("{name} {ops:?} {most}");
            assert!(most < 1e-4, "{name} {ops:?}: {most}");
        }
    }
}

/// Whatever a network multiplies with is a matrix that `Linear` targets, and nothing else it reads is.
#[test]
fn parts_and_cuts_agree() {
    for case in golden()["cases"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let model = open(case, folder.path());
        let network = network_of(&model).unwrap();
        let place = |name: &String| model.place(model.tensors.iter().find(|t| t.name == *name).unwrap());
        for block in 0..network.sizes().blocks {
            let (linears, rest) = names_of(network.as_ref(), block);
            for (names, linear) in [(linears, true), (rest, false)] {
                for name in names {
                    let place = place(&name);
                    let multiplies = place.role.is_linear() && place.role != Role::Router;
                    assert_eq!(multiplies, linear, "{name} is {place:?}");
                    assert_eq!(place.layer, Some(block), "{name}");
                }
            }
        }
        for name in [network.embed_tensors(), network.head_tensors()].concat() {
            assert_ne!(place(&name).role, Role::Other, "{name}");
        }
        for buffer in case["buffers"].as_array().into_iter().flatten() {
            let name = buffer["name"].as_str().unwrap().to_owned();
            assert_eq!(place(&name).role, Role::Other, "{name}");
        }
        assert_eq!(model.facts().layers, network.sizes().blocks, "{}", case["name"]);
    }
}
