//! The search for the scales of one feed.
//!
//! Owns: candidates, and what each does to the output. Must not know: where scales go.
//! Invariant: not scaling is among the candidates, so what is found is never worse on the sample.

use crate::error::{Error, Result};
use crate::kernels::affine::Spec;
use crate::kernels::clip;
use crate::network::{Batch, Cut, Feed, Network, Ops, Run, State, Weights, read_all, with_values};
use crate::observe::Observer;
use crate::techniques::folding::multiply_columns;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Smallest scale before they are balanced.
const FLOOR: f32 = 1e-4;

/// A sample of tokens in front of the readers of a feed.
pub(super) struct Trial<'a> {
    pub network: &'a dyn Network,
    pub block: usize,
    pub at: usize,
    /// Cuts of the block.
    pub cuts: usize,
    pub cut: &'a Cut,
    pub feed: &'a Feed,
    pub batch: &'a Batch,
    /// What waits at the cut.
    pub state: &'a State,
    /// The block's weights as they are now.
    pub weights: &'a Weights,
    /// Whether every token visits every expert.
    pub all_experts: bool,
    /// How operations are carried out.
    pub ops: Ops,
    /// The readers that are quantized, and how.
    pub specs: BTreeMap<&'a str, Spec>,
    pub observer: &'a dyn Observer,
}

/// A weight as it multiplies after `W → Q(W · s) / s`.
pub(super) fn rounded(
    weight: &Tensor,
    scales: &[f32],
    spec: &Spec,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Tensor> {
    let mut values = with_values(weight, <[f32]>::to_vec)?;
    multiply_columns(&mut values, scales);
    let made = clip::quantize(&values, scales.len(), spec, None, stop)?;
    let mut values = read_all(&made)?;
    for row in values.chunks_mut(scales.len()) {
        row.iter_mut().zip(scales).for_each(|(v, s)| *v /= s);
    }
    Ok(Tensor::from_vec(values, weight.dims(), weight.device())?)
}

impl Trial<'_> {
    /// The scales that change the output least; `grid` candidates beside no scaling.
    pub(super) fn best(&self, grid: usize, duo: bool) -> Result<Vec<f32>> {
        let activations = self.shared(&self.activations()?);
        let weights = self.shared(&self.weight_means()?);
        let reference = if self.feed.feeder.is_norm() {
            Some(self.answer(self.weights)?)
        } else {
            None
        };
        let mut best = vec![1.0; activations.len()];
        let mut least = self.loss(&best, reference.as_ref())?;
        for (term, ratio) in ratios(grid, duo) {
            let scales = candidate(&activations, term.then_some(&weights), ratio);
            let loss = self.loss(&scales, reference.as_ref())?;
            if loss < least {
                (least, best) = (loss, scales);
            }
        }
        Ok(best)
    }

    /// Mean magnitude of each channel over the tokens of every input.
    fn activations(&self) -> Result<Vec<f32>> {
        // A mixture's first input is every token; the others are parts of it.
        let input = self.feed.inputs.first().copied().unwrap_or(0);
        let x = &self.state.inputs[input];
        let (tokens, cols) = x.dims2()?;
        let mut sums = vec![0f64; cols];
        with_values(x, |x| {
            for row in x.chunks_exact(cols.max(1)) {
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, v)| *sum += f64::from(v.abs()));
            }
        })?;
        Ok(sums.iter().map(|s| (s / tokens.max(1) as f64) as f32).collect())
    }

    /// Mean over all rows of each weight's part of the largest in its group.
    fn weight_means(&self) -> Result<Vec<f32>> {
        let (mut sums, mut rows) = (Vec::new(), 0);
        for (name, spec) in &self.specs {
            let weight = self.weights.get(name)?;
            let (count, cols) = weight.dims2()?;
            sums.resize(cols, 0f64);
            rows += count;
            let (_, size) = spec.granularity.groups(cols);
            with_values(weight, |w| {
                for row in w.chunks_exact(cols) {
                    for (sums, group) in sums.chunks_mut(size).zip(row.chunks(size)) {
                        let peak = group
                            .iter()
                            .fold(0f32, |m, v| m.max(v.abs()))
                            .max(f32::MIN_POSITIVE);
                        sums.iter_mut()
                            .zip(group)
                            .for_each(|(sum, v)| *sum += f64::from(v.abs() / peak));
                    }
                }
            })?;
        }
        Ok(sums.iter().map(|s| (s / rows.max(1) as f64) as f32).collect())
    }

    fn stop(&self) -> impl Fn() -> bool + Sync {
        || self.observer.should_stop()
    }

    /// The same for all channels that the feeder has only one of: their mean.
    fn shared(&self, values: &[f32]) -> Vec<f32> {
        let mut sums = vec![(0f32, 0usize); values.len()];
        for (channel, value) in values.iter().enumerate() {
            let (sum, count) = &mut sums[self.feed.source(channel)];
            *sum += value;
            *count += 1;
        }
        (0..values.len())
            .map(|channel| {
                let (sum, count) = sums[self.feed.source(channel)];
                sum / count.max(1) as f32
            })
            .collect()
    }

    /// Sum of squared changes: of what the part of the block that ends in the residual stream adds to it, or, behind a
    /// linear, of what the readers answer.
    fn loss(&self, scales: &[f32], reference: Option<&Tensor>) -> Result<f64> {
        if self.observer.should_stop() {
            return Err(Error::cancelled());
        }
        let Some(reference) = reference else {
            return self.direct_loss(scales);
        };
        let mut weights = self.weights.clone();
        for (name, spec) in &self.specs {
            let weight = rounded(self.weights.get(name)?, scales, spec, &self.stop())?;
            weights.replace(name, &weight)?;
        }
        let answer = self.answer(&weights)?;
        with_values(reference, |a| {
            with_values(&answer, |b| {
                a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
            })
        })?
    }

    fn direct_loss(&self, scales: &[f32]) -> Result<f64> {
        let mut total = 0.0;
        for reader in &self.cut.readers {
            let Some(spec) = self.specs.get(reader.tensor.as_str()) else {
                continue;
            };
            let weight = self.weights.get(&reader.tensor)?;
            let error = (rounded(weight, scales, spec, &self.stop())? - weight)?;
            let change = self.ops.linear(&self.state.inputs[reader.input], &error, None)?;
            total += with_values(&change, |y| y.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>())?;
        }
        Ok(total)
    }

    /// The residual stream as soon as something was added to it.
    fn answer(&self, weights: &Weights) -> Result<Tensor> {
        let run = Run {
            batch: self.batch,
            weights,
            ops: self.ops,
            all_experts: self.all_experts,
        };
        let mut state = self.state.clone();
        let before = state.hidden.id();
        for at in self.at + 1..=self.cuts {
            state = self.network.advance(self.block, at, state, &run)?;
            if state.hidden.id() != before {
                break;
            }
        }
        Ok(state.hidden)
    }
}

