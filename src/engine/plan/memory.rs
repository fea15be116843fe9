//! How much memory a plan takes.
//!
//! Owns: the bound on resident memory. Must not know: how many threads there are; the loop in `execute` holds to it.
//! Invariant: it is never less than what the process uses; a job is admitted by it.

use super::data::DataPlan;
use super::{Rotation, StagePlan, Step, TensorPlan};
use crate::calibrate::{BYTES_A_COLUMN, LABEL_ROWS, batch_tokens};
use crate::evaluate::LOGIT_ROWS;
use crate::network::{Cut, HeadKind, Network};
use crate::tensor::CHUNK_ELEMENTS;
use crate::weight::Kind;
use std::collections::HashMap;

/// What the engine holds beside tensors: code, threads' buffers, headers, the tokenizer, the allocator's slack.
const BASE_MEMORY: u64 = 192 << 20;

/// What is kept of a sequence behind each block, where layers are compared.
const PARTS: u64 = 24;

/// What a tensor's name, header, plan, layout and report take, each also as text on its way in or out. A model of
/// experts has tens of thousands.
const TENSOR_MEMORY: u64 = 8 << 10;

/// One tensor being made and encoded for one format, and the encoding before it on its way to disk. `encoded` has
/// the bytes of every tensor for each format.
pub(super) fn peak(tensors: &[TensorPlan], encoded: &[Vec<u64>]) -> u64 {
    let most = |at: usize| encoded.iter().map(|bytes| bytes[at]).max().unwrap_or(0);
    let of = |(at, tensor): (usize, &TensorPlan)| {
        let waiting = most(at).max(if at > 0 { most(at - 1) } else { 0 });
        making(tensor) + most(at) + waiting
    };
    base(tensors) + tensors.iter().enumerate().map(of).max().unwrap_or(0)
}

/// Most that a walk over data holds: what waits between steps, what one batch makes on its way, and weights as f32: those
/// of the embedding or the head and then, where a technique works, those of one block, with twice the largest of them
/// while it is read or was just replaced, and what the technique takes (`working`).
pub(super) fn walk(tensors: &[TensorPlan], network: &dyn Network, data: &DataPlan, working: u64) -> u64 {
    let planned: HashMap<&str, &TensorPlan> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let part = |names: &[String]| -> (u64, u64, u64) {
        let tensors = names.iter().filter_map(|name| planned.get(name.as_str()));
        tensors.fold((0, 0, 0), |(all, largest, turned), t| {
            let bytes = 4 * t.elements() as u64;
            let turning = t.steps.iter().map(|step| turning(t, step)).max().unwrap_or(0);
            (all + bytes, bytes.max(largest), turning.max(turned))
        })
    };
    let block = |block: usize| {
        let readers = network.cuts(block).into_iter().flat_map(|cut| cut.readers);
        let mut names: Vec<String> = readers.map(|reader| reader.tensor).collect();
        names.extend(network.block_tensors(block));
        let (all, largest, turned) = part(&names);
        all + 2 * largest + turned
    };
    let blocks = (0..network.sizes().blocks).map(block).max().unwrap_or(0);
    let end = |names: Vec<String>| {
        let (all, largest, turned) = part(&names);
        all + largest + turned
    };
    let ends = end(network.embed_tensors()).max(end(network.head_tensors()));
    base(tensors) + (blocks + working).max(ends) + data.activation_bytes + batch_bytes(network, data)
}

/// What filling a model of another structure holds: a tensor as f32 and as it is taken of, one that is made of it, and that
/// as it is written.
pub(super) fn reshaping(stages: &[StagePlan], tensors: &[TensorPlan]) -> u64 {
    let Some(outline) = stages.iter().find_map(|stage| stage.outline.as_ref()) else {
        return 0;
    };
    let old = tensors.iter().map(TensorPlan::elements).max().unwrap_or(0) as u64;
    let sizes = outline.tensors.iter().map(|t| t.shape.iter().product::<usize>());
    let new = sizes.max().unwrap_or(0) as u64;
    base(tensors) + 12 * old + 12 * new
}

/// The importance of one tensor's columns: as it lies on disk, as sums, as means, and as it is encoded.
pub(super) fn importance(stages: &[StagePlan], tensors: &[TensorPlan]) -> u64 {
    let of = |stage: &StagePlan| {
        let known = stage.importance().into_iter().flat_map(|i| &i.tensors);
        // Of each weight by itself: as it is stored, and as f32.
        let each = if stage.knows_each() { 6 } else { 0 };
        let bytes = known.map(|index| {
            let tensor = &tensors[*index];
            16 * (tensor.matrices() * tensor.cols()) as u64 + each * tensor.elements() as u64
        });
        bytes.max().unwrap_or(0)
    };
    stages.iter().map(of).max().unwrap_or(0)
}

