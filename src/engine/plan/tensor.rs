//! What happens to one tensor.
//!
//! Owns: [`TensorPlan`], its steps. Must not know: techniques.
//! Invariant: steps are in the order of their stages; the kind at the end is that of the last one, or the source's.

use super::{CachePlan, Rotation};
use crate::models::Role;
use crate::tensor::DType;
use crate::weight::{Kind, Sparsity};
use serde::{Deserialize, Serialize};

/// One step of one tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Index of the stage.
    pub stage: usize,
    /// Kind after it.
    pub kind: Kind,
    /// How it is turned, where the stage does that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rotation: Option<Rotation>,
    /// Zeros that it has behind the stage, whichever stage made them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sparsity: Option<Sparsity>,
}

/// What happens to a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorPlan {
    /// Name in the checkpoint.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// Block it belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub layer: Option<usize>,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Stored type in the source.
    pub source_dtype: DType,
    /// Bytes in the source.
    pub source_bytes: u64,
    /// Steps in order; none for a tensor that passes through.
    pub steps: Vec<Step>,
    /// Kind at the end.
    pub kind: Kind,
    /// How what it computes is kept in the key/value cache, where a stage says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache: Option<CachePlan>,
}

impl TensorPlan {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Innermost dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Product of the outer dimensions.
    pub fn rows(&self) -> usize {
        self.elements() / self.cols().max(1)
    }

    /// True where a stage changes it.
    pub fn has_step(&self, stage: usize) -> bool {
        self.steps.iter().any(|s| s.stage == stage)
    }

    /// Zeros that it has before a stage; `usize::MAX` is after all of them.
    pub fn sparsity_before(&self, stage: usize) -> Option<Sparsity> {
        self.steps.iter().rfind(|s| s.stage < stage)?.sparsity
    }

    /// False where nobody knows what the network does with it: tables of masks or positions, for example.
    pub fn is_known(&self) -> bool {
        self.role != Role::Other
    }

    /// Name without a trailing `.weight`.
    pub fn module(&self) -> &str {
        self.name.strip_suffix(".weight").unwrap_or(&self.name)
    }
}
