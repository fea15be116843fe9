//! Owns: what a `config.json` of the llama family says, checked, and the `general.*` and `{arch}.*` keys made of it.
//!
//! Must not know: tokenizers, tensors, quantization. Read at plan time, so that a job is refused before it starts.
//! Invariant: every field that would change the arithmetic in a way llama.cpp does not follow is refused by name.
//!
//! Key names and types: llama.cpp's converter and `docs/gguf.md` (counts `uint32`, epsilon and bases `float32`).

use serde_json::Value as Json;

use super::error::GgufError;
use super::fields::{flag, number, optional, required, unsupported, value_error};
use super::names::{Family, Names};
use super::rope::Rope;
use super::value::{Metadata, Value};

/// `general.quantization_version` of the block layouts ggml has had since 2023.
pub const QUANTIZATION_VERSION: u32 = 2;

/// Widest head. Real ones have 64 to 256; rope factors are held for half of it.
const MAX_HEAD_DIM: u32 = 1 << 16;

/// The model's shape, from `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// GGUF architecture.
    pub family: Family,
    /// Transformer blocks.
    pub blocks: u32,
    /// Longest context the model was made for, tokens.
    pub context: u32,
    /// Width of the hidden state.
    pub hidden: u32,
    /// Width of the MLP.
    pub feed_forward: u32,
    /// Attention heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_dim: u32,
    /// Whether `head_dim` was stated rather than `hidden / heads`.
    pub head_dim_stated: bool,
    /// Rows of the token embedding; the vocabulary is padded to it.
    pub vocab: u32,
    /// Epsilon of the RMS norms.
    pub rms_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// The output head is the token embedding.
    pub tied: bool,
}

/// What the keys say beside the shape.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// `general.name`.
    pub name: &'a str,
    /// Parameters in the tensors written, for `general.size_label`.
    pub parameters: u64,
    /// `general.file_type`: llama.cpp's `llama_ftype` number.
    pub file_type: u32,
    /// `generation_config.json`, for the recommended sampling.
    pub generation_config: Option<&'a Json>,
}

impl ModelConfig {
    /// Reads and checks `config.json`.
    pub fn from_json(config: &Json) -> Result<Self, GgufError> {
        let family = family_of(config)?;
        refuse_unsupported(config)?;
        let heads = required(config, "num_attention_heads")?;
        let hidden = required(config, "hidden_size")?;
        let kv_heads = optional(config, "num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {heads}");
            return Err(value_error(
                "num_key_value_heads",
                expected,
                &config["num_key_value_heads"],
            ));
        }
        let stated = optional(config, "head_dim")?;
        if stated.is_none() && !hidden.is_multiple_of(heads) {
            let expected = format!("a multiple of num_attention_heads = {heads}");
            return Err(value_error("hidden_size", expected, &config["hidden_size"]));
        }
        let head_dim = stated.unwrap_or(hidden / heads);
        if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
            let expected = format!("even and at most {MAX_HEAD_DIM}");
            return Err(value_error("head_dim", expected, &Json::from(head_dim)));
        }
        let context = required(config, "max_position_embeddings")?;
        Ok(Self {
            family,
            blocks: required(config, "num_hidden_layers")?,
            context,
            hidden,
            feed_forward: required(config, "intermediate_size")?,
            heads,
            kv_heads,
            head_dim,
            head_dim_stated: stated.is_some(),
            vocab: required(config, "vocab_size")?,
            // transformers' default for every model of the family
            rms_eps: number(config, "rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope: Rope::from_json(config, context)?,
            tied: flag(config, "tie_word_embeddings")?.unwrap_or(false),
        })
    }

    /// What tensor names depend on.
    pub fn names(&self) -> Names {
        Names {
            family: self.family,
            heads: self.heads as usize,
            kv_heads: self.kv_heads as usize,
            tied: self.tied,
        }
    }

    /// The tensor `rope_freqs.weight` (F32, `head_dim / 2` values) of a model with llama-3 rope scaling.
    pub fn rope_freqs(&self) -> Option<Vec<f32>> {
        self.rope.freq_factors(self.head_dim)
    }

    /// All `general.*` and `{arch}.*` keys, in the order llama.cpp's converter writes them.
    pub fn metadata(&self, about: &About<'_>) -> Metadata {
        let arch = self.family.arch();
        let mut out = Metadata::new();
        out.set("general.architecture", Value::text(arch));
        out.set("general.type", Value::text("model"));
        add_sampling(&mut out, about.generation_config);
        out.set("general.name", Value::text(about.name));
        out.set("general.size_label", Value::text(size_label(about.parameters)));
        let mut count = |key: &str, n: u32| out.set(format!("{arch}.{key}"), Value::U32(n));
        count("block_count", self.blocks);
        count("context_length", self.context);
        count("embedding_length", self.hidden);
        count("feed_forward_length", self.feed_forward);
        count("attention.head_count", self.heads);
        count("attention.head_count_kv", self.kv_heads);
        self.rope.add_keys(arch, &mut out);
        out.set(
            format!("{arch}.attention.layer_norm_rms_epsilon"),
            Value::F32(self.rms_eps),
        );
        if self.head_dim_stated {
            out.set(format!("{arch}.attention.key_length"), Value::U32(self.head_dim));
            out.set(
                format!("{arch}.attention.value_length"),
                Value::U32(self.head_dim),
            );
        }
        out.set("general.file_type", Value::U32(about.file_type));
        out.set(format!("{arch}.vocab_size"), Value::U32(self.vocab));
        out.set(format!("{arch}.rope.dimension_count"), Value::U32(self.head_dim));
        out.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
        out
    }
}

