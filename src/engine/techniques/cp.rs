//! CP: a kernel as a sum of outer products, which are four thin layers.
//!
//! Owns: its options. Must not know: how the products are found.
//! Invariant: the recipe's seed gives the starts.

use super::convolving::{self, Method};
use super::options::Planned;
use super::{Decision, Each, Task, Technique, Work};
use crate::error::Result;
use crate::kernels::factor::cp;
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Form, Weight};
use serde_json::Value;

/// The technique.
pub(super) struct Cp;

const METHOD: Method = Method {
    ranks: &[(
        "rank",
        "Outer products, which are channels between the layers",
        32,
    )],
    pointwise: false,
    by_ratio: |shape, ratio| Form::Cp {
        rank: cp::rank_for_ratio(shape, ratio),
    },
    by_ranks: |_shape, ranks| Form::Cp {
        rank: ranks.first().copied().unwrap_or(1),
    },
};

impl Technique for Cp {
    fn name(&self) -> &'static str {
        "cp"
    }

    fn summary(&self) -> &'static str {
        "CP decomposition of convolutions by alternating least squares: 1×1, each channel down, each channel across, 1×1. \
         Lebedev et al. 2015."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/cp.md")
    }

    fn schema(&self) -> Value {
        METHOD.schema()
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        METHOD.decide(context)
    }

    fn work(&self) -> Work {
        Work::Each(&Cp)
    }

    fn layers(&self) -> &'static str {
        "Conv2d"
    }
}

impl Each for Cp {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        convolving::run(task, input, &|kernel, form| match form {
            Form::Cp { rank } => cp::factorize(kernel, rank, task.seed, task.stop),
            _ => Err(convolving::wrong(task)),
        })
    }
}
