//! Techniques: each turns a weight of one kind into another.
//!
//! Owns: the seam and the list. Must not know: file formats. Siblings never import each other.
//! Invariant: `run` produces exactly the kind `plan` promised, the same bytes for any number of threads.
//!
//! Shared by siblings: `options`.
//!
//! A technique is one file and one line in [`TECHNIQUES`]; documentation, the API's schema and the law tests are
//! made from the list.

mod fp8;
mod ggml;
mod nf4;
mod options;
mod rtn;

use crate::error::Result;
use crate::plan::{Context, StagePlan, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::Rows;
use crate::weight::{Kind, Weight};
use serde_json::Value;

/// What a technique decided.
pub struct Decision {
    /// Index of each tensor it changes, and what it becomes.
    pub kinds: Vec<(usize, Kind)>,
    /// Name of the mix, where it has one.
    pub label: Option<String>,
}

/// One tensor to be made.
pub struct Task<'a> {
    /// The stage's options and label.
    pub stage: &'a StagePlan,
    /// The tensor.
    pub tensor: &'a TensorPlan,
    /// What it becomes.
    pub kind: Kind,
}

/// A compression technique.
pub trait Technique: Sync {
    /// Name as recipes spell it.
    fn name(&self) -> &'static str;
    /// One or two sentences for the catalogue, with the source.
    fn summary(&self) -> &'static str;
    /// JSON Schema of its options: description, default and example for each.
    fn schema(&self) -> Value;
    /// Chooses what becomes of each targeted tensor, or says why it cannot.
    fn plan(&self, context: &Context<'_>) -> std::result::Result<Decision, Vec<Refusal>>;
    /// Makes one tensor.
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight>;
}

/// Every technique, alphabetical.
pub const TECHNIQUES: &[&dyn Technique] = &[&fp8::Fp8, &ggml::Ggml, &nf4::NormalFloat4, &rtn::Rtn];

/// The technique of that name.
pub fn find(name: &str) -> Option<&'static dyn Technique> {
    TECHNIQUES.iter().copied().find(|t| t.name() == name)
}

/// Names of all techniques.
pub fn names() -> Vec<&'static str> {
    TECHNIQUES.iter().map(|t| t.name()).collect()
}
