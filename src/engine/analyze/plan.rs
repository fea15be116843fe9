//! What an analysis job does, settled before it waits.
//!
//! Owns: the stored plan and its figures. Must not know: jobs.
//! Invariant: no plan of a recipe reads as one of these, nor the other way round.

use serde::{Deserialize, Serialize};

use super::spectrum;
use crate::checkpoint::Checkpoint;
use crate::plan::Plan;
use crate::tensor::{CHUNK_ELEMENTS, TensorInfo};

/// What the engine holds beside tensors: code, threads' buffers, symbol counts, headers, the tokenizer.
const BASE: u64 = 256 << 20;
/// A tensor's names, figures and samples, its line in the plan of one preset at a time, and the report as text.
const TENSOR: u64 = 64 << 10;
/// Threads whose rows are counted.
const THREADS: u64 = 64;

/// A plan to analyze a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnalysisPlan {
    /// Version of this structure: 1.
    pub analysis: u32,
    /// Engine that made it.
    pub engine_version: String,
    /// Tensors that will be looked at.
    pub tensors: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Upper bound of the process's resident memory while it runs.
    pub peak_memory_bytes: u64,
    /// The plan whose schemes are weighed, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sensitivity: Option<Box<Plan>>,
}

impl AnalysisPlan {
    /// The plan for a model.
    #[must_use]
    pub fn of(model: &Checkpoint) -> Self {
        let floats = || model.tensors.iter().filter(|info| info.dtype.is_float());
        let row = floats().map(|info| info.cols() as u64).max().unwrap_or(0);
        // A chunk that was read, its bytes, and what a preset makes of it in three steps at most.
        let a_thread = 24 * row.max(CHUNK_ELEMENTS as u64);
        let working = |info: &TensorInfo| {
            let cols = info.cols();
            spectrum::working_bytes(info.elements() / cols.max(1), cols)
        };
        let matrices = floats().filter(|info| info.shape.len() >= 2);
        let square = matrices.map(working).max().unwrap_or(0);
        Self {
            analysis: 1,
            engine_version: crate::VERSION.to_owned(),
            tensors: floats().count() as u64,
            bytes: floats().map(|info| info.bytes).sum(),
            peak_memory_bytes: BASE
                + TENSOR * model.tensors.len() as u64
                + (THREADS * a_thread).max(super::AT_A_TIME as u64 * square),
            sensitivity: None,
        }
    }

    /// The same, and what the schemes of a plan with a budget would cost.
    #[must_use]
    pub fn with_sensitivity(mut self, plan: Plan) -> Self {
        self.peak_memory_bytes = self.peak_memory_bytes.max(plan.peak_memory_bytes);
        self.sensitivity = Some(Box::new(plan));
        self
    }

    /// Reads a stored plan; none if it is one of a recipe.
    #[must_use]
    pub fn read(stored: &str) -> Option<Self> {
        serde_json::from_str(stored).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_plan_is_one_or_the_other() {
        let plan = AnalysisPlan {
            analysis: 1,
            engine_version: crate::VERSION.to_owned(),
            tensors: 2,
            bytes: 10,
            peak_memory_bytes: BASE,
            sensitivity: None,
        };
        let stored = serde_json::to_string(&plan).unwrap();
        assert_eq!(AnalysisPlan::read(&stored), Some(plan));
        assert!(serde_json::from_str::<crate::Plan>(&stored).is_err());
        let of_a_recipe = r#"{"version": 1, "engine_version": "1", "stages": [], "tensors": []}"#;
        assert_eq!(AnalysisPlan::read(of_a_recipe), None);
    }
}