/// Sums of squares for the layers of one block while a stage collects them.
pub(super) fn sums(stages: &[StagePlan], tensors: &[TensorPlan]) -> u64 {
    let of = |stage: &StagePlan| {
        let mut blocks: HashMap<Option<usize>, u64> = HashMap::new();
        for index in stage.importance().into_iter().flat_map(|i| &i.tensors) {
            let tensor = &tensors[*index];
            *blocks.entry(tensor.layer).or_default() += BYTES_A_COLUMN * tensor.cols() as u64;
        }
        blocks.into_values().max().unwrap_or(0)
    };
    let collecting = stages.iter().filter(|stage| stage.collects());
    collecting.map(of).max().unwrap_or(0)
}

/// Most that the way through a model and back holds, one sequence at a time: weights of a block, of the head or of the
/// embedding with a copy that is differentiated by and its gradients, and every tensor between with its gradient.
pub(super) fn descent(
    tensors: &[TensorPlan],
    network: &dyn Network,
    data: &DataPlan,
    knows_each: bool,
) -> u64 {
    let planned: HashMap<&str, &TensorPlan> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let bytes = |names: Vec<String>| -> u64 {
        let known = names.iter().filter_map(|name| planned.get(name.as_str()));
        known.map(|t| 4 * t.elements() as u64).sum()
    };
    let sizes = network.sizes();
    let block = |block: usize| {
        let readers = network.cuts(block).into_iter().flat_map(|cut| cut.readers);
        bytes(readers.map(|reader| reader.tensor).collect())
    };
    let weights = (0..sizes.blocks).map(block).max().unwrap_or(0);
    // Where each of many experts reads every token, each has tensors of its own.
    let readers = |block: usize| {
        network
            .cuts(block)
            .iter()
            .map(|cut| cut.readers.len())
            .sum::<usize>()
    };
    let layers = (0..sizes.blocks).map(readers).max().unwrap_or(0) as u64;
    let tokens = data.longest as u64;
    let between = 4 * tokens * (24 * sizes.hidden as u64 + (2 * layers + 8) * sizes.widest as u64);
    let ends = bytes(network.embed_tensors()).max(bytes(network.head_tensors()));
    let logits = 4 * 8 * (LABEL_ROWS * sizes.vocab) as u64;
    let hidden = 8 * tokens * sizes.hidden as u64;
    // The squares of gradients of each weight by itself, and what is written of them.
    let copies = if knows_each { 6 } else { 4 };
    base(tensors) + data.activation_bytes + (copies * weights + between).max(copies * ends + logits) + hidden
}

/// What one batch makes on its way through a cut: a handful of tensors of the widest layer.
fn batch_bytes(network: &dyn Network, data: &DataPlan) -> u64 {
    const ALIVE: u64 = 6;
    let widest = network.sizes().widest.max(network.sizes().hidden) as u64;
    // Every expert of a mixture may read every token: each has its inputs, and what it makes of them.
    let inputs = |cut: &Cut| cut.readers.iter().map(|r| r.input + 1).max().unwrap_or(1);
    let cuts = (0..network.sizes().blocks).flat_map(|block| network.cuts(block));
    let inputs = cuts.map(|cut| inputs(&cut)).max().unwrap_or(1) as u64;
    let tensor = 4 * batch_tokens(network.sizes().widest, data.longest) as u64 * widest;
    ALIVE * tensor + 2 * (inputs - 1) * tensor
}

/// What comparing two models holds on top: the other one's head and hidden states, logits of a few tokens, and the
/// embeddings of all sequences under both.
pub(super) fn comparison(tensors: &[TensorPlan], network: &dyn Network, data: &DataPlan) -> u64 {
    let head = network.head_tensors();
    let own: u64 = tensors
        .iter()
        .filter(|t| head.contains(&t.name))
        .map(|t| 4 * t.elements() as u64)
        .sum();
    let outputs = match network.head_kind() {
        HeadKind::NextToken => 16 * network.sizes().vocab * LOGIT_ROWS,
        HeadKind::Classes => 64 * data.sequences,
        HeadKind::Embedding => 16 * data.sequences * network.sizes().hidden,
    };
    own + data.activation_bytes + outputs as u64 + PARTS * (network.sizes().blocks * data.sequences) as u64
}

pub(super) fn base(tensors: &[TensorPlan]) -> u64 {
    BASE_MEMORY + TENSOR_MEMORY * tensors.len() as u64
}

/// What a step holds of its tensor beside what it is made from and what it becomes: all of it as f32 where rows are
/// mixed.
fn turning(tensor: &TensorPlan, step: &Step) -> u64 {
    let mixes = step.rotation.as_ref().is_some_and(Rotation::mixes_rows);
    // Weights that compete are held together.
    let prunes = step.sparsity.is_some() && !step.kind.is_compressed();
    let elements = tensor.elements() as u64;
    match step.kind {
        // All values, what is counted or sorted of them, and the tables of the exact solution.
        Kind::Codebook { .. } => 24 * elements + (160 << 20),
        // In f64, turned, and what a decomposition takes.
        Kind::LowRank { .. } => {
            let short = tensor.rows().min(tensor.cols()) as u64;
            28 * elements + 40 * short * short
        }
        // That of what is missing, with the matrix, the target, the quantized and the best so far as f32.
        Kind::Corrected { .. } => {
            let short = tensor.rows().min(tensor.cols()) as u64;
            48 * elements + 40 * short * short
        }
        // The kernel as f32, and what taking it apart and multiplying it out hold.
        Kind::Convolutions {
            form,
            shape,
            dtype: _,
        } => 4 * elements + form.fitting_bytes(shape),
        _ if mixes || prunes => 4 * elements,
        _ => 0,
    }
}

