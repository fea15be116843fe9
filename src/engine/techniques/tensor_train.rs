//! Tensor train: a kernel as 1×1, down, across, 1×1.
//!
//! Owns: its options. Must not know: how bonds are cut.
//! Invariant: no bond is wider than what it joins.

use super::convolving::{self, Method};
use super::options::Planned;
use super::{Decision, Each, Task, Technique, Work};
use crate::error::Result;
use crate::kernels::factor::tensor_train::{self, Cut};
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Form, Weight};
use serde_json::Value;

/// The technique.
pub(super) struct TensorTrain;

const METHOD: Method = Method {
    ranks: &[
        ("rank_1", "Channels before the layer down", 16),
        ("rank_2", "Channels between the layers down and across", 24),
        ("rank_3", "Channels behind the layer across", 32),
    ],
    pointwise: false,
    by_ratio: |shape, ratio| form(shape, tensor_train::ranks_for_ratio(shape, ratio)),
    by_ranks: |shape, ranks| form(shape, [0, 1, 2].map(|at| ranks.get(at).copied().unwrap_or(1))),
};

fn form(shape: [usize; 4], ranks: [usize; 3]) -> Form {
    Form::TensorTrain {
        ranks: tensor_train::attained(shape, ranks),
    }
}

impl Technique for TensorTrain {
    fn name(&self) -> &'static str {
        "tensor_train"
    }

    fn summary(&self) -> &'static str {
        "Tensor-train decomposition of convolutions by TT-SVD over inputs, rows, columns and outputs: 1×1, down, across, 1×1. \
         Oseledets 2011."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/tensor_train.md")
    }

    fn schema(&self) -> Value {
        METHOD.schema()
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        METHOD.decide(context)
    }

    fn work(&self) -> Work {
        Work::Each(&TensorTrain)
    }

    fn layers(&self) -> &'static str {
        "Conv2d"
    }
}

impl Each for TensorTrain {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        convolving::run(task, input, &|kernel, form| match form {
            Form::TensorTrain { ranks } => tensor_train::factorize(kernel, Cut::Ranks(ranks), task.stop),
            _ => Err(convolving::wrong(task)),
        })
    }
}
