//! Low rank: pairs of linear layers, with the small modeling file that transformers loads.
//!
//! Owns: names of the factors, the modeling file. Must not know: how factors were found.
//! Invariant: what transformers multiplies is what the weight stands for.

use super::container::{Entry, Layout};
use super::{Loading, Request, Writer, hf_output, shards};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::plan::TensorPlan;
use crate::recipe::Refusal;
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};

/// The format.
pub(super) struct LowRankPairs;

const MODELING: &str = "modeling_low_rank.py";
/// The class that is loaded.
const CLASS: &str = "LowRankModel";
/// Classes of transformers by what loads them.
const LOADERS: [(&str, &str); 6] = [
    ("ForCausalLM", "AutoModelForCausalLM"),
    ("LMHeadModel", "AutoModelForCausalLM"),
    ("ForSequenceClassification", "AutoModelForSequenceClassification"),
    ("ForTokenClassification", "AutoModelForTokenClassification"),
    ("ForMaskedLM", "AutoModelForMaskedLM"),
    ("Model", "AutoModel"),
];

/// What transformers loads: the architecture's own class, whose linear layers of low rank are pairs.
fn modeling(base: &str) -> String {
    format!(
        r#"# Written by modelpress. Linear layers that config.json lists under "low_rank" are two, one behind the other:
# y = left (right x) + bias.
from torch import nn
from transformers import {base}


class {CLASS}({base}):
    def __init__(self, config):
        super().__init__(config)
        for name, rank in config.low_rank.items():
            parent, _, own = name.rpartition(".")
            parent = self.get_submodule(parent)
            linear = getattr(parent, own)
            kind = {{"device": linear.weight.device, "dtype": linear.weight.dtype}}
            pair = nn.Sequential(
                nn.Linear(linear.in_features, rank, bias=False, **kind),
                nn.Linear(rank, linear.out_features, bias=linear.bias is not None, **kind),
            )
            setattr(parent, own, pair)
"#
    )
}

fn rank_of(tensor: &TensorPlan) -> Option<usize> {
    match tensor.kind {
        Kind::LowRank { rank, .. } => Some(rank),
        _ => None,
    }
}

impl LowRankPairs {
    /// The name of a tensor that stays whole: the bias of a pair is that of its second layer.
    fn name(request: &Request<'_>, tensor: &TensorPlan) -> String {
        let owner = tensor.name.strip_suffix(".bias");
        let is_pair = |module: &str| {
            request
                .tensors
                .iter()
                .any(|t| t.module() == module && rank_of(t).is_some())
        };
        match owner {
            Some(module) if is_pair(module) => format!("{module}.1.bias"),
            _ => tensor.name.clone(),
        }
    }
}

impl Writer for LowRankPairs {
    fn name(&self) -> &'static str {
        "low-rank"
    }

    fn summary(&self) -> &'static str {
        "Safetensors with two matrices for each one of low rank, and a modeling file of twenty lines that transformers loads \
         with trust_remote_code"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["transformers"]
    }

    fn loading(&self) -> Loading {
        Loading {
            library: Some("transformers"),
            text: "In Python; `modeling_low_rank.py` makes two layers of each one of low rank:\n\n```python\nfrom transformers \
                   import AutoModelForCausalLM, AutoTokenizer\n\nmodel = AutoModelForCausalLM.from_pretrained(\".\", \
                   trust_remote_code=True)\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n```"
                .to_owned(),
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let refuse =
            |code: &'static str, detail: String| Err(vec![Refusal::new(request.pointer, code, detail)]);
        let holds = |t: &&TensorPlan| matches!(t.kind, Kind::Dense { .. } | Kind::LowRank { .. });
        if let Some(other) = request.tensors.iter().find(|t| !holds(t)) {
            let detail = format!(
                "{} is {}: low-rank holds plain numbers and products",
                other.name,
                other.kind.label()
            );
            return refuse("format_cannot_hold", detail);
        }
        let pairs: Vec<&TensorPlan> = request.tensors.iter().filter(|t| rank_of(t).is_some()).collect();
        // A stage may leave all of them whole.
        if pairs.is_empty() && request.tensors.iter().all(|t| t.steps.is_empty()) {
            let detail = "no tensor is of low rank: ask for the format safetensors instead".to_owned();
            return refuse("format_cannot_hold", detail);
        }
        let architecture = request.model.architecture().unwrap_or_default();
        let loader = LOADERS.iter().find(|(end, _)| architecture.ends_with(end));
        let (Some((_, loader)), Some(Value::Object(config))) = (loader, request.model.config.clone()) else {
            let detail = "this format is loaded by transformers, and the model has no config.json that names one of its classes";
            return refuse("needs_config_json", detail.to_owned());
        };
        if architecture.starts_with("GPT2") {
            let detail = format!(
                "{architecture} stores its layers as [in, out], which pairs of linear layers do not: ask for the format \
                 safetensors instead"
            );
            return refuse("format_cannot_hold", detail);
        }
        if !architecture.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return refuse(
                "needs_config_json",
                format!("{architecture:?} is no name of a class"),
            );
        }
        let mut config = config;
        let ranks: serde_json::Map<String, Value> = pairs
            .iter()
            .map(|t| (t.module().to_owned(), json!(rank_of(t))))
            .collect();
        config.insert("low_rank".into(), ranks.into());
        config.insert("architectures".into(), json!([CLASS]));
        config.insert(
            "auto_map".into(),
            json!({*loader: format!("modeling_low_rank.{CLASS}")}),
        );
        let mut layout = hf_output::side_files(request, Some(config.into()))?;
        layout.push_bytes(MODELING, modeling(&architecture).into_bytes());
        shards::push(&mut layout, request.tensors.len(), &|index| parts(request, index));
        Ok(layout)
    }

    fn encode(&self, _request: &Request<'_>, _index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        match weight {
            Weight::Dense(dense) => Ok(vec![dense.bytes.clone()]),
            Weight::LowRank(pair) => pair.encoded().map(Vec::from),
            other => Err(Error::internal(format!("low-rank was given {other:?}"))),
        }
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        hf_output::reopen(files)
    }
}

fn parts(request: &Request<'_>, index: usize) -> Vec<Entry> {
    let tensor = &request.tensors[index];
    let (rows, cols) = (tensor.rows(), tensor.cols());
    match tensor.kind {
        Kind::LowRank { rank, dtype } => {
            let part = |place: usize, rows: usize, cols: usize| Entry {
                name: format!("{}.{place}.weight", tensor.module()),
                dtype: dtype.name().to_owned(),
                shape: vec![rows, cols],
                bytes: dtype.bytes(rows, cols).unwrap_or(0) as u64,
            };
            vec![part(0, rank, cols), part(1, rows, rank)]
        }
        kind => {
            let dtype = match kind {
                Kind::Dense { dtype } => dtype,
                _ => tensor.source_dtype,
            };
            vec![Entry {
                name: LowRankPairs::name(request, tensor),
                dtype: dtype.name().to_owned(),
                shape: tensor.shape.clone(),
                bytes: dtype.bytes(rows, cols).unwrap_or(0) as u64,
            }]
        }
    }
}
