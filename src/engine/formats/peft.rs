//! PEFT: a quantized base that transformers loads, and an adapter beside it that makes up for part of what was lost.
//!
//! Owns: the adapter's names and its configuration. Must not know: how codes are laid out, how products were found.
//! Invariant: the adapter's scaling is 1, so that what PEFT adds is the product; it names every module that has one, and no
//! other.

use super::container::{Entry, Layout, Placed};
use super::{Loading, Request, Writer, four_bit, hf_output, safetensors};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::plan::TensorPlan;
use crate::recipe::Refusal;
use crate::tensor::DType;
use crate::weight::{Kind, Weight};
use serde_json::{Map, Value, json};

/// The writer.
pub(super) struct Peft;

const CONFIG: &str = "adapter/adapter_config.json";
const WEIGHTS: &str = "adapter/adapter_model.safetensors";

/// Tasks of PEFT by the end of the architecture's name; it needs none for others.
const TASKS: [(&str, &str); 2] = [("ForCausalLM", "CAUSAL_LM"), ("LMHeadModel", "CAUSAL_LM")];

impl Writer for Peft {
    fn name(&self) -> &'static str {
        "peft"
    }

    fn summary(&self) -> &'static str {
        "NF4 weights as bitsandbytes stores them, and a LoRA adapter in the folder adapter that makes up for part of what they lost: \
         stock transformers and PEFT load both, to run or to train on"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["transformers", "PEFT"]
    }

    fn loading(&self) -> Loading {
        Loading {
            library: Some("peft"),
            text: "In Python, the base and then the adapter; with `is_trainable=True` it can be trained on \
                   (QLoRA):\n\n```python\nfrom peft import PeftModel  # pip install peft bitsandbytes\nfrom transformers import \
                   AutoModelForCausalLM, AutoTokenizer\n\nbase = AutoModelForCausalLM.from_pretrained(\".\", \
                   device_map=\"auto\")\nmodel = PeftModel.from_pretrained(base, \"adapter\")\ntokenizer = \
                   AutoTokenizer.from_pretrained(\".\")\n```"
                .to_owned(),
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let refuse = |detail: String| Err(vec![Refusal::new(request.pointer, "format_cannot_hold", detail)]);
        let config = four_bit::config(request, self.name())?;
        let corrected: Vec<(usize, &TensorPlan)> = request
            .tensors
            .iter()
            .enumerate()
            .filter(|(_, t)| t.kind.product().is_some())
            .collect();
        if corrected.is_empty() {
            let detail = "no tensor has a product beside its codes: ask for the format bitsandbytes instead";
            return refuse(detail.to_owned());
        }
        if let Some((_, other)) = corrected.iter().find(|(_, t)| !is_layer(t)) {
            return refuse(format!(
                "{} is no linear layer of its own in transformers, and an adapter of PEFT is for those (experts lie in one tensor): \
                 add it to ignore",
                other.name
            ));
        }
        let parts = |index: usize| four_bit::parts(&request.tensors[index]);
        let mut layout = hf_output::layout(request, Some(config), &parts)?;
        layout.push_bytes(CONFIG, hf_output::pretty(&adapter_config(request, &corrected)));
        let placed = |(index, tensor): &(usize, &TensorPlan)| Placed {
            tensor: Some(*index),
            literal: Vec::new(),
            entries: factors(tensor),
        };
        let placed = corrected.iter().map(placed).collect();
        layout.files.push(safetensors::file(WEIGHTS.to_owned(), placed));
        Ok(layout)
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        let tensor = &request.tensors[index];
        match weight {
            Weight::Dense(dense) => Ok(vec![dense.bytes.clone()]),
            Weight::Nf4(w) => Ok(four_bit::encode(tensor, w)),
            Weight::Corrected(w) => {
                let mut parts = four_bit::encode(tensor, &w.base);
                parts.extend(w.product.encoded()?);
                Ok(parts)
            }
            other => Err(Error::internal(format!("peft was given {other:?}"))),
        }
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        let mut found = hf_output::reopen(files)?;
        let place = files.iter().position(|file| file.name == WEIGHTS);
        let place = place.ok_or_else(|| Error::bad_input("missing_file", format!("{WEIGHTS} is missing")))?;
        let adapter = safetensors::read_header(&files[place], place)?;
        found.extend(adapter.into_iter().map(Entry::from));
        Ok(found)
    }
}

/// True of what a linear layer of transformers multiplies by. It holds the experts of a block together since version 5.
fn is_layer(tensor: &TensorPlan) -> bool {
    tensor.role.is_linear() && tensor.name.ends_with(".weight") && !tensor.name.contains(".experts.")
}

/// Rank and type of a tensor's product.
fn product(tensor: &TensorPlan) -> Option<(usize, DType)> {
    match tensor.kind.product() {
        Some(Kind::LowRank { rank, dtype }) => Some((rank, dtype)),
        _ => None,
    }
}

/// What PEFT makes of the base: a `LoRA` layer around each module, of its own rank where ranks differ. A scaling is
/// `lora_alpha / r`, by module as ranks are.
fn adapter_config(request: &Request<'_>, corrected: &[(usize, &TensorPlan)]) -> Value {
    let architecture = request.model.architecture().unwrap_or_default();
    let task = TASKS.iter().find(|(end, _)| architecture.ends_with(end));
    let rank = |tensor: &TensorPlan| product(tensor).map_or(0, |(rank, _)| rank);
    let most = corrected.iter().map(|(_, t)| rank(t)).max().unwrap_or(0);
    let others = corrected.iter().filter(|(_, t)| rank(t) != most);
    let pattern: Map<String, Value> = others
        .map(|(_, t)| (t.module().to_owned(), json!(rank(t))))
        .collect();
    let modules: Vec<&str> = corrected.iter().map(|(_, t)| t.module()).collect();
    json!({
        "peft_type": "LORA",
        "task_type": task.map(|(_, task)| *task),
        // Whoever loads the adapter by itself does so in the artifact's folder.
        "base_model_name_or_path": ".",
        "inference_mode": true,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": modules,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": false,
        "use_dora": false,
        "init_lora_weights": true,
        "modules_to_save": null,
    })
}

fn factors(tensor: &TensorPlan) -> Vec<Entry> {
    let Some((rank, dtype)) = product(tensor) else {
        return Vec::new();
    };
    let entry = |which: &str, rows: usize, cols: usize| Entry {
        name: format!("base_model.model.{}.{which}.weight", tensor.module()),
        dtype: dtype.name().to_owned(),
        shape: vec![rows, cols],
        bytes: dtype.bytes(rows, cols).unwrap_or(0) as u64,
    };
    vec![
        entry("lora_A", rank, tensor.cols()),
        entry("lora_B", tensor.rows(), rank),
    ]
}