/// Most bytes while the steps before a stage are made, and those of what they made.
fn stages(tensor: &TensorPlan, until: usize) -> (u64, u64) {
    let (mut before, mut most) = (0, 0);
    for step in tensor.steps.iter().filter(|step| step.stage < until) {
        let weight = step.kind.working_bytes(tensor.rows(), tensor.cols());
        most = (before + turning(tensor, step) + weight).max(most);
        before = weight;
    }
    (most, before)
}

/// A step's weight beside the one it is made from, the turned tensor that it is measured against, and what a format or
/// a thread may copy of it.
fn making(tensor: &TensorPlan) -> u64 {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let (mut most, before) = stages(tensor, usize::MAX);
    // Where the last step's f32 becomes the model's own type, both are there.
    if tensor.steps.last().is_some_and(|step| step.kind != tensor.kind) {
        most = (before + tensor.kind.working_bytes(rows, cols)).max(most);
    }
    if let Some(stage) = tensor.last_rotation() {
        most = (tensor.kind.working_bytes(rows, cols) + stages(tensor, stage + 1).0).max(most);
    }
    // A format that packs down the columns turns the codes first.
    let turned = match tensor.kind {
        Kind::Dense { dtype: _ }
        | Kind::Block { ggml_type: _ }
        | Kind::Codebook { .. }
        | Kind::LowRank { .. }
        | Kind::Convolutions { .. } => 0,
        _ => tensor.elements() as u64,
    };
    // A row longer than a chunk is held whole: by every thread as f32, as it is stored, and as it came out.
    let long_rows = if cols > CHUNK_ELEMENTS {
        (rows.min(32) * cols * 12) as u64
    } else {
        0
    };
    most.max(tensor.kind.working_bytes(rows, cols) + turned) + long_rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Role;
    use crate::plan::Step;
    use crate::tensor::DType;
    use crate::weight::{Activations, Granularity};

    fn tensor(rows: usize, cols: usize, kind: Kind) -> TensorPlan {
        TensorPlan {
            cache: None,
            name: "t".into(),
            role: Role::Other,
            layer: None,
            shape: vec![rows, cols],
            source_dtype: DType::BF16,
            source_bytes: 2 * (rows * cols) as u64,
            steps: vec![Step {
                stage: 0,
                kind,
                rotation: None,
                sparsity: None,
            }],
            kind,
        }
    }

    #[test]
    fn the_largest_format_counts_once_while_made_and_once_while_written() {
        let int4 = Kind::Affine {
            n_bits: 4,
            symmetric: true,
            granularity: Granularity::Channel,
            scale_dtype: DType::BF16,
            activations: Activations::None,
            act_order: false,
        };
        let (rows, cols) = (1000, 1024);
        let n = (rows * cols) as u64;
        let tensors = [tensor(rows, cols, int4), tensor(1, 1, int4)];
        let (packed, full) = (vec![n / 2, 1], vec![4 * n, 1]);
        // Codes, a turned copy, scales; then the encoding being made and the one being written.
        let weight = 2 * n + 24 * rows as u64;
        assert_eq!(
            peak(&tensors, std::slice::from_ref(&packed)),
            base(&tensors) + weight + n
        );
        assert_eq!(peak(&tensors, &[packed, full]), base(&tensors) + weight + 8 * n);
        // A small tensor is made while the large one before it is still being written.
        let bf16 = Kind::Dense { dtype: DType::BF16 };
        let tensors = [tensor(1, 1, bf16), tensor(10, 10, bf16)];
        assert_eq!(peak(&tensors, &[vec![5000, 200]]), base(&tensors) + 2 + 10_000);
        let tensors = [tensor(1, 1, bf16), tensor(1000, 10, bf16)];
        assert_eq!(peak(&tensors, &[vec![50, 20_000]]), base(&tensors) + 60_000);
    }

    #[test]
    fn many_tensors_take_memory_however_small_they_are() {
        let bf16 = Kind::Dense { dtype: DType::BF16 };
        let one = tensor(1, 1, bf16);
        let many = vec![one.clone(); 90_000];
        let more = peak(&many, &[vec![2; 90_000]]) - peak(&[one], &[vec![2]]);
        assert!(more > 500 << 20, "{more}");
    }

    #[test]
    fn rows_longer_than_a_chunk_are_held_whole() {
        let bf16 = Kind::Dense { dtype: DType::BF16 };
        let cols = CHUNK_ELEMENTS + 1;
        let tensors = [tensor(1, cols, bf16)];
        assert_eq!(peak(&tensors, &[]), base(&tensors) + (2 + 12) * cols as u64);
    }
}
