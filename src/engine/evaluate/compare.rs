//! Two models' outputs side by side.
//!
//! Owns: the way through the batches, and which metrics belong to which kind of output. Must not know: weights.
//! Invariant: both models' outputs of a batch are computed together and then let go.

use super::vectors::Vectors;
use super::{Layers, Quality, classes, tokens, vectors};
use crate::error::{Error, Result};
use crate::network::{Batch, Compute, HeadKind, Network, Weights, with_values};
use crate::recipe::Metric;
use candle_core::Tensor;

/// What a model ends with: last hidden states, and the weights of its head.
pub struct Ends<'a> {
    /// Of a batch.
    pub hidden: &'a dyn Fn(usize) -> Result<Tensor>,
    /// Of the head.
    pub weights: &'a Weights,
}

/// What is compared.
pub struct Comparison<'a> {
    /// Networks of the original and the compressed model: one twice, unless the structure changed.
    pub networks: [&'a dyn Network; 2],
    /// Where it runs.
    pub compute: &'a Compute,
    /// The sequences.
    pub batches: &'a [Batch],
    /// The original and the compressed model.
    pub ends: [Ends<'a>; 2],
    /// What their blocks differ by, where it was asked for.
    pub layers: &'a Layers,
    /// The right class of each sequence; empty without labels.
    pub labels: &'a [usize],
    /// What to measure; all of it fits the network.
    pub metrics: &'a [Metric],
    /// Of the resampling.
    pub seed: u64,
}

/// One model's last hidden states and head.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub network: &'a dyn Network,
    pub compute: &'a Compute,
    pub hidden: &'a Tensor,
    pub weights: &'a Weights,
}

/// What the head makes of hidden states.
pub(super) fn logits(batch: &Batch, side: Side<'_>, hidden: &Tensor) -> Result<Vec<f32>> {
    let run = side.compute.run(batch, side.weights);
    let out = side.network.head(hidden, &run)?.contiguous()?;
    let values = with_values(&out, <[f32]>::to_vec)?;
    if values.iter().all(|v| v.is_finite()) {
        return Ok(values);
    }
    Err(Error::numeric(
        "non_finite_activations",
        "a model's output is not finite: its head holds NaN or infinite values, and nothing can be measured",
    ))
}

/// What was seen of all sequences so far.
enum Seen {
    Tokens(Vec<tokens::Sums>),
    Classes(Vec<classes::Answer>),
    Vectors([Vectors; 2]),
}

/// Measures what was asked for; `stop` is told how far it is.
pub fn compare(what: &Comparison<'_>, stop: &dyn Fn(f64) -> bool) -> Result<Quality> {
    let mut seen = match what.networks[0].head_kind() {
        HeadKind::NextToken => Seen::Tokens(Vec::new()),
        HeadKind::Classes => Seen::Classes(Vec::new()),
        HeadKind::Embedding => Seen::Vectors(Default::default()),
    };
    let needed = what.metrics.iter().any(|metric| *metric != Metric::LayerError);
    let batches = if needed { what.batches } else { &[] };
    for (index, batch) in batches.iter().enumerate() {
        let ask = |within: f64| stop((index as f64 + within) / batches.len() as f64);
        if ask(0.0) {
            return Err(Error::cancelled());
        }
        let [before, after] = &what.ends;
        let hidden = [(before.hidden)(index)?, (after.hidden)(index)?];
        let side = |k: usize| Side {
            network: what.networks[k],
            compute: what.compute,
            hidden: &hidden[k],
            weights: what.ends[k].weights,
        };
        seen.add(batch, [side(0), side(1)], &ask)?;
    }
    let listed = what
        .metrics
        .iter()
        .filter(|metric| **metric != Metric::LayerError);
    let measures = listed.map(|metric| match &seen {
        Seen::Tokens(sums) => tokens::measure(*metric, sums, what.seed),
        Seen::Classes(answers) => classes::measure(*metric, answers, what.labels, what.seed),
        Seen::Vectors(both) => vectors::measure(*metric, both, what.seed),
    });
    Ok(Quality {
        measures: measures.collect(),
        layers: what.layers.errors(what.seed),
        stages: Vec::new(),
        ..Quality::default()
    })
}

impl Seen {
    fn add(&mut self, batch: &Batch, sides: [Side<'_>; 2], stop: &dyn Fn(f64) -> bool) -> Result<()> {
        if let Self::Tokens(sums) = self {
            sums.extend(tokens::batch(batch, sides, stop)?);
            return Ok(());
        }
        let of = |side: Side<'_>| logits(batch, side, side.hidden);
        let (before, after) = (of(sides[0])?, of(sides[1])?);
        let cols = before.len() / batch.lengths.len().max(1);
        match self {
            Self::Classes(answers) => answers.extend(classes::answers(&before, &after, cols)),
            Self::Vectors(both) => {
                both[0].extend(&before, cols);
                both[1].extend(&after, cols);
            }
            Self::Tokens(_) => {}
        }
        Ok(())
    }
}
