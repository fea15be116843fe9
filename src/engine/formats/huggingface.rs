//! Hugging Face checkpoints: config.json and safetensors, single or sharded with an index.
//!
//! Owns: recognising them by their configuration. Must not know: safetensors headers, the index.
//! Invariant: weights that are quantized already are refused, whatever their tensors look like.

use super::{Reader, shards};
use crate::checkpoint::{Checkpoint, SourceFile, SourceFormat, parse_json, read_side_file};
use crate::error::{Error, Result};
use serde_json::Value;

/// The reader.
pub struct HuggingFace;

const CONFIG: &str = "config.json";

impl Reader for HuggingFace {
    fn name(&self) -> &'static str {
        "huggingface"
    }

    fn summary(&self) -> &'static str {
        "A Hugging Face checkpoint: config.json and safetensors, single or sharded, with its tokenizer files"
    }

    fn sniff(&self, files: &[SourceFile]) -> bool {
        files.iter().any(|f| f.name == CONFIG) && files.iter().any(|f| f.name.ends_with(".safetensors"))
    }

    fn open(&self, files: &[SourceFile]) -> Result<Checkpoint> {
        let config = match files.iter().find(|f| f.name == CONFIG) {
            Some(file) => parse_json(CONFIG, &read_side_file(file)?)?,
            None => Value::Null,
        };
        if !config.is_object() {
            return Err(Error::bad_input(
                "invalid_json",
                "config.json is not a JSON object",
            ));
        }
        refuse_quantized(&config)?;
        let tensors = shards::read(files)?;
        Checkpoint::new(SourceFormat::Huggingface, files, tensors, Some(config), None)
    }
}

fn refuse_quantized(config: &Value) -> Result<()> {
    let method = config.get("quantization_config").filter(|q| !q.is_null());
    let Some(method) = method else { return Ok(()) };
    let name = method
        .get("quant_method")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    Err(Error::unsupported(
        "already_quantized",
        format!(
            "config.json says the weights are already quantized ({name}): upload the original checkpoint"
        ),
    ))
}
