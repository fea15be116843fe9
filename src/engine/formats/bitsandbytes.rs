//! bitsandbytes NF4 in safetensors.
//!
//! Owns: which tensors it holds. Must not know: how codes are laid out, which is shared. Invariant: one kind of codes in a file.

use super::container::{Entry, Layout};
use super::{Loading, Request, Writer, four_bit, hf_output};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::recipe::Refusal;
use crate::weight::Weight;
use serde_json::{Value, json};

/// The writer.
pub struct Bitsandbytes;

impl Writer for Bitsandbytes {
    fn name(&self) -> &'static str {
        "bitsandbytes"
    }

    fn summary(&self) -> &'static str {
        "Safetensors with NF4 weights as bitsandbytes stores them, for transformers and QLoRA"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["transformers", "PEFT", "vLLM"]
    }

    fn loading(&self) -> Loading {
        Loading::with_transformers(
            "In Python, also as the base of a QLoRA adapter (PEFT):",
            Some("bitsandbytes"),
        )
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        if let Some(tensor) = request.tensors.iter().find(|t| t.kind.product().is_some()) {
            let detail = format!(
                "{} is {}: bitsandbytes holds no products beside codes; ask for the format peft",
                tensor.name,
                tensor.kind.label()
            );
            return Err(vec![Refusal::new(request.pointer, "format_cannot_hold", detail)]);
        }
        let config = four_bit::config(request, self.name())?;
        let parts = |index: usize| four_bit::parts(&request.tensors[index]);
        hf_output::layout(request, Some(config), &parts)
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        match weight {
            Weight::Dense(dense) => Ok(vec![dense.bytes.clone()]),
            Weight::Nf4(w) => Ok(four_bit::encode(&request.tensors[index], w)),
            other => Err(Error::internal(format!("bitsandbytes was given {other:?}"))),
        }
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        hf_output::reopen(files)
    }
}
