//! What answering one token takes: multiplications, and bytes that are read.
//!
//! Owns: which weights take part. Must not know: presets, formats.
//! Invariant: weights that only look numbers up are not counted; of experts only as many as a token is sent to.

use serde::{Deserialize, Serialize};

use super::Memory;
use crate::checkpoint::Checkpoint;
use crate::models::Role;
use crate::tensor::TensorInfo;

/// The cost of a token, attention over what came before it not counted: that grows with the context, not with the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// Weights that a token is multiplied with.
    pub active_parameters: u64,
    /// Floating-point operations a token: two for each of these weights.
    pub flops_per_token: u64,
    /// Bytes of them in plain types, without scales: what one stream of tokens reads for each, and what bounds its speed.
    pub bytes_per_token: Memory,
}

/// The cost of a token of this model.
pub(super) fn of(model: &Checkpoint) -> Compute {
    let role = |info: &TensorInfo| model.place(info).role;
    let active = |info: &TensorInfo| {
        let all = info.elements() as u64;
        if info.name.contains(".experts.") || info.name.contains("_exps.") {
            (all as f64 * share_of_experts(model)) as u64
        } else {
            all
        }
    };
    let linear = model.tensors.iter().filter(|info| role(info).is_linear());
    let mut parameters: u64 = linear.map(active).sum();
    if !model.tensors.iter().any(|info| role(info) == Role::Output) {
        // The table of embeddings is the head too, in models that have one.
        let tied = model
            .tensors
            .iter()
            .filter(|info| role(info) == Role::TokenEmbedding);
        let name = model.architecture().unwrap_or_default();
        let has_head = name.contains("CausalLM") || model.gguf.is_some() && !name.contains("bert");
        parameters += tied.map(active).sum::<u64>() * u64::from(has_head);
    }
    Compute {
        active_parameters: parameters,
        flops_per_token: 2 * parameters,
        bytes_per_token: Memory::of(parameters),
    }
}

/// How many of the experts a token is sent to, 0 to 1.
fn share_of_experts(model: &Checkpoint) -> f64 {
    let used = model
        .config
        .as_ref()
        .and_then(|config| config.get("num_experts_per_tok"));
    let used = used.and_then(serde_json::Value::as_u64);
    match (used, model.facts().experts) {
        (Some(used), all) if all > 0 => (used as f64 / all as f64).min(1.0),
        _ => 1.0,
    }
}
