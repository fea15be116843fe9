//! Model families: which tensor plays which part.
//!
//! Owns: roles and the [`Architecture`] seam. Must not know: techniques, output formats.
//! Invariant: a tensor no family knows is [`Role::Other`], never a guess.
//!
//! Shared by siblings: `config`, `decoder`, `embeddings`, `encoder`, `experts`, `rope_scaling`, `sequence_head`.
//!
//! A family is one file and one line in [`ARCHITECTURES`]; the first that recognises a checkpoint wins, and
//! `generic` recognises all.

mod bert;
mod config;
mod decoder;
mod embeddings;
mod encoder;
mod experts;
mod generic;
mod gguf_names;
mod gpt2;
mod llama;
mod rope_scaling;
mod sequence_head;
pub mod structure;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::network::Network;
use crate::tensor::TensorInfo;
use serde::{Deserialize, Serialize};

/// The part a tensor plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Token embedding table.
    TokenEmbedding,
    /// Output head (`lm_head`).
    Output,
    /// Query projection.
    AttnQ,
    /// Key projection.
    AttnK,
    /// Value projection.
    AttnV,
    /// Fused query/key/value projection.
    AttnQkv,
    /// Attention output projection.
    AttnOutput,
    /// Gate of a gated MLP.
    FfnGate,
    /// Up projection.
    FfnUp,
    /// Down projection.
    FfnDown,
    /// Router of a mixture of experts.
    Router,
    /// Any other matrix that multiplies activations.
    Linear,
    /// Kernel of a convolution over two dimensions: `[outputs, inputs / groups, height, width]`.
    Convolution,
    /// Normalisation weight.
    Norm,
    /// Bias.
    Bias,
    /// Position or token-type embedding.
    PositionEmbedding,
    /// Unknown.
    Other,
}

impl Role {
    /// True for the matrices the class name `Linear` targets (the output head is one, embeddings are not).
    pub fn is_linear(self) -> bool {
        matches!(
            self,
            Self::Output
                | Self::AttnQ
                | Self::AttnK
                | Self::AttnV
                | Self::AttnQkv
                | Self::AttnOutput
                | Self::FfnGate
                | Self::FfnUp
                | Self::FfnDown
                | Self::Router
                | Self::Linear
        )
    }
}

/// Where a tensor sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its part.
    pub role: Role,
    /// Block number, where it belongs to one.
    pub layer: Option<usize>,
}

/// Counts that allocation rules need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Experts a block (0 for dense models).
    pub experts: usize,
}

/// A model family.
pub trait Architecture: Sync {
    /// Name for messages.
    fn name(&self) -> &'static str;
    /// True where this family understands the checkpoint's names.
    fn recognise(&self, model: &Checkpoint) -> bool;
    /// The tensor's place.
    fn place(&self, tensor: &TensorInfo) -> Place;
    /// Layer and head counts; zeros where unknown.
    fn facts(&self, model: &Checkpoint) -> Facts;
    /// The forward pass, or why this checkpoint cannot run.
    fn network(&self, model: &Checkpoint) -> Result<Box<dyn Network>>;
}

/// Every family; order matters only for `generic`, which is last.
pub const ARCHITECTURES: &[&dyn Architecture] = &[
    &gguf_names::GgufNames,
    &llama::Llama,
    &bert::Bert,
    &gpt2::Gpt2,
    &generic::Generic,
];

/// The family of a checkpoint.
pub fn architecture_of(model: &Checkpoint) -> &'static dyn Architecture {
    ARCHITECTURES
        .iter()
        .copied()
        .find(|a| a.recognise(model))
        .unwrap_or(&generic::Generic)
}

/// The checkpoint's forward pass. Refused where no family knows how to run it, naming those that run.
pub fn network_of(model: &Checkpoint) -> Result<Box<dyn Network>> {
    architecture_of(model).network(model)
}

/// Says which models run.
fn does_not_run(what: &str) -> Error {
    Error::unsupported(
        "unsupported_architecture",
        format!(
            "{what} cannot be run here, and calibration and evaluation need that; families that run are llama, \
             mistral, qwen2, qwen3, smollm3, mixtral, qwen2_moe, qwen3_moe, bert, roberta, xlm-roberta, camembert, \
             distilbert and gpt2 as Hugging Face checkpoints"
        ),
    )
}

/// Counts from a Hugging Face config.json under the names its families use.
pub(crate) fn facts_from_config(model: &Checkpoint) -> Facts {
    let get = |names: &[&str]| {
        let config = model.config.as_ref()?;
        names
            .iter()
            .find_map(|name| config.get(*name)?.as_u64())
            .map(|n| n as usize)
    };
    let heads = get(&["num_attention_heads", "n_head"]).unwrap_or(0);
    Facts {
        layers: get(&["num_hidden_layers", "n_layer"]).unwrap_or(0),
        heads,
        kv_heads: get(&["num_key_value_heads"]).unwrap_or(heads),
        experts: get(&["num_local_experts", "num_experts"]).unwrap_or(0),
    }
}

/// First dotted part that is a number: the block a name belongs to.
pub(crate) fn layer_of(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

#[cfg(test)]
pub(crate) mod tests;
