//! Measuring a compressed model against its original.
//!
//! Owns: metrics over outputs, their intervals, gates. Must not know: techniques, formats, how weights were made.
//! Invariant: both models see the same sequences; every metric comes with the interval of a paired bootstrap over
//! them.

mod bootstrap;
mod compare;
mod gate;

pub use compare::{Ends, compare};
pub use gate::missed;

use serde::{Deserialize, Serialize};

/// Tokens whose logits are in memory at a time.
pub(crate) const LOGIT_ROWS: usize = 128;

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Its name as recipes spell it.
    pub metric: String,
    /// Of the original, where the metric is one of a single model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<f64>,
    /// Of the compressed model, or of the two together.
    pub after: f64,
    /// 95 % interval of `after`.
    pub interval: [f64; 2],
    /// `after / before − 1` for perplexity, `after − before` for shares.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub change: Option<f64>,
    /// 95 % interval of `change`, paired.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub change_interval: Option<[f64; 2]>,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Dataset.
    pub dataset: String,
    /// Sequences.
    pub sequences: usize,
    /// Tokens of all sequences.
    pub tokens: usize,
    /// Tokens of the longest sequence.
    pub max_seq_length: usize,
    /// Metrics, in the order of the recipe.
    pub measures: Vec<Measure>,
}

impl Quality {
    /// The measure of that name.
    pub fn measure(&self, metric: &str) -> Option<&Measure> {
        self.measures.iter().find(|m| m.metric == metric)
    }
}
