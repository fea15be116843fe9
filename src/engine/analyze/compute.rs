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

/// Of which tensors how much takes part in a token, 0 to 1.
pub(super) struct Active<'a> {
    pub(super) model: &'a Checkpoint,
    experts: f64,
    has_tied_head: bool,
}

impl<'a> Active<'a> {
    pub(super) fn of(model: &'a Checkpoint) -> Self {
        let has_output = model
            .tensors
            .iter()
            .any(|info| model.place(info).role == Role::Output);
        let name = model.architecture().unwrap_or_default();
        let has_head = name.contains("CausalLM") || model.gguf.is_some() && !name.contains("bert");
        Self {
            model,
            experts: share_of_experts(model),
            // The table of embeddings is the head too.
            has_tied_head: has_head && !has_output,
        }
    }

    /// The share of a tensor of that name and part; `untied` where the head has a tensor of its own beside the table.
    pub(super) fn share(&self, name: &str, role: Role, untied: bool) -> f64 {
        match role {
            Role::TokenEmbedding if self.has_tied_head && !untied => 1.0,
            _ if !role.is_linear() => 0.0,
            _ if name.contains(".experts.") || name.contains("_exps.") => self.experts,
            _ => 1.0,
        }
    }

    /// The cost of a token of the model as it is.
    pub(super) fn compute(&self) -> Compute {
        let own = |info: &TensorInfo| {
            let share = self.share(&info.name, self.model.place(info).role, false);
            (info.elements() as f64 * share) as u64
        };
        let parameters: u64 = self.model.tensors.iter().map(own).sum();
        Compute {
            active_parameters: parameters,
            flops_per_token: 2 * parameters,
            bytes_per_token: Memory::of(parameters),
        }
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
