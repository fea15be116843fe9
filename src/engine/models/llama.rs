//! The llama family by Hugging Face names: LLaMA 1–3, Mistral, SmolLM2, Qwen2/2.5/3, `TinyLlama`.
//!
//! Owns: its tensor names. Must not know: configurations beyond `model_type`.
//! Invariant: a bias or norm is never called a projection.

use super::{Architecture, Facts, Place, Role, facts_from_config, layer_of};
use crate::checkpoint::Checkpoint;
use crate::tensor::TensorInfo;

/// The family.
pub(super) struct Llama;

const TYPES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "smollm"];

impl Architecture for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn recognise(&self, model: &Checkpoint) -> bool {
        let kind = model.config.as_ref().and_then(|c| c.get("model_type")?.as_str());
        kind.is_some_and(|kind| TYPES.contains(&kind))
    }

    fn place(&self, tensor: &TensorInfo) -> Place {
        let layer = layer_of(&tensor.name);
        let Some(module) = tensor.name.strip_suffix(".weight") else {
            let role = if tensor.name.ends_with(".bias") {
                Role::Bias
            } else {
                Role::Other
            };
            return Place { role, layer };
        };
        let role = match module.rsplit('.').next().unwrap_or(module) {
            "embed_tokens" => Role::TokenEmbedding,
            "lm_head" => Role::Output,
            "q_proj" => Role::AttnQ,
            "k_proj" => Role::AttnK,
            "v_proj" => Role::AttnV,
            "o_proj" => Role::AttnOutput,
            "gate_proj" => Role::FfnGate,
            "up_proj" => Role::FfnUp,
            "down_proj" => Role::FfnDown,
            last if last.contains("norm") => Role::Norm,
            _ => Role::Other,
        };
        Place { role, layer }
    }

    fn facts(&self, model: &Checkpoint) -> Facts {
        facts_from_config(model)
    }
}
