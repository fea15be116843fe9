//! The llama family by Hugging Face names: LLaMA 1–3, Mistral, SmolLM2/3, Qwen2/2.5/3, `TinyLlama`; Mixtral and Qwen `MoE`.
//!
//! Owns: its tensor names. Must not know: configurations beyond `model_type`.
//! Invariant: a bias or norm is never called a projection.

use super::config::{Config, check_shapes};
use super::decoder::{Block, Decoder, Feed};
use super::experts::{Experts, Shared};
use super::rope_scaling::rotary;
use super::{Architecture, Facts, Place, Role, facts_from_config, layer_of};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::network::{Network, Sizes};
use crate::tensor::TensorInfo;
use serde_json::Value;

/// The family.
pub(super) struct Llama;

const TYPES: [&str; 9] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm",
    "smollm3",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
];

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
            "gate_proj" | "w1" => Role::FfnGate,
            "up_proj" | "w3" => Role::FfnUp,
            "down_proj" | "w2" => Role::FfnDown,
            "gate" | "shared_expert_gate" => Role::Router,
            last if last.contains("norm") => Role::Norm,
            _ => Role::Other,
        };
        Place { role, layer }
    }

    fn facts(&self, model: &Checkpoint) -> Facts {
        facts_from_config(model)
    }

    fn network(&self, model: &Checkpoint) -> Result<Box<dyn Network>> {
        Ok(Box::new(Self::build(model)?))
    }
}

impl Llama {
    fn build(model: &Checkpoint) -> Result<Decoder> {
        let config = Config::of(model)?;
        let hidden = config.count(&["hidden_size"])?;
        let heads = config.count(&["num_attention_heads"])?;
        let kv_heads = config.maybe(&["num_key_value_heads"])?.unwrap_or(heads);
        let head_dim = config.maybe(&["head_dim"])?.unwrap_or(hidden / heads);
        let layers = config.count(&["num_hidden_layers"])?;
        if heads % kv_heads != 0 || head_dim % 2 != 0 {
            return Err(Error::bad_input(
                "invalid_config",
                format!(
                    "config.json: {heads} heads, {kv_heads} key/value heads of {head_dim} do not fit together"
                ),
            ));
        }
        let has = |name: &str| model.tensors.iter().any(|t| t.name == name);
        let prefix = if has("model.embed_tokens.weight") {
            "model."
        } else {
            ""
        };
        let embedding = format!("{prefix}embed_tokens.weight");
        let head = if has("lm_head.weight") {
            "lm_head.weight".to_owned()
        } else {
            embedding
        };
        let mut decoder = Decoder {
            sizes: Sizes {
                blocks: layers,
                hidden,
                widest: config
                    .maybe(&["intermediate_size"])?
                    .unwrap_or(hidden)
                    .max(heads * head_dim),
                vocab: config.count(&["vocab_size"])?,
                context: config.maybe(&["max_position_embeddings"])?,
            },
            heads,
            kv_heads,
            head_dim,
            eps: config.number("rms_norm_eps", 1e-6),
            activation: config.activation(&["hidden_act", "hidden_activation"], "silu")?,
            rotary: rotary(config.value, head_dim)?,
            head_norms: has(&format!("{prefix}layers.0.self_attn.q_norm.weight")),
            blocks: Vec::new(),
            prefix: prefix.to_owned(),
            head,
            biases: Vec::new(),
        };
        for layer in 0..layers {
            let at = format!("{prefix}layers.{layer}.");
            decoder.biases.push(biases(model, &at));
            decoder.blocks.push(Block {
                window: window(&config, layer),
                rotates: rotates(&config, layer),
                feed: feed(&config, &at, layer)?,
                prefix: at,
            });
        }
        check_shapes(model, &shapes(&decoder, &config)?)?;
        Ok(decoder)
    }
}

fn biases(model: &Checkpoint, prefix: &str) -> Vec<String> {
    let names = model.tensors.iter().map(|t| &t.name);
    names
        .filter(|n| n.starts_with(prefix) && n.ends_with(".bias"))
        .cloned()
        .collect()
}

/// The sliding window of a block, if it has one.
fn window(config: &Config<'_>, layer: usize) -> Option<usize> {
    let size = config.value.get("sliding_window")?.as_u64()? as usize;
    let listed = config
        .value
        .get("layer_types")
        .and_then(|l| l.get(layer)?.as_str());
    let slides = match (listed, config.text("model_type")) {
        (Some(kind), _) => kind == "sliding_attention",
        // Blocks from `max_window_layers` on slide, and only where the model says that it uses windows.
        (None, Some("qwen2" | "qwen3" | "qwen2_moe" | "qwen3_moe")) => {
            let first = config.number("max_window_layers", 28.0) as usize;
            config.flag("use_sliding_window", false) && layer >= first
        }
        (None, Some("mistral" | "mixtral")) => true,
        (None, _) => config.flag("use_sliding_window", false),
    };
    slides.then_some(size)
}

