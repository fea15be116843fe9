//! Integer quantization with zero points from half-quadratic optimisation.
//!
//! Owns: its options and which tensors it fits. Must not know: packing.
//! Invariant: what comes out is affine with integer zeros, which every format of affine weights holds.

use super::options::{self, Options, Planned};
use super::{Decision, Each, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::affine::{Range, Spec};
use crate::kernels::hqq::{self, Solver};
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Activations, Granularity, Kind, Weight};
use serde_json::{Value, json};

/// The technique.
pub(super) struct Hqq;

impl Technique for Hqq {
    fn name(&self) -> &'static str {
        "hqq"
    }

    fn summary(&self) -> &'static str {
        "Integer quantization whose zero points come from half-quadratic optimisation of |error|^p, then rounded to \
         integers with scales fitted to them. Needs no data. Badri and Shaji 2023 (HQQ)."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/hqq.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "n_bits": {"type": "integer", "minimum": 2, "maximum": 8, "default": 4,
                "description": "Bits of a code.", "examples": [4]},
            "group_size": {"type": "integer", "minimum": 2, "maximum": 1_048_576, "default": 64, "examples": [64],
                "description": "Consecutive inputs that share a scale and a zero point; must divide in_features."},
            "lp_norm": {"type": "number", "minimum": 0.1, "maximum": 1.0, "default": 0.7, "examples": [0.7],
                "description": "Power of the error whose sum shall be least: the smaller, the less outliers count."},
            "beta": {"type": "number", "minimum": 0.01, "maximum": 10_000.0, "default": 10.0, "examples": [10.0],
                "description": "Weight of the quadratic part at first."},
            "kappa": {"type": "number", "minimum": 1.0, "maximum": 10.0, "default": 1.01, "examples": [1.01],
                "description": "What this weight grows by at each iteration."},
            "iterations": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20, "examples": [20],
                "description": "Iterations at most; a group stops as soon as one does not help."},
            "scale_dtype": {"type": "string", "enum": ["auto", "F32", "F16", "BF16"], "default": "auto", "examples": ["auto"],
                "description": "Stored type of the scales; auto is the model's own float type."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::matrices(context)?;
        let granularity = Granularity::Group(options.number("group_size"));
        options::check_groups(context, granularity, &tensors)?;
        let kinds = tensors.iter().map(|(index, tensor)| {
            let kind = Kind::Affine {
                n_bits: options.number("n_bits") as u8,
                symmetric: false,
                granularity,
                scale_dtype: options::scale_dtype(options.text("scale_dtype"), tensor),
                activations: Activations::None,
                act_order: false,
            };
            (*index, kind)
        });
        Ok(Decision {
            kinds: kinds.collect(),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Each(&Hqq)
    }

    /// Zero points are codes.
    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

impl Each for Hqq {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let options = Options::of(&task.stage.options, self.schema());
        let spec = Spec::of(task.kind, Range::MinMax, false)
            .ok_or_else(|| Error::internal(format!("hqq was planned as {}", task.kind.label())))?;
        let solver = Solver {
            norm: options.real("lp_norm") as f32,
            beta: options.real("beta") as f32,
            kappa: options.real("kappa") as f32,
            steps: options.number("iterations"),
        };
        hqq::quantize(input, &spec, &solver).map(Weight::Affine)
    }
}