fn family_of(config: &Json) -> Result<Family, GgufError> {
    const EXPECTED: &str = "llama, mistral, qwen2 or qwen3";
    let model_type = &config["model_type"];
    match model_type.as_str() {
        Some("llama" | "mistral") => Ok(Family::Llama),
        Some("qwen2") => Ok(Family::Qwen2),
        Some("qwen3") => Ok(Family::Qwen3),
        _ if model_type.is_null() => Err(GgufError::MissingConfig {
            key: "model_type".into(),
        }),
        _ => Err(unsupported("model_type", EXPECTED, model_type)),
    }
}

/// Fields that change the arithmetic in ways the architectures above cannot express.
fn refuse_unsupported(config: &Json) -> Result<(), GgufError> {
    for key in [
        "num_local_experts",
        "num_experts",
        "n_routed_experts",
        "moe_intermediate_size",
    ] {
        if config[key].as_u64().is_some_and(|n| n > 1) {
            return Err(unsupported(
                key,
                "a dense model (mixture of experts is not converted)",
                &config[key],
            ));
        }
    }
    for (key, neutral) in [
        ("hidden_act", Json::from("silu")),
        ("partial_rotary_factor", Json::from(1.0)),
        ("use_sliding_window", Json::from(false)),
    ] {
        let value = &config[key];
        let same = value == &neutral || value.as_f64().is_some_and(|v| Some(v) == neutral.as_f64());
        if !value.is_null() && !same {
            return Err(unsupported(key, neutral.to_string(), value));
        }
    }
    for (i, layer) in config["layer_types"].as_array().into_iter().flatten().enumerate() {
        if !matches!(layer.as_str(), Some("full_attention" | "sliding_attention")) {
            return Err(unsupported(format!("layer_types[{i}]"), "full_attention", layer));
        }
    }
    if config["no_rope_layers"]
        .as_array()
        .is_some_and(|layers| layers.iter().any(|l| l.as_u64() != Some(1)))
    {
        return Err(unsupported(
            "no_rope_layers",
            "rotary embedding in every layer",
            &config["no_rope_layers"],
        ));
    }
    Ok(())
}

/// Recommended sampling, where `generation_config.json` has it.
fn add_sampling(out: &mut Metadata, generation: Option<&Json>) {
    let Some(generation) = generation else { return };
    if let Some(top_k) = generation["top_k"].as_i64().and_then(|k| i32::try_from(k).ok()) {
        out.set("general.sampling.top_k", Value::I32(top_k));
    }
    for (field, key) in [
        ("top_p", "general.sampling.top_p"),
        ("min_p", "general.sampling.min_p"),
        ("temperature", "general.sampling.temp"),
        ("repetition_penalty", "general.sampling.penalty_repeat"),
    ] {
        if let Some(value) = generation[field].as_f64() {
            out.set(key, Value::F32(value as f32));
        }
    }
}

/// Parameters in two digits or more: `135M`, `1.2B`, `70B`.
pub fn size_label(parameters: u64) -> String {
    let (scale, suffix) = match parameters {
        0..=1_000_000 => (1e-3, 'K'),
        1_000_001..=1_000_000_000 => (1e-6, 'M'),
        1_000_000_001..=1_000_000_000_000 => (1e-9, 'B'),
        _ => (1e-12, 'T'),
    };
    let scaled = parameters as f64 * scale;
    let digits = match scaled.round_ties_even() {
        0.0 => 0,
        whole if whole < 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.*}{suffix}", 2 - digits)
}

#[cfg(test)]
#[path = "tests/metadata.rs"]
mod tests;
