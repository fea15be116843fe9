//! How much memory a plan takes.
//!
//! Owns: the bound on resident memory. Must not know: how many threads there are; the loop in `execute` holds to it.
//! Invariant: it is never less than what the process uses; a job is admitted by it.

use super::TensorPlan;
use crate::tensor::CHUNK_ELEMENTS;
use crate::weight::Kind;

/// What the engine holds beside tensors: code, threads' buffers, headers, the tokenizer, the allocator's slack.
const BASE_MEMORY: u64 = 192 << 20;

/// One tensor being made and encoded for one format, and the encoding before it on its way to disk. `encoded` has
/// the bytes of every tensor for each format.
pub(super) fn peak(tensors: &[TensorPlan], encoded: &[Vec<u64>]) -> u64 {
    let most = |at: usize| encoded.iter().map(|bytes| bytes[at]).max().unwrap_or(0);
    let of = |(at, tensor): (usize, &TensorPlan)| {
        let waiting = most(at).max(if at > 0 { most(at - 1) } else { 0 });
        making(tensor) + most(at) + waiting
    };
    BASE_MEMORY + tensors.iter().enumerate().map(of).max().unwrap_or(0)
}

/// A step's weight beside the one it is made from, and what a format or a thread may copy of it.
fn making(tensor: &TensorPlan) -> u64 {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let (mut before, mut most) = (0, 0);
    for step in &tensor.steps {
        let weight = step.kind.working_bytes(rows, cols);
        most = (before + weight).max(most);
        before = weight;
    }
    // A format that packs down the columns turns the codes first.
    let turned = match tensor.kind {
        Kind::Dense { dtype: _ } | Kind::Block { ggml_type: _ } => 0,
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
