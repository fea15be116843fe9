//! Every family in a GGUF file: llama.cpp gives all architectures the same tensor names.
//!
//! Owns: those names. Must not know: the container's layout.
//! Invariant: names outside the convention are [`Role::Other`].

use super::{Architecture, Facts, Place, Role, does_not_run, layer_of};
use crate::checkpoint::{Checkpoint, SourceFormat};
use crate::error::Result;
use crate::network::Network;
use crate::tensor::TensorInfo;

/// Models in GGUF.
pub(super) struct GgufNames;

impl Architecture for GgufNames {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn recognise(&self, model: &Checkpoint) -> bool {
        model.format == SourceFormat::Gguf
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
            "token_embd" => Role::TokenEmbedding,
            "output" => Role::Output,
            "attn_q" => Role::AttnQ,
            "attn_k" => Role::AttnK,
            "attn_v" => Role::AttnV,
            "attn_qkv" => Role::AttnQkv,
            "attn_output" => Role::AttnOutput,
            "ffn_gate" | "ffn_gate_exps" | "ffn_gate_shexp" => Role::FfnGate,
            "ffn_up" | "ffn_up_exps" | "ffn_up_shexp" => Role::FfnUp,
            "ffn_down" | "ffn_down_exps" | "ffn_down_shexp" => Role::FfnDown,
            "ffn_gate_inp" | "ffn_gate_inp_shexp" => Role::Router,
            "position_embd" | "token_types" => Role::PositionEmbedding,
            last if last.contains("norm") => Role::Norm,
            _ if tensor.shape.len() >= 2 => Role::Linear,
            _ => Role::Other,
        };
        Place { role, layer }
    }

    fn facts(&self, model: &Checkpoint) -> Facts {
        let architecture = model.architecture().unwrap_or_default();
        let get = |key: &str| {
            let value = model.gguf.as_ref()?.get_u64(&format!("{architecture}.{key}"))?;
            usize::try_from(value).ok()
        };
        let heads = get("attention.head_count").unwrap_or(0);
        Facts {
            layers: get("block_count").unwrap_or(0),
            heads,
            kv_heads: get("attention.head_count_kv").unwrap_or(heads),
            experts: get("expert_count").unwrap_or(0),
        }
    }

    fn network(&self, _model: &Checkpoint) -> Result<Box<dyn Network>> {
        Err(does_not_run("a GGUF file"))
    }
}
