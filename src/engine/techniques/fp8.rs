//! FP8 E4M3 round-to-nearest.
//!
//! Owns: its options. Must not know: formats. Invariant: no value overflows to NaN: the cast saturates.

use super::options::{self, Options, Planned};
use super::{Decision, Each, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::float8;
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Granularity, Kind, Weight};
use serde_json::{Value, json};

/// The technique.
pub(super) struct Fp8;

impl Technique for Fp8 {
    fn name(&self) -> &'static str {
        "fp8"
    }

    fn summary(&self) -> &'static str {
        "8-bit floating point (OCP E4M3), scaled per tensor or channel by the largest weight or for the least squared \
         error. Needs no data. Micikevicius et al. 2022."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/fp8.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "granularity": {"type": "string", "enum": ["tensor", "channel"], "default": "channel",
                "description": "Which weights share a scale.", "examples": ["channel"]},
            "range": {"type": "string", "enum": ["auto", "minmax", "mse"], "default": "auto", "examples": ["auto"],
                "description": "How the scale is found: the largest weight becomes 448; or the scale up to twice that of least squared error. auto is mse per channel and minmax per tensor, where it measured better."},
            "activations": {"type": "string", "enum": ["none", "dynamic_token"], "default": "dynamic_token",
                "description": "Let the engine quantize the layer's inputs to FP8 per token.", "examples": ["dynamic_token"]},
            "scale_dtype": {"type": "string", "enum": ["auto", "F32", "F16", "BF16"], "default": "auto",
                "description": "Stored type of the scales; auto is the model's own float type.", "examples": ["auto"]}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::matrices(context)?;
        let kinds = tensors.iter().map(|(index, tensor)| {
            let kind = Kind::Float8 {
                granularity: options.granularity(),
                scale_dtype: options::scale_dtype(options.text("scale_dtype"), tensor),
                activations: options.activations(),
            };
            (*index, kind)
        });
        Ok(Decision {
            kinds: kinds.collect(),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Each(&Fp8)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

impl Each for Fp8 {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let options = Options::of(&task.stage.options, self.schema());
        let Kind::Float8 {
            granularity,
            scale_dtype,
            activations: _,
        } = task.kind
        else {
            return Err(Error::internal(format!(
                "fp8 was planned as {}",
                task.kind.label()
            )));
        };
        let search = match options.text("range") {
            "auto" => granularity == Granularity::Channel,
            range => range == "mse",
        };
        let spec = float8::Spec {
            granularity,
            scale_dtype,
            search,
        };
        float8::quantize(input, &spec).map(Weight::Float8)
    }
}
