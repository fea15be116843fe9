//! Low rank: several layers in place of one, pairs of linear ones and chains of convolutions, with the small modeling file
//! that transformers loads.
//!
//! Owns: names of the layers, what config.json says of them. Must not know: how they were found.
//! Invariant: what transformers computes is what the weight stands for.

mod modeling;

use super::container::{Entry, Layout};
use super::{Loading, Request, Writer, hf_output, remote_code, shards};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::plan::TensorPlan;
use crate::recipe::Refusal;
use crate::tensor::{DType, encode_dense};
use crate::weight::{Kind, Layer, Weight};
use modeling::{CLASS, FILE};
use serde_json::{Map, Value, json};

/// The format.
pub(super) struct LowRankPairs;

/// The shapes of the layers that a tensor becomes, in the order in which they run; none where it stays one.
fn layers(tensor: &TensorPlan) -> Vec<Vec<usize>> {
    match tensor.kind {
        Kind::LowRank { rank, .. } => vec![vec![rank, tensor.cols()], vec![tensor.rows(), rank]],
        Kind::Convolutions { form, shape, .. } => {
            let layers = form.layers(shape).into_iter();
            layers.map(|layer| layer.shape.to_vec()).collect()
        }
        _ => Vec::new(),
    }
}

/// What config.json says of a tensor that becomes several: a rank, or what the modeling file makes convolutions of.
fn told(tensor: &TensorPlan) -> Option<Value> {
    match tensor.kind {
        Kind::LowRank { rank, .. } => Some(json!(rank)),
        Kind::Convolutions { form, shape, .. } => {
            let of = |layer: Layer| {
                let [channels, _, height, width] = layer.shape;
                json!({"channels": channels, "kernel_size": [height, width], "groups": layer.groups, "spans": layer.spans})
            };
            Some(form.layers(shape).into_iter().map(of).collect())
        }
        _ => None,
    }
}

/// The name of a tensor that stays whole: a bias is that of the last of the layers.
fn name(request: &Request<'_>, tensor: &TensorPlan) -> String {
    let owner = tensor.name.strip_suffix(".bias");
    let layers = owner.and_then(|module| {
        let owner = request.tensors.iter().find(|t| t.module() == module)?;
        layers(owner).len().checked_sub(1)
    });
    match (owner, layers) {
        (Some(module), Some(last)) => format!("{module}.{last}.bias"),
        _ => tensor.name.clone(),
    }
}

impl Writer for LowRankPairs {
    fn name(&self) -> &'static str {
        "low-rank"
    }

    fn summary(&self) -> &'static str {
        "Safetensors with two matrices for each one of low rank, several kernels for each convolution that was taken apart, and \
         a modeling file that transformers loads with trust_remote_code"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["transformers"]
    }

    fn loading(&self) -> Loading {
        Loading {
            library: Some("transformers"),
            text: "In Python; `modeling_low_rank.py` makes the layers of each one that is several. Where `auto_map` in `config.json` \
                   names another class than `AutoModelForCausalLM`, take that, and an image processor for the tokenizer:\n\n```python\nfrom transformers \
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
        let holds = |t: &&TensorPlan| matches!(t.kind, Kind::Dense { .. }) || !layers(t).is_empty();
        if let Some(other) = request.tensors.iter().find(|t| !holds(t)) {
            let detail = format!(
                "{} is {}: low-rank holds plain numbers and layers that are several",
                other.name,
                other.kind.label()
            );
            return refuse("format_cannot_hold", detail);
        }
        let several: Map<String, Value> = request
            .tensors
            .iter()
            .filter_map(|t| Some((t.module().to_owned(), told(t)?)))
            .collect();
        // A stage may leave all of them whole.
        if several.is_empty() && request.tensors.iter().all(|t| t.steps.is_empty()) {
            let detail = "no tensor is of low rank: ask for the format safetensors instead".to_owned();
            return refuse("format_cannot_hold", detail);
        }
        let architecture = request.model.architecture().unwrap_or_default();
        if architecture.starts_with("GPT2") {
            let detail = format!(
                "{architecture} stores its layers as [in, out], which pairs of linear layers do not: ask for the format \
                 safetensors instead"
            );
            return refuse("format_cannot_hold", detail);
        }
        let mut own = remote_code::config(request, "modeling_low_rank", CLASS)?;
        own.config.insert("low_rank".into(), several.into());
        let mut layout = hf_output::side_files(request, Some(own.config.into()))?;
        layout.push_bytes(FILE, modeling::text(&own.base).into_bytes());
        shards::push(&mut layout, request.tensors.len(), &|index| parts(request, index));
        Ok(layout)
    }

    fn encode(&self, _request: &Request<'_>, _index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        match weight {
            Weight::Dense(dense) => Ok(vec![dense.bytes.clone()]),
            Weight::LowRank(pair) => pair.encoded().map(Vec::from),
            Weight::Convolutions(chain) => encoded(chain.dtype, &chain.layers),
            other => Err(Error::internal(format!("low-rank was given {other:?}"))),
        }
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        hf_output::reopen(files)
    }
}

fn encoded<'a>(dtype: DType, layers: impl IntoIterator<Item = &'a Vec<f32>>) -> Result<Vec<Vec<u8>>> {
    let bytes = |values: &'a Vec<f32>| {
        let mut bytes = Vec::new();
        let is_plain = encode_dense(dtype, values, &mut bytes);
        is_plain
            .then_some(bytes)
            .ok_or_else(|| Error::internal("layers of no plain type"))
    };
    layers.into_iter().map(bytes).collect()
}

fn parts(request: &Request<'_>, index: usize) -> Vec<Entry> {
    let tensor = &request.tensors[index];
    let entry = |name: String, dtype: DType, shape: Vec<usize>| Entry {
        name,
        dtype: dtype.name().to_owned(),
        bytes: dtype.row_bytes(shape.iter().product()).unwrap_or(0) as u64,
        shape,
    };
    match tensor.kind {
        Kind::LowRank { dtype, .. } | Kind::Convolutions { dtype, .. } => (0..)
            .zip(layers(tensor))
            .map(|(place, shape)| entry(format!("{}.{place}.weight", tensor.module()), dtype, shape))
            .collect(),
        Kind::Dense { dtype } => vec![entry(name(request, tensor), dtype, tensor.shape.clone())],
        _ => Vec::new(),
    }
}
