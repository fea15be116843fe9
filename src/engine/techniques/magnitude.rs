//! Magnitude pruning: the weights nearest to zero become zeros.
//!
//! Owns: its options and its score. Must not know: how the smallest are found.
//! Invariant: no data is needed; what stays is what it was, to the bit.

use super::options::{self, Options, Planned};
use super::pruning::{self, Scope};
use super::{Decision, Each, Survey, Task, Technique, Work};
use crate::error::Result;
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::Weight;
use serde_json::{Value, json};

/// The technique.
pub(super) struct Magnitude;

impl Technique for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn summary(&self) -> &'static str {
        "The weights nearest to zero become zeros, of each row, of each layer or of all layers together. Needs no data. \
         Han et al. 2015; Zhu and Gupta 2017."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/magnitude.md")
    }

    fn schema(&self) -> Value {
        pruning::schema(&json!({"scope": pruning::scopes("layer")}))
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::matrices(context)?;
        let is_global = pruning::is_global(&options);
        pruning::check_stored(context, &options, &tensors)?;
        pruning::decide(context, &options, &tensors, is_global)
    }

    fn work(&self) -> Work {
        Work::Each(&Magnitude)
    }

    fn steps(&self, options: &Value) -> Option<Vec<Value>> {
        pruning::steps(options)
    }

    fn keeps_zeros(&self, _kind: &crate::weight::Kind) -> bool {
        true
    }
}

impl Each for Magnitude {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let scope = Scope::of(&Options::of(&task.stage.options, self.schema()));
        pruning::prune(task, input, scope, &|_, w| w.abs())
    }

    fn survey(&self, options: &Value) -> Option<&'static dyn Survey> {
        let options = Options::of(options, self.schema());
        pruning::is_global(&options).then_some(&Magnitude)
    }
}

impl Survey for Magnitude {
    fn look(&self, _task: &Task<'_>, input: &dyn Rows) -> Result<Vec<u64>> {
        pruning::histogram(input, &|_, w| w.abs())
    }

    fn shares(&self, options: &Value, seen: &[Vec<u64>]) -> Vec<f64> {
        pruning::shares(seen, Options::of(options, self.schema()).real("sparsity"))
    }
}
