//! Hugging Face checkpoints: config.json and safetensors, single or sharded with an index.
//!
//! Owns: recognising them, checking the index. Must not know: safetensors headers (its sibling reads them).
//! Invariant: every tensor the index names is in the file it names.

use super::{Reader, safetensors};
use crate::checkpoint::{Checkpoint, SourceFile, SourceFormat, parse_json, read_side_file};
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;
use serde_json::Value;

/// The reader.
pub struct HuggingFace;

const INDEX: &str = "model.safetensors.index.json";

impl Reader for HuggingFace {
    fn name(&self) -> &'static str {
        "huggingface"
    }

    fn sniff(&self, files: &[SourceFile]) -> bool {
        files.iter().any(|f| f.name == "config.json")
            && files.iter().any(|f| f.name.ends_with(".safetensors"))
    }

    fn open(&self, files: &[SourceFile]) -> Result<Checkpoint> {
        let json = |name: &str| -> Result<Option<Value>> {
            let Some(file) = files.iter().find(|f| f.name == name) else {
                return Ok(None);
            };
            parse_json(name, &read_side_file(file)?).map(Some)
        };
        let config = json("config.json")?;
        if !config.as_ref().is_some_and(Value::is_object) {
            return Err(Error::bad_input(
                "invalid_json",
                "config.json is not a JSON object",
            ));
        }
        refuse_quantized(config.as_ref())?;
        let tensors = safetensors::read_all(files)?;
        if let Some(index) = json(INDEX)? {
            check_index(&index, files, &tensors)?;
        }
        Checkpoint::new(SourceFormat::Huggingface, files, tensors, config, None)
    }
}

fn refuse_quantized(config: Option<&Value>) -> Result<()> {
    let method = config
        .and_then(|c| c.get("quantization_config"))
        .filter(|q| !q.is_null());
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

fn check_index(index: &Value, files: &[SourceFile], tensors: &[TensorInfo]) -> Result<()> {
    let bad = |what: String| Error::bad_input("invalid_index", format!("{INDEX}: {what}"));
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| bad("no weight_map object".into()))?;
    let found: std::collections::HashMap<&str, &str> = tensors
        .iter()
        .map(|t| (t.name.as_str(), files[t.file].name.as_str()))
        .collect();
    for (tensor, shard) in map {
        let shard = shard
            .as_str()
            .ok_or_else(|| bad(format!("tensor {tensor} names no file")))?;
        match found.get(tensor.as_str()) {
            Some(file) if *file == shard => {}
            Some(file) => {
                return Err(bad(format!(
                    "tensor {tensor} should be in {shard} but is in {file}"
                )));
            }
            None if files.iter().any(|f| f.name == shard) => {
                return Err(bad(format!("tensor {tensor} is not in {shard}")));
            }
            None => return Err(bad(format!("the shard {shard} is missing: upload it too"))),
        }
    }
    Ok(())
}