/// Exponents, and whether weights are looked at. Without them an exponent of 0 is no scaling; with them one of 1 is the
/// same as without.
fn ratios(grid: usize, duo: bool) -> Vec<(bool, f32)> {
    let with = if duo { grid / 2 } else { 0 };
    let without = grid - with;
    let half = (0..with).map(|step| (true, step as f32 / with as f32));
    half.chain((1..=without).map(|step| (false, step as f32 / without as f32)))
        .collect()
}

/// `x^r`, or `x^r / w^(1−r)`, balanced around 1.
fn candidate(activations: &[f32], weights: Option<&Vec<f32>>, ratio: f32) -> Vec<f32> {
    let mut scales: Vec<f32> = match weights {
        None => activations.iter().map(|x| x.powf(ratio).max(FLOOR)).collect(),
        Some(weights) => {
            let both = activations.iter().zip(weights);
            both.map(|(x, w)| (x.powf(ratio) / (w.powf(1.0 - ratio) + FLOOR)).max(FLOOR))
                .collect()
        }
    };
    let low = scales.iter().copied().fold(f32::INFINITY, f32::min);
    let high = scales.iter().copied().fold(0.0, f32::max);
    let middle = (low * high).sqrt();
    for scale in &mut scales {
        *scale /= middle;
        if !scale.is_finite() || *scale <= 0.0 {
            *scale = 1.0;
        }
    }
    scales
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_follow_activations_and_are_balanced() {
        assert_eq!(candidate(&[4.0, 1.0], None, 0.5), [2f32.sqrt(), 0.5f32.sqrt()]);
        assert_eq!(candidate(&[4.0, 1.0, 9.0], None, 0.0), [1.0; 3]);
        let scales = candidate(&[4.0, 4.0], Some(&vec![1.0, 0.25]), 0.5);
        assert!((scales[1] / scales[0] - 2.0).abs() < 1e-3);
    }

    #[test]
    fn the_grid_is_parted() {
        assert_eq!(
            ratios(4, true),
            [(true, 0.0), (true, 0.5), (false, 0.5), (false, 1.0)]
        );
        assert_eq!(ratios(2, false), [(false, 0.5), (false, 1.0)]);
    }

    #[test]
    fn channels_without_activations_get_finite_scales() {
        let scales = candidate(&[0.0, 1.0, 0.0], Some(&vec![0.0, 0.5, 0.5]), 0.7);
        assert!(scales.iter().all(|s| s.is_finite() && *s > 0.0));
    }
}