/// `SmolLM3` leaves every fourth block without rotation.
fn rotates(config: &Config<'_>, layer: usize) -> bool {
    if let Some(flag) = config
        .value
        .get("no_rope_layers")
        .and_then(|l| l.get(layer)?.as_u64())
    {
        return flag != 0;
    }
    if config.text("model_type") != Some("smollm3") {
        return true;
    }
    let every = config.number("no_rope_layer_interval", 4.0) as usize;
    !(layer + 1).is_multiple_of(every.max(1))
}

fn parts(module: &str, names: [&str; 3]) -> [String; 3] {
    names.map(|name| format!("{module}.{name}.weight"))
}

const MLP: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

fn feed(config: &Config<'_>, at: &str, layer: usize) -> Result<Feed> {
    let mlp = format!("{at}mlp");
    let qwen = match config.text("model_type") {
        Some("mixtral") => false,
        Some("qwen2_moe" | "qwen3_moe") => true,
        _ => return Ok(Feed::Dense(parts(&mlp, MLP))),
    };
    let count = config.count(&["num_local_experts", "num_experts"])?;
    let top_k = config
        .maybe(&["num_experts_per_tok"])?
        .unwrap_or(if qwen { 4 } else { 2 });
    if !qwen {
        let moe = format!("{at}block_sparse_moe");
        let expert = |e| parts(&format!("{moe}.experts.{e}"), ["w1", "w3", "w2"]);
        return Ok(Feed::Experts(Experts {
            router: format!("{moe}.gate.weight"),
            parts: (0..count).map(expert).collect(),
            top_k,
            normalised: true,
            shared: None,
        }));
    }
    let dense = config.value.get("mlp_only_layers").and_then(Value::as_array);
    let every = config.maybe(&["decoder_sparse_step"])?.unwrap_or(1);
    let listed = dense.is_some_and(|l| l.iter().any(|n| n.as_u64() == Some(layer as u64)));
    if listed || !(layer + 1).is_multiple_of(every) {
        return Ok(Feed::Dense(parts(&mlp, MLP)));
    }
    let expert = |e| parts(&format!("{mlp}.experts.{e}"), MLP);
    let shared = (config.text("model_type") == Some("qwen2_moe")).then(|| Shared {
        parts: parts(&format!("{mlp}.shared_expert"), MLP),
        share: format!("{mlp}.shared_expert_gate.weight"),
    });
    Ok(Feed::Experts(Experts {
        router: format!("{mlp}.gate.weight"),
        parts: (0..count).map(expert).collect(),
        top_k,
        normalised: config.flag("norm_topk_prob", false),
        shared,
    }))
}

/// Every weight that the network multiplies with, and its shape by the configuration.
fn shapes(decoder: &Decoder, config: &Config<'_>) -> Result<Vec<(String, Vec<usize>)>> {
    let (hidden, dim) = (decoder.sizes.hidden, decoder.head_dim);
    let (q, kv) = (decoder.heads * dim, decoder.kv_heads * dim);
    let mut wanted = vec![
        (
            format!("{}embed_tokens.weight", decoder.prefix),
            vec![decoder.sizes.vocab, hidden],
        ),
        (decoder.head.clone(), vec![decoder.sizes.vocab, hidden]),
        (format!("{}norm.weight", decoder.prefix), vec![hidden]),
    ];
    let mut feed = |[gate, up, down]: &[String; 3], inner: usize| {
        wanted.push((gate.clone(), vec![inner, hidden]));
        wanted.push((up.clone(), vec![inner, hidden]));
        wanted.push((down.clone(), vec![hidden, inner]));
    };
    for block in &decoder.blocks {
        match &block.feed {
            Feed::Dense(parts) => feed(parts, config.count(&["intermediate_size"])?),
            Feed::Experts(experts) => {
                let inner = config.count(&["moe_intermediate_size", "intermediate_size"])?;
                experts.parts.iter().for_each(|parts| feed(parts, inner));
                if let Some(shared) = &experts.shared {
                    feed(&shared.parts, config.count(&["shared_expert_intermediate_size"])?);
                }
            }
        }
    }
    for (index, block) in decoder.blocks.iter().enumerate() {
        let name = |rest: &str| format!("{}{rest}.weight", block.prefix);
        wanted.push((name("input_layernorm"), vec![hidden]));
        wanted.push((name("post_attention_layernorm"), vec![hidden]));
        for (part, rows) in [("q", q), ("k", kv), ("v", kv)] {
            wanted.push((name(&format!("self_attn.{part}_proj")), vec![rows, hidden]));
        }
        wanted.push((name("self_attn.o_proj"), vec![hidden, q]));
        if decoder.head_norms {
            wanted.push((name("self_attn.q_norm"), vec![dim]));
            wanted.push((name("self_attn.k_norm"), vec![dim]));
        }
        if let Feed::Experts(experts) = &decoder.blocks[index].feed {
            wanted.push((experts.router.clone(), vec![experts.parts.len(), hidden]));
        }
    }
    Ok(wanted)
}
