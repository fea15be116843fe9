//! Description of one stored tensor.
//!
//! Owns: name, type, shape, place in a file. Must not know: how the file's header is parsed.
//! Invariant: `offset + bytes` was checked against the file's length when it was built.

use super::DType;
use serde::{Deserialize, Serialize};

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Name in the checkpoint.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, outermost first (`PyTorch` order): a linear weight is `[out_features, in_features]`.
    pub shape: Vec<usize>,
    /// Index of the file in [`crate::Checkpoint::files`].
    pub file: usize,
    /// Absolute offset of the first byte in that file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of the innermost dimension (1 for a scalar).
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Product of the outer dimensions.
    pub fn rows(&self) -> usize {
        if self.cols() == 0 {
            0
        } else {
            self.elements() / self.cols()
        }
    }

    /// The module a weight belongs to: the name without a trailing `.weight`.
    pub fn module(&self) -> &str {
        self.name.strip_suffix(".weight").unwrap_or(&self.name)
    }
}
