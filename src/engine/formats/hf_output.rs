//! The folder every Hugging Face style writer produces: shards, index, config.json, tokenizer files.
//!
//! Owns: sharding, the index, which side files go along. Must not know: how a weight is encoded.
//! Invariant: shards hold the tensors in the order they are produced, none above `MAX_SHARD` unless one
//! tensor alone is.

use super::Request;
use super::container::{Entry, Layout, Placed};
use super::safetensors;
use crate::checkpoint::read_side_file;
use crate::recipe::Refusal;
use serde_json::{Map, Value, json};

/// transformers' own default.
const MAX_SHARD: u64 = 5_000_000_000;

/// Side files that are carried over as they are.
const SIDE_FILES: [&str; 13] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "preprocessor_config.json",
    "LICENSE",
    "sentence_bert_config.json",
];

/// One entry of a tensor, before it is placed.
pub(super) type Part = Entry;

/// Lays out shards from each tensor's parts, and the side files.
pub(super) fn layout(
    request: &Request<'_>,
    config: Option<Value>,
    parts: &dyn Fn(usize) -> Vec<Part>,
) -> Result<Layout, Vec<Refusal>> {
    let mut layout = Layout::default();
    if let Some(config) = config {
        layout.push_bytes("config.json", pretty(&config));
    }
    for name in SIDE_FILES {
        if let Some(file) = request.model.file(name) {
            let bytes = read_side_file(file)
                .map_err(|e| vec![Refusal::new(request.pointer, e.code, format!("{name}: {e}"))])?;
            layout.push_bytes(name, bytes);
        }
    }
    let mut shards: Vec<Vec<Placed>> = vec![Vec::new()];
    let mut size = 0;
    for index in 0..request.tensors.len() {
        let entries = parts(index);
        let bytes: u64 = entries.iter().map(|e| e.bytes).sum();
        if size > 0 && size + bytes > MAX_SHARD {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(Placed {
                tensor: Some(index),
                literal: Vec::new(),
                entries,
            });
        }
    }
    push_shards(&mut layout, shards);
    Ok(layout)
}

fn push_shards(layout: &mut Layout, shards: Vec<Vec<Placed>>) {
    let count = shards.len();
    let mut map = Map::new();
    let mut total = 0;
    for (i, shard) in shards.into_iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        for entry in shard.iter().flat_map(|p| &p.entries) {
            map.insert(entry.name.clone(), json!(name));
            total += entry.bytes;
        }
        layout.files.push(safetensors::file(name, shard));
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        layout.push_bytes("model.safetensors.index.json", pretty(&index));
    }
}

/// Two-space JSON with a final newline, as transformers writes it.
pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text.into_bytes()
}

/// The source's config.json with `quantization_config` set, or why there is none.
pub(super) fn with_quantization(request: &Request<'_>, quantization: Value) -> Result<Value, Vec<Refusal>> {
    let Some(Value::Object(mut config)) = request.model.config.clone() else {
        return Err(vec![Refusal::new(
            request.pointer,
            "needs_config_json",
            "this format describes itself in config.json, and the model has none: upload a Hugging Face checkpoint, \
             or ask for the format gguf or safetensors",
        )]);
    };
    config.insert("quantization_config".into(), quantization);
    Ok(Value::Object(config))
}
