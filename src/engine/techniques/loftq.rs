//! `LoftQ`: 4-bit weights and a product of low rank, found in turns so that both together are near the matrix.
//!
//! Owns: its options. Must not know: how a matrix is decomposed, file formats.
//! Invariant: of all rounds the best is kept, so that more of them are never worse.

use super::correction::{self, Matrix};
use super::options::{self, Options, Planned};
use super::{Decision, Each, Task, Technique, Work};
use crate::error::Result;
use crate::kernels::factor::whitened::Whitening;
use crate::network::read_all;
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::Weight;
use serde_json::{Value, json};

/// The technique.
pub(super) struct LoftQ;

impl Technique for LoftQ {
    fn name(&self) -> &'static str {
        "loftq"
    }

    fn summary(&self) -> &'static str {
        "NF4 weights, and beside each matrix an adapter of low rank that makes up for part of what they lost: both found in turns \
         on the weights. Needs no data; lqer loses less. Li et al. 2023 (LoftQ)."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/loftq.md")
    }

    fn schema(&self) -> Value {
        correction::schema(5, &json!({}))
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::matrices(context)?;
        correction::decide(context, &options, &tensors)
    }

    fn work(&self) -> Work {
        Work::Each(&LoftQ)
    }
}

impl Each for LoftQ {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let options = Options::of(&task.stage.options, self.schema());
        let matrix = Matrix {
            values: &read_all(input)?,
            rows: input.rows(),
            cols: input.cols(),
            kind: task.kind,
            rounds: options.number("iterations"),
            whitening: &Whitening::none(input.cols()),
            seed: task.seed,
            stop: task.stop,
        };
        matrix.corrected()
    }
}
