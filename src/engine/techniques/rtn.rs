//! Integer round-to-nearest: `q = round(x/s) + z`, `x̂ = s (q − z)`, 2 to 8 bits.
//!
//! Owns: its options and which tensors it fits. Must not know: packing.
//! Invariant: scales are rounded to their stored type before codes are chosen.

use super::options::{self, Options, Planned};
use super::{Decision, Each, Schemes, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::affine::{self, Range};
use crate::plan::{Context, TensorPlan};
use crate::tensor::Rows;
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The technique.
pub(super) struct Rtn;

impl Technique for Rtn {
    fn name(&self) -> &'static str {
        "rtn"
    }

    fn summary(&self) -> &'static str {
        "Integer quantization by rounding to nearest, per tensor, channel or group, with min-max or MSE-optimal \
         ranges. Needs no data. Jacob et al. 2018; Krishnamoorthi 2018."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/rtn.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "n_bits": {"type": "integer", "minimum": 2, "maximum": 8, "default": 4,
                "description": "Bits of a code.", "examples": [4]},
            "tensor_bits": options::tensor_bits(),
            "symmetric": {"type": "boolean", "default": true, "examples": [true],
                "description": "Symmetric around zero (no zero points), or affine with a zero point for each scale."},
            "granularity": {"type": "string", "enum": ["tensor", "channel", "group"], "default": "group",
                "description": "Which weights share a scale.", "examples": ["group"]},
            "group_size": {"type": "integer", "minimum": 2, "maximum": 1_048_576, "default": 128, "examples": [64],
                "description": "Consecutive inputs that share a scale (granularity group); must divide in_features."},
            "range": {"type": "string", "enum": ["minmax", "mse", "weighted_mse"], "default": "weighted_mse", "examples": ["weighted_mse"],
                "description": "How the clipping range is found: the extremes; the shrunken range of least squared error; or of least squared error weighted by w\u{b2}, where symmetric weight-only scales may also be negative."},
            "activations": {"type": "string", "enum": ["none", "dynamic_token"], "default": "none", "examples": ["none"],
                "description": "Let the engine quantize the layer's inputs to 8 bits per token."},
            "scale_dtype": {"type": "string", "enum": ["auto", "F32", "F16", "BF16"], "default": "auto", "examples": ["auto"],
                "description": "Stored type of the scales; auto is the model's own float type."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::matrices(context)?;
        let granularity = options.granularity();
        options::check_groups(context, granularity, &tensors)?;
        let own = options::given_bits(context, &options)?;
        let mut kinds = options.affine(granularity, &tensors);
        for (index, kind) in &mut kinds {
            if let (Some(bits), Kind::Affine { n_bits, .. }) = (own.get(index), kind) {
                *n_bits = *bits;
            }
        }
        Ok(Decision {
            kinds,
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Each(&Rtn)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }

    fn schemes(&self) -> Option<&'static dyn Schemes> {
        Some(&Rtn)
    }
}

/// Bits of a code, all else as the stage says.
impl Schemes for Rtn {
    fn all(&self) -> &'static [&'static str] {
        &["W2", "W3", "W4", "W5", "W6", "W7", "W8"]
    }

    /// What the engines that load it have kernels for.
    fn suggested(&self) -> &'static [&'static str] {
        &["W4", "W8"]
    }

    fn fits(&self, _scheme: &str, _tensor: &TensorPlan) -> bool {
        true
    }

    fn assign(&self, options: &Value, modules: &BTreeMap<&str, Vec<&str>>) -> Value {
        let mut own = options.as_object().cloned().unwrap_or_default();
        let bits: serde_json::Map<String, Value> = modules
            .iter()
            .map(|(scheme, modules)| (scheme.trim_start_matches('W').to_owned(), json!(modules)))
            .collect();
        own.insert(options::TENSOR_BITS.to_owned(), bits.into());
        own.into()
    }
}

impl Each for Rtn {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let options = Options::of(&task.stage.options, self.schema());
        let range = match options.text("range") {
            "minmax" => Range::MinMax,
            "mse" => Range::Mse,
            _ => Range::WeightedMse,
        };
        let spec = affine::Spec::of(task.kind, range, range == Range::WeightedMse)
            .ok_or_else(|| Error::internal(format!("rtn was planned as {}", task.kind.label())))?;
        affine::quantize(input, &spec).map(Weight::Affine)
    }
}
