//! What a budget chose, why, and what came of it.
//!
//! Owns: [`Allocation`]. Must not know: how it was found.
//! Invariant: what is `predicted_*` was said before the result was evaluated.

use crate::recipe::BudgetSpec;
use serde::{Deserialize, Serialize};

/// A choice within a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// What was asked.
    pub budget: BudgetSpec,
    /// Schemes there were.
    pub candidates: Vec<String>,
    /// Whether the limit was measured to hold.
    pub held: bool,
    /// Divergence that was expected of the choice, nats a token.
    pub predicted_kl: f64,
    /// 95 % interval of that.
    pub predicted_kl_interval: [f64; 2],
    /// Bytes of the smallest choice there is.
    pub smallest_bytes: u64,
    /// Bytes of the largest choice there is.
    pub largest_bytes: u64,
    /// What parts were said and measured to cost in the first choice.
    pub classes: Vec<ClassLoss>,
    /// Choices that were tried.
    pub rounds: Vec<Round>,
    /// What other sizes would lose.
    pub curve: Vec<CurvePoint>,
    /// Every tensor that a scheme was chosen for.
    pub tensors: Vec<TensorScheme>,
}

/// A part of the model, compressed alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassLoss {
    /// What it is called.
    pub class: String,
    /// Tensors.
    pub tensors: usize,
    /// Weights.
    pub parameters: u64,
    /// Divergence by the gradients, nats a token.
    pub predicted_kl: f64,
    /// Measured.
    pub measured_kl: f64,
    /// By how much its losses were corrected.
    pub factor: f64,
}

/// A choice that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Bytes of all files.
    pub bytes: u64,
    /// `8 · weight bytes / parameters`.
    pub bits_per_weight: f64,
    /// Divergence by the losses as they were then.
    pub predicted_kl: f64,
    /// What was measured.
    pub metric: String,
    /// Its value; of perplexity, by which share it grew, of accuracy, by which share of the answers it fell.
    pub measured: f64,
    /// 95 % interval; none for trials on calibration data, which decide no limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interval: Option<[f64; 2]>,
    /// Whether it became the result.
    pub kept: bool,
}

/// A size and what it would lose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Bytes of all files.
    pub bytes: u64,
    /// `8 · weight bytes / parameters`.
    pub bits_per_weight: f64,
    /// Divergence that is expected, nats a token.
    pub predicted_kl: f64,
    /// 95 % interval.
    pub predicted_kl_interval: [f64; 2],
}

/// A tensor's scheme.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorScheme {
    /// The tensor.
    pub name: String,
    /// Its scheme.
    pub scheme: String,
    /// Its weights.
    pub parameters: u64,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Its share of the expected divergence, nats a token.
    pub predicted_kl: f64,
}
