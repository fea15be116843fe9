//! Any checkpoint: matrices named `*.weight` that are neither embeddings nor norms are linear layers, and what has four
//! dimensions is the kernel of a convolution.
//!
//! Owns: that rule. Must not know: particular families. Invariant: recognises everything.

use super::{Architecture, Facts, Place, Role, does_not_run, facts_from_config, layer_of};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::network::Network;
use crate::tensor::TensorInfo;

/// The fallback family.
pub(super) struct Generic;

impl Architecture for Generic {
    fn name(&self) -> &'static str {
        "generic"
    }

    fn recognise(&self, _model: &Checkpoint) -> bool {
        true
    }

    fn place(&self, tensor: &TensorInfo) -> Place {
        let name = tensor.name.to_ascii_lowercase();
        let last = tensor
            .module()
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let dimensions = tensor.shape.len();
        let role = if name.ends_with(".bias") {
            Role::Bias
        } else if name.ends_with(".weight") && dimensions == 4 {
            Role::Convolution
        } else if last.contains("norm") || last.starts_with("ln_") || last == "ln" {
            Role::Norm
        } else if last == "wpe"
            || name.contains("position_embedding")
            || name.contains("token_type_embedding")
        {
            Role::PositionEmbedding
        } else if dimensions == 2 && (last == "wte" || name.contains("embed")) {
            Role::TokenEmbedding
        } else if last == "lm_head" {
            Role::Output
        } else if name.ends_with(".weight") && dimensions == 2 {
            Role::Linear
        } else {
            Role::Other
        };
        Place {
            role,
            layer: layer_of(&tensor.name),
        }
    }

    fn facts(&self, model: &Checkpoint) -> Facts {
        facts_from_config(model)
    }

    fn network(&self, model: &Checkpoint) -> Result<Box<dyn Network>> {
        let name = model
            .architecture()
            .unwrap_or_else(|| "a model without config.json".to_owned());
        Err(does_not_run(&name))
    }
}
