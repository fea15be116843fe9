//! Depthwise-separable: each input alone through a few planes, then a 1×1 convolution, as in `MobileNet`.
//!
//! Owns: its options. Must not know: how planes are found.
//! Invariant: no such pair with as many planes an input is nearer to the kernel.

use super::convolving::{self, Method};
use super::options::Planned;
use super::{Decision, Each, Task, Technique, Work};
use crate::error::Result;
use crate::kernels::factor::separable;
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Form, Weight};
use serde_json::Value;

/// The technique.
pub(super) struct DepthwiseSeparable;

const METHOD: Method = Method {
    ranks: &[("multiplier", "Planes of each input; 1 is MobileNet's layer", 1)],
    pointwise: false,
    by_ratio: |shape, ratio| Form::Separable {
        multiplier: separable::multiplier_for_ratio(shape, ratio),
    },
    by_ranks: |shape, ranks| {
        let [outputs, _, height, width] = shape;
        Form::Separable {
            multiplier: ranks
                .first()
                .copied()
                .unwrap_or(1)
                .min(outputs.min(height * width)),
        }
    },
};

impl Technique for DepthwiseSeparable {
    fn name(&self) -> &'static str {
        "depthwise_separable"
    }

    fn summary(&self) -> &'static str {
        "A convolution as MobileNet's pair: each input alone through one or more planes, then 1×1; both by least squares to the \
         kernel, in closed form. Howard et al. 2017; Guo et al. 2018."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/depthwise_separable.md")
    }

    fn schema(&self) -> Value {
        METHOD.schema()
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        METHOD.decide(context)
    }

    fn work(&self) -> Work {
        Work::Each(&DepthwiseSeparable)
    }

    fn layers(&self) -> &'static str {
        "Conv2d"
    }
}

impl Each for DepthwiseSeparable {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        convolving::run(task, input, &|kernel, form| match form {
            Form::Separable { multiplier } => separable::factorize(kernel, multiplier, None, task.stop),
            _ => Err(convolving::wrong(task)),
        })
    }
}
