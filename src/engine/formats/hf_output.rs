//! The folder every Hugging Face style writer produces: config.json, tokenizer files, shards.
//!
//! Owns: which side files go along. Must not know: how a weight is encoded.
//! Invariant: side files go along byte for byte; in config.json only what the format must say is changed.

use super::Request;
use super::container::{Entry, Layout};
use super::shards;
use crate::checkpoint::{SourceFile, is_module_config, read_side_file};
use crate::error::Result;
use crate::recipe::Refusal;
use serde_json::Value;

/// Side files that are carried over as they are.
const SIDE_FILES: [&str; 15] = [
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
    "config_sentence_transformers.json",
    "modules.json",
];

/// True of what goes along with weights: configuration and side files.
pub(super) fn is_side_file(name: &str) -> bool {
    name == "config.json" || SIDE_FILES.contains(&name) || is_module_config(name)
}

/// One entry of a tensor, before it is placed.
pub(super) type Part = Entry;

/// The side files, without weights.
pub(super) fn side_files(
    request: &Request<'_>,
    config: Option<Value>,
) -> std::result::Result<Layout, Vec<Refusal>> {
    let mut layout = Layout::default();
    if let Some(config) = config {
        layout.push_bytes("config.json", pretty(&config));
    }
    let named = SIDE_FILES.iter().filter_map(|name| request.model.file(name));
    let modules = request.model.files.iter().filter(|f| is_module_config(&f.name));
    for file in named.chain(modules) {
        let name = &file.name;
        let bytes = read_side_file(file)
            .map_err(|e| vec![Refusal::new(request.pointer, e.code, format!("{name}: {e}"))])?;
        layout.push_bytes(name, bytes);
    }
    Ok(layout)
}

/// Lays out shards from each tensor's parts, and the side files.
pub(super) fn layout(
    request: &Request<'_>,
    config: Option<Value>,
    parts: &dyn Fn(usize) -> Vec<Part>,
) -> std::result::Result<Layout, Vec<Refusal>> {
    let mut layout = side_files(request, config)?;
    shards::push(&mut layout, request.tensors.len(), parts);
    Ok(layout)
}

/// The entries of a written folder, by the parser that uploads go through.
pub(super) fn reopen(files: &[SourceFile]) -> Result<Vec<Entry>> {
    Ok(shards::read(files)?.into_iter().map(Entry::from).collect())
}

/// Two-space JSON with a final newline, as transformers writes it.
pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text.into_bytes()
}

/// The source's config.json with `quantization_config` set, or why there is none.
pub(super) fn with_quantization(
    request: &Request<'_>,
    quantization: Value,
) -> std::result::Result<Value, Vec<Refusal>> {
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
