//! Owns: the `tokenizer.*` keys of a GGUF, made of the tokenizer files of a Hugging Face checkpoint.
//!
//! Must not know: tensors, the container. Invariant: the vocabulary has exactly one distinct text a token id, and as
//! many ids as the embedding has rows; a tokenizer llama.cpp would run differently is refused, not approximated.
//!
//! Two kinds are converted: byte-level BPE (`gpt2` in GGUF) and sentencepiece BPE (`llama`), the latter from
//! `tokenizer.json` or from `tokenizer.model`.

mod bpe;
mod files;
mod pre;
mod sentencepiece;
mod special;
mod spm;
mod vocab;

use serde_json::Value as Json;

use super::error::{GgufError, shown};
use super::value::{ArrayValue, Metadata, Value};
use vocab::Vocab;

pub use files::TokenizerFiles;
pub use vocab::MAX_TOKENS;

/// What the tokenizer is converted for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Rows of the token embedding: the vocabulary is padded with unused tokens up to it.
    pub vocab_size: u32,
    /// `config.json`, for special token ids the tokenizer files do not name.
    pub config: &'a Json,
    /// `generation_config.json`, likewise.
    pub generation_config: Option<&'a Json>,
    /// `tokenizer.ggml.pre`, when the caller knows it and the tokenizer does not show it.
    pub pre: Option<&'a str>,
}

/// All `tokenizer.*` keys.
pub fn convert(files: &TokenizerFiles, target: &Target<'_>) -> Result<Metadata, GgufError> {
    let converted = match (&files.tokenizer_json, &files.sentencepiece) {
        (Some(json), _) if bpe::recognise(json) => bpe::convert(json, target)?,
        (Some(json), model) if spm::recognise(json) => spm::from_json(json, model.as_deref(), target)?,
        (Some(json), _) => return Err(unknown_kind(json)),
        (None, Some(model)) => spm::from_model(model, files, target)?,
        (None, None) => {
            return Err(GgufError::MissingTokenizer {
                what: "tokenizer.json or tokenizer.model".into(),
            });
        }
    };
    let mut out = Metadata::new();
    out.set("tokenizer.ggml.model", Value::text(converted.model));
    out.set("tokenizer.ggml.pre", Value::text(&converted.pre));
    out.set("tokenizer.ggml.tokens", Value::texts(&converted.vocab.tokens));
    if let Some(scores) = &converted.vocab.scores {
        out.set(
            "tokenizer.ggml.scores",
            Value::Array(ArrayValue::F32(scores.clone())),
        );
    }
    out.set(
        "tokenizer.ggml.token_type",
        Value::Array(ArrayValue::I32(converted.vocab.types.clone())),
    );
    if let Some(merges) = &converted.merges {
        out.set("tokenizer.ggml.merges", Value::texts(merges));
    }
    special::add_keys(&mut out, files, target, &converted)?;
    Ok(out)
}

/// One kind of tokenizer, converted.
struct Converted {
    /// `tokenizer.ggml.model`.
    model: &'static str,
    /// `tokenizer.ggml.pre`.
    pre: String,
    vocab: Vocab,
    /// `tokenizer.ggml.merges`, byte-level BPE only.
    merges: Option<Vec<String>>,
    /// What the tokenizer itself says of a leading space.
    space_prefix: Option<bool>,
}

fn unknown_kind(json: &Json) -> GgufError {
    let model = &json["model"];
    let got = match model["type"].as_str() {
        Some("BPE") => "BPE with neither a ByteLevel pre_tokenizer nor byte_fallback",
        Some(kind) => kind,
        None => "none",
    };
    GgufError::UnsupportedTokenizer {
        path: "tokenizer.json model.type".into(),
        expected: "BPE that is byte-level, or BPE with byte_fallback".into(),
        got: got.into(),
    }
}

fn value_error(path: impl Into<String>, expected: impl Into<String>, got: &Json) -> GgufError {
    GgufError::TokenizerValue {
        path: path.into(),
        expected: expected.into(),
        got: shown(got),
    }
}

fn unsupported(path: impl Into<String>, expected: impl Into<String>, got: &Json) -> GgufError {
    GgufError::UnsupportedTokenizer {
        path: path.into(),
        expected: expected.into(),
        got: shown(got),
    }
}

#[cfg(test)]
#[path = "../tests/tokenizer.rs"]
mod tests;
