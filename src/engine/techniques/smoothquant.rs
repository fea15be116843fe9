//! `SmoothQuant`: outliers of activations moved into the weights, so that both can be quantized to 8 bits.
//!
//! Owns: its options, the largest activations of each channel. Must not know: packing, what quantizes afterwards.
//! Invariant: the network computes the same afterwards; only norms and the layers that read them change.

use super::folding::{self, Fold, Record, SCALED};
use super::options::{Options, Planned};
use super::{BlockStage, Blocks, Decision, Factors, Maker, Technique, Work};
use crate::calibrate::{Here, Visitor};
use crate::error::Result;
use crate::network::{Cut, Feed, Sizes, State, Weights, with_values};
use crate::plan::{Context, TensorPlan};
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The technique.
pub(super) struct SmoothQuant;

impl Technique for SmoothQuant {
    fn name(&self) -> &'static str {
        "smoothquant"
    }

    fn summary(&self) -> &'static str {
        "Moves the outliers of activations from each norm into the linear layers behind it, which changes nothing that \
         the model computes and makes 8-bit activations harmless; a stage that quantizes follows. Xiao et al. 2023."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/smoothquant.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "smoothing_strength": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.5, "examples": [0.5],
                "description": "How much of an activation's range goes into the weights: scales are max|X|^s / max|W|^(1-s)."},
            "mixtures": {"type": "boolean", "default": false, "examples": [false],
                "description": "Smooth in front of mixtures of experts too, where all experts must share one scale a channel."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let mixtures = options.flag("mixtures");
        let found = folding::planned(context, |feed| {
            feed.feeder.is_norm() && (mixtures || !feed.is_mixture())
        })?;
        Ok(Decision {
            kinds: found.into_iter().map(|at| (at, SCALED)).collect(),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Blocks(&SmoothQuant)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

impl Blocks for SmoothQuant {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        Box::new(Smoother {
            stage,
            strength: options.real("smoothing_strength") as f32,
            largest: HashMap::new(),
            record: Record::default(),
            made: Vec::new(),
        })
    }

    /// A block's scaled tensors, and one of them while it is scaled and turned into bytes.
    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        let largest = tensors.iter().map(|t| 4 * t.elements() as u64).max().unwrap_or(0);
        folding::block_bytes(tensors) + 3 * largest
    }
}

struct Smoother<'a> {
    stage: BlockStage<'a>,
    strength: f32,
    /// Largest magnitude of each channel, by cut and the first input of the feed.
    largest: HashMap<(usize, usize), Vec<f32>>,
    record: Record,
    made: Vec<(usize, Weight)>,
}

impl Smoother<'_> {
    fn is_smoothed(&self, cut: &Cut, feed: &Feed) -> bool {
        feed.feeder.is_norm() && folding::is_used(&self.stage, cut, feed)
    }

    fn smooth(&mut self, cut: &Cut, feed: &Feed, largest: &[f32], here: &Here<'_>) -> Result<()> {
        let mut fold = Fold {
            feed,
            scales: scales(
                largest,
                &weight_peaks(cut, feed, here.weights, largest.len())?,
                self.strength,
            ),
        };
        if let Some((at, _)) = self.stage.step(feed.feeder.weight()) {
            fold.fit_norm(here.weights, self.stage.tensors[at].source_dtype)?;
        }
        self.record.note(&self.stage, cut, &fold, here.network);
        for (name, tensor) in fold.feeder(here.weights)? {
            self.put(&name, &tensor, false)?;
        }
        for name in cut.fed_by(feed).chain(feed.others.iter().map(String::as_str)) {
            let scaled = fold.reader(here.weights.get(name)?)?;
            self.put(name, &scaled, here.network.stored_transposed(name))?;
        }
        Ok(())
    }

    fn put(&mut self, name: &str, tensor: &candle_core::Tensor, transposed: bool) -> Result<()> {
        if let Some((at, _)) = self.stage.step(name) {
            let weight = folding::dense(tensor, &self.stage.tensors[at], transposed)?;
            self.made.push((at, weight));
        }
        Ok(())
    }
}

