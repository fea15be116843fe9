//! Tucker-2: a kernel as 1×1, a small kernel between fewer channels, 1×1.
//!
//! Owns: its options. Must not know: how the channels are found.
//! Invariant: HOOI starts from the higher-order SVD and never loses fit.

use super::convolving::{self, Method};
use super::options::Planned;
use super::{Decision, Each, Task, Technique, Work};
use crate::error::Result;
use crate::kernels::factor::tucker::{self, Ranks};
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Form, Weight};
use serde_json::Value;

/// The technique.
pub(super) struct Tucker;

const METHOD: Method = Method {
    ranks: &[
        ("rank_in", "Channels before the small kernel", 16),
        ("rank_out", "Channels behind the small kernel", 24),
    ],
    pointwise: false,
    by_ratio: |shape, ratio| form(shape, tucker::ranks_for_ratio(shape, ratio)),
    by_ranks: |shape, ranks| {
        let at = |place: usize| ranks.get(place).copied().unwrap_or(1);
        form(
            shape,
            Ranks {
                inputs: at(0),
                outputs: at(1),
            },
        )
    },
};

fn form(shape: [usize; 4], ranks: Ranks) -> Form {
    let Ranks { outputs, inputs } = tucker::attained(shape, ranks);
    Form::Tucker { inputs, outputs }
}

impl Technique for Tucker {
    fn name(&self) -> &'static str {
        "tucker"
    }

    fn summary(&self) -> &'static str {
        "Tucker-2 decomposition of convolutions: 1×1 to fewer channels, a small kernel between them, 1×1 back; subspaces by \
         higher-order SVD and HOOI. Kim et al. 2016."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/tucker.md")
    }

    fn schema(&self) -> Value {
        METHOD.schema()
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        METHOD.decide(context)
    }

    fn work(&self) -> Work {
        Work::Each(&Tucker)
    }

    fn layers(&self) -> &'static str {
        "Conv2d"
    }
}

impl Each for Tucker {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        convolving::run(task, input, &|kernel, form| match form {
            Form::Tucker { inputs, outputs } => {
                tucker::factorize(kernel, Ranks { outputs, inputs }, task.stop)
            }
            _ => Err(convolving::wrong(task)),
        })
    }
}
