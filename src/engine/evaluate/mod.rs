//! Measuring a compressed model against its original.
//!
//! Owns: metrics over outputs, their intervals, gates. Must not know: techniques, formats, how weights were made.
//! Invariant: both models see the same sequences; every metric comes with the interval of a paired bootstrap over
//! them.

mod bootstrap;
mod classes;
mod compare;
mod distributions;
mod fit;
mod gate;
mod layers;
mod tokens;
mod vectors;

pub(crate) use classes::class_numbers;
pub use compare::{Comparison, Ends, compare};
pub use fit::Subject;
pub use gate::missed;
pub use layers::{Layers, check_hidden};

use crate::recipe::Metric;
use bootstrap::interval;
use serde::{Deserialize, Serialize};

/// Tokens whose logits are in memory at a time.
pub(crate) const LOGIT_ROWS: usize = 128;

/// Nearest sequences that `retrieval` compares.
const NEIGHBOURS: usize = 10;

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

/// A block's outputs under the compressed model against those under the original, each model on its own way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerError {
    /// The block.
    pub block: usize,
    /// Squared difference by squared length of the original's hidden states.
    pub relative_error: f64,
    /// 95 % interval.
    pub interval: [f64; 2],
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
    /// Errors behind each block, where `layer_error` was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub layers: Vec<LayerError>,
    /// What every stage but the last left, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stages: Vec<StageEffect>,
}

/// What is left behind one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageEffect {
    /// Its place in the recipe, from 0.
    pub stage: usize,
    /// Its technique.
    pub technique: String,
    /// Metrics of the model behind it, in the order of the recipe.
    pub measures: Vec<Measure>,
}

impl Quality {
    /// The measure of that name.
    pub fn measure(&self, metric: &str) -> Option<&Measure> {
        self.measures.iter().find(|m| m.metric == metric)
    }
}

/// A metric of items that can be drawn again.
struct Resampled {
    metric: Metric,
    items: usize,
    seed: u64,
}

/// A number of the items that were drawn.
type Statistic<'a> = &'a dyn Fn(&[usize]) -> f64;

impl Resampled {
    fn all(&self) -> Vec<usize> {
        (0..self.items).collect()
    }

    /// A metric of the two models together.
    fn one(&self, value: Statistic<'_>) -> Measure {
        Measure {
            metric: self.metric.name().to_owned(),
            before: None,
            after: value(&self.all()),
            interval: interval(self.items, self.seed, value),
            change: None,
            change_interval: None,
        }
    }

    /// A metric that each model has by itself.
    fn pair(&self, before: Statistic<'_>, after: Statistic<'_>, change: &dyn Fn(f64, f64) -> f64) -> Measure {
        let changed = |at: &[usize]| change(before(at), after(at));
        let all = self.all();
        Measure {
            before: Some(before(&all)),
            change: Some(changed(&all)),
            change_interval: Some(interval(self.items, self.seed, changed)),
            ..self.one(after)
        }
    }
}