/// Largest magnitude in each column of all readers together.
fn weight_peaks(cut: &Cut, feed: &Feed, weights: &Weights, channels: usize) -> Result<Vec<f32>> {
    let mut peaks = vec![0f32; channels];
    for name in cut.fed_by(feed) {
        with_values(weights.get(name)?, |w| raise(&mut peaks, w))?;
    }
    Ok(peaks)
}

/// Raises each channel's peak to the largest magnitude in its column.
fn raise(peaks: &mut [f32], values: &[f32]) {
    for row in values.chunks_exact(peaks.len().max(1)) {
        for (peak, value) in peaks.iter_mut().zip(row) {
            *peak = peak.max(value.abs());
        }
    }
}

/// `max|X|^a / max|W|^(1−a)`. A channel that never was anything but 0 keeps its scale. One that no weight reads may
/// be divided at will: it counts as if its weights were the smallest there are.
fn scales(activations: &[f32], weights: &[f32], strength: f32) -> Vec<f32> {
    let smallest = weights
        .iter()
        .copied()
        .filter(|w| *w > 0.0)
        .fold(f32::INFINITY, f32::min);
    let live: Vec<bool> = activations.iter().map(|x| x.is_finite() && *x > 0.0).collect();
    let mut scales: Vec<f32> = activations
        .iter()
        .zip(weights)
        .map(|(x, w)| x.powf(strength) / w.max(smallest).powf(1.0 - strength))
        .collect();
    let mut known: Vec<f32> = scales
        .iter()
        .zip(&live)
        .filter(|(_, l)| **l)
        .map(|(s, _)| *s)
        .collect();
    if known.is_empty() || known.iter().any(|s| !s.is_finite() || *s <= 0.0) {
        return vec![1.0; scales.len()];
    }
    folding::centred(&mut known);
    let mut centred = known.into_iter();
    for (scale, live) in scales.iter_mut().zip(live) {
        *scale = if live { centred.next().unwrap_or(1.0) } else { 1.0 };
    }
    scales
}

impl Visitor for Smoother<'_> {
    fn replaces(&self) -> bool {
        false
    }

    fn see(&mut self, at: usize, cut: &Cut, state: &State) -> Result<()> {
        for feed in &cut.feeds {
            if !self.is_smoothed(cut, feed) {
                continue;
            }
            // Every other input holds rows of the first.
            let Some(first) = feed.inputs.first() else {
                continue;
            };
            let x = &state.inputs[*first];
            let peaks = self
                .largest
                .entry((at, *first))
                .or_insert_with(|| vec![0.0; x.dims()[1]]);
            with_values(x, |x| raise(peaks, x))?;
        }
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        let cut = here.cut;
        for feed in &cut.feeds {
            let first = feed.inputs.first().copied().unwrap_or(0);
            if let Some(largest) = self.largest.remove(&(here.at, first)) {
                self.smooth(cut, feed, &largest, here)?;
            }
        }
        Ok(())
    }
}

impl Maker for Smoother<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }

    fn scaled(&mut self) -> Vec<(usize, Factors)> {
        self.record.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_move_outliers_and_leave_silent_channels_alone() {
        let scales = scales(&[16.0, 1.0, 0.0, 1.0], &[1.0, 1.0, 1.0, 0.0], 0.5);
        assert!((scales[0] / scales[1] - 4.0).abs() < 1e-5, "{scales:?}");
        assert_eq!(scales[2], 1.0);
        assert_eq!(scales[3], scales[1]);
        let product: f32 = [0, 1, 3].iter().map(|i| scales[*i]).product();
        assert!((product - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_layer_that_nothing_reaches_is_left_alone() {
        assert_eq!(scales(&[0.0, 0.0], &[1.0, 2.0], 0.5), [1.0, 1.0]);
        assert_eq!(scales(&[1.0, 2.0], &[0.0, 0.0], 0.5), [1.0, 1.0]);
    }
}
