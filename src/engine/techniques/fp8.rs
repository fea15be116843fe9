//! FP8 E4M3 round-to-nearest.
//!
//! Owns: its options. Must not know: formats. Invariant: no value overflows to NaN: the cast saturates.

use super::options::{self, Options, Planned};
use super::{Decision, Task, Technique};
use crate::error::{Error, Result};
use crate::kernels::float8;
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};

/// The technique.
pub(super) struct Fp8;

impl Technique for Fp8 {
    fn name(&self) -> &'static str {
        "fp8"
    }

    fn summary(&self) -> &'static str {
        "8-bit floating point (OCP E4M3), scaled per tensor or channel so that the largest weight is 448. Needs no \
         data. Micikevicius et al. 2022."
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "granularity": {"type": "string", "enum": ["tensor", "channel"], "default": "channel",
                "description": "Which weights share a scale.", "examples": ["channel"]},
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
            label: None,
        })
    }

    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
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
        float8::quantize(input, granularity, scale_dtype).map(Weight::Float8)
    }
}
