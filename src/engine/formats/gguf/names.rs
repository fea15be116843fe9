//! Owns: tensor names of the llama family, Hugging Face to GGUF and back, and the row order of q and k.
//!
//! Must not know: tensor contents, config fields (`metadata` reads those).
//! Invariant: a name is given only to a tensor llama.cpp creates for that architecture, because it refuses files
//! with tensors it did not ask for; renaming there and back gives the same name.
//!
//! Why rows move: Hugging Face rotates the halves of a head against each other, llama.cpp's `llama` architecture
//! rotates neighbours, so its converter interleaves the two halves of each q and k head. The qwen
//! architectures rotate halves in llama.cpp too and keep their rows.

use super::error::GgufError;

/// A GGUF architecture of the llama family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `llama`: LLaMA 1 to 3, Mistral, SmolLM2 and other models of that shape.
    Llama,
    /// `qwen2`: Qwen2 and Qwen2.5.
    Qwen2,
    /// `qwen3`.
    Qwen3,
}

impl Family {
    /// The value of `general.architecture`, and the prefix of the architecture's keys.
    pub fn arch(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// What names depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The architecture.
    pub family: Family,
    /// Attention heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// The head is the token embedding: `lm_head.weight`, if stored, is not written.
    pub tied: bool,
}

/// A tensor's place in the GGUF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRename {
    /// The GGUF name.
    pub gguf: String,
    /// Rows are interleaved by [`permute_row`] with this many heads.
    pub permute_heads: Option<usize>,
}

/// Names outside the blocks, less `.weight` and `.bias`: Hugging Face (after `model.`), GGUF.
const OUTER: &[(&str, &str)] = &[
    ("embed_tokens", "token_embd"),
    ("norm", "output_norm"),
    ("lm_head", "output"),
];

/// Names inside `model.layers.N.` and `blk.N.`.
const INNER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

impl Names {
    /// The place of a checkpoint tensor. `None` for one that is left out: rotary tables that engines compute
    /// themselves, and the head of a tied model.
    ///
    /// Names may lack the leading `model.`, as in checkpoints saved without a head.
    pub fn to_gguf(&self, hf: &str) -> Result<Option<TensorRename>, GgufError> {
        let tied_head = self.tied && hf == "lm_head.weight";
        if tied_head || hf.ends_with(".rotary_emb.inv_freq") {
            return Ok(None);
        }
        let unknown = || GgufError::UnknownTensor {
            name: hf.into(),
            arch: self.family.arch(),
        };
        let bare = hf.strip_prefix("model.").unwrap_or(hf);
        let (module, kind) = bare.rsplit_once('.').ok_or_else(unknown)?;
        let (prefix, part) = match module
            .strip_prefix("layers.")
            .and_then(|rest| rest.split_once('.'))
        {
            Some((block, module)) if block.parse::<u32>().is_ok() => {
                (format!("blk.{block}."), lookup(INNER, module))
            }
            _ => (String::new(), lookup(OUTER, module)),
        };
        let part = part.ok_or_else(unknown)?;
        if !self.exists(part, kind) {
            return Err(unknown());
        }
        let gguf = format!("{prefix}{part}.{kind}");
        Ok(Some(TensorRename {
            gguf,
            permute_heads: self.permuted(part),
        }))
    }

    /// The Hugging Face name of a GGUF tensor of this family, and the heads whose interleaving
    /// [`unpermute_row`] undoes. `None` for a tensor with no counterpart (`rope_freqs.weight`).
    pub fn to_hf(&self, gguf: &str) -> Option<(String, Option<usize>)> {
        let (module, kind) = gguf.rsplit_once('.')?;
        let (hf, part) = match module.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((block, part)) => {
                let block: usize = block.parse().ok()?;
                (
                    format!("model.layers.{block}.{}.{kind}", reverse(INNER, part)?),
                    part,
                )
            }
            None if module == "output" => (format!("lm_head.{kind}"), module),
            None => (format!("model.{}.{kind}", reverse(OUTER, module)?), module),
        };
        self.exists(part, kind).then(|| (hf, self.permuted(part)))
    }

    /// Whether llama.cpp's loader creates this tensor (`src/models/{llama,qwen2,qwen3}.cpp`).
    fn exists(&self, part: &str, kind: &str) -> bool {
        match (kind, part) {
            ("weight", "attn_q_norm" | "attn_k_norm") => self.family == Family::Qwen3,
            ("weight", _) | ("bias", "attn_q" | "attn_k" | "attn_v") => true,
            ("bias", "attn_output" | "ffn_gate" | "ffn_up" | "ffn_down") => self.family == Family::Llama,
            ("bias", "output") => self.family == Family::Qwen2,
            _ => false,
        }
    }

    fn permuted(&self, part: &str) -> Option<usize> {
        match (self.family, part) {
            (Family::Llama, "attn_q") => Some(self.heads),
            (Family::Llama, "attn_k") => Some(self.kv_heads),
            _ => None,
        }
    }
}

fn lookup(table: &[(&str, &'static str)], hf: &str) -> Option<&'static str> {
    table.iter().find(|(name, _)| *name == hf).map(|(_, gguf)| *gguf)
}

fn reverse(table: &[(&'static str, &str)], gguf: &str) -> Option<&'static str> {
    table.iter().find(|(_, name)| *name == gguf).map(|(hf, _)| *hf)
}

/// The checkpoint row that becomes GGUF row `row` of a q or k tensor of `rows` rows.
///
/// Within a head of `d` rows, GGUF row `2j + p` is checkpoint row `p·d/2 + j`: numpy's
/// `reshape(heads, 2, d/2, …).swapaxes(1, 2)`. `rows` must be a multiple of `2 · heads`.
pub fn permute_row(row: usize, rows: usize, heads: usize) -> usize {
    let d = rows / heads;
    let (head, within) = (row / d, row % d);
    head * d + (within % 2) * (d / 2) + within / 2
}

/// The GGUF row that becomes checkpoint row `row`: the inverse of [`permute_row`].
pub fn unpermute_row(row: usize, rows: usize, heads: usize) -> usize {
    let d = rows / heads;
    let (head, within) = (row / d, row % d);
    head * d + (within % (d / 2)) * 2 + within / (d / 2)
}

#[cfg(test)]
#[path = "tests/names.rs"]
mod tests;
