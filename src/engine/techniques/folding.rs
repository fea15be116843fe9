//! Folding scales into what feeds a layer: what the techniques that do so share.
//!
//! Owns: which feeds a stage can use, what becomes of their tensors, the scaled tensors. Must not know: how scales are
//! chosen.
//! Invariant: feeder and readers change together or not at all, so that the network computes the same.

use super::options::Planned;
use super::{BlockStage, Factors};
use crate::error::{Error, Result};
use crate::network::{Cut, Feed, Network, Weights, with_values};
use crate::plan::{Context, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::{DType, encode_dense, round_to};
use crate::weight::{Dense, Kind, Weight};
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Scales of the channels of one feed.
pub(super) struct Fold<'a> {
    /// The feed.
    pub feed: &'a Feed,
    /// A positive number for each channel of the input.
    pub scales: Vec<f32>,
}

/// Every tensor that a feed's scales change.
pub(super) fn members<'a>(cut: &'a Cut, feed: &'a Feed) -> impl Iterator<Item = &'a str> {
    let feeder = std::iter::once(feed.feeder.weight()).chain(feed.feeder.bias());
    feeder
        .chain(cut.fed_by(feed))
        .chain(feed.others.iter().map(String::as_str))
}

/// Indices of the tensors that change where every feed with a targeted reader is used that `wanted` lets pass.
pub(super) fn planned(context: &Context<'_>, wanted: impl Fn(&Feed) -> bool) -> Planned<BTreeSet<usize>> {
    let names = (0..).zip(context.tensors).map(|(at, t)| (t.name.as_str(), at));
    let by_name: HashMap<&str, usize> = names.collect();
    let index = |name: &str| by_name.get(name).copied();
    let targeted = |name: &str| index(name).is_some_and(|at| context.targeted[at]);
    let cuts = || context.blocks.iter().flatten();
    if cuts().all(|cut| cut.feeds.is_empty()) {
        return Err(vec![Refusal::new(
            context.technique_pointer(),
            "no_feeders",
            format!(
                "{} folds scales into what feeds a linear layer, and in this model nothing can take them: no layer \
                 reads what a norm makes for it alone (BERT and its kin normalise the residual stream itself)",
                context.spec.technique
            ),
        )]);
    }
    let mut found = BTreeSet::new();
    for cut in cuts() {
        for feed in cut.feeds.iter().filter(|f| wanted(f)) {
            if cut.fed_by(feed).any(targeted) {
                found.extend(members(cut, feed).filter_map(index));
            }
        }
    }
    let refusals: Vec<Refusal> = found
        .iter()
        .filter_map(|at| unfit(context, *at, "scaled"))
        .collect();
    if refusals.is_empty() {
        Ok(found)
    } else {
        Err(refusals)
    }
}

/// Why a tensor cannot take what is folded into it; `folded` says what would be done to it.
pub(super) fn unfit(context: &Context<'_>, index: usize, folded: &str) -> Option<Refusal> {
    let tensor = &context.tensors[index];
    let (code, detail) = if tensor.kind.is_compressed() {
        let kind = tensor.kind.label();
        (
            "already_quantized",
            format!(
                "{} is already {kind}: it can only be {folded} before",
                tensor.name
            ),
        )
    } else if !matches!(tensor.source_dtype, DType::F32 | DType::F16 | DType::BF16) {
        let dtype = tensor.source_dtype;
        (
            "unsupported_dtype",
            format!(
                "{} is {dtype}: only F32, F16 and BF16 tensors are {folded}",
                tensor.name
            ),
        )
    } else {
        return None;
    };
    Some(Refusal::new(format!("{}/targets", context.pointer), code, detail))
}

/// What a tensor is after it was scaled or turned: f32, until the plan's end says otherwise.
pub(super) const SCALED: Kind = Kind::Dense { dtype: DType::F32 };

/// True where the plan has a step in this stage for all tensors of a feed.
pub(super) fn is_used(stage: &BlockStage<'_>, cut: &Cut, feed: &Feed) -> bool {
    members(cut, feed).all(|name| stage.step(name).is_some())
}

/// Most bytes of one block's tensors as f32.
pub(super) fn block_bytes(tensors: &[&TensorPlan]) -> u64 {
    let layers: BTreeSet<Option<usize>> = tensors.iter().map(|t| t.layer).collect();
    let of = |layer: Option<usize>| -> u64 {
        let own = tensors.iter().filter(|t| t.layer == layer);
        own.map(|t| 4 * t.elements() as u64).sum()
    };
    layers.into_iter().map(of).max().unwrap_or(0)
}

/// Divides by the geometric mean: only the proportions of scales matter, and a norm shall stay as large as it was.
pub(super) fn centred(scales: &mut [f32]) {
    let logs: f64 = scales.iter().map(|s| f64::from(*s).ln()).sum();
    let mean = (logs / scales.len().max(1) as f64).exp() as f32;
    if mean.is_finite() && mean > 0.0 {
        for s in scales.iter_mut() {
            *s /= mean;
        }
    }
}

impl Fold<'_> {
    /// A scale for each of the feeder's channels.
    pub(super) fn at_source(&self, channels: usize) -> Vec<f32> {
        let mut out = vec![1.0; channels];
        for (channel, scale) in self.scales.iter().enumerate() {
            if let Some(out) = out.get_mut(self.feed.source(channel)) {
                *out = *scale;
            }
        }
        out
    }

    /// Bends the scales a little, so that the divided norm is what its type can hold exactly: its rounding is then made
    /// up for by the readers, which see f32.
    pub(super) fn fit_norm(&mut self, weights: &Weights, dtype: DType) -> Result<()> {
        if !self.feed.feeder.is_norm() {
            return Ok(());
        }
        let norm = weights.get(self.feed.feeder.weight())?;
        with_values(norm, |norm| {
            for (scale, value) in self.scales.iter_mut().zip(norm) {
                let bent = value / round_to(dtype, value / *scale);
                if bent.is_finite() && bent > 0.0 {
                    *scale = bent;
                }
            }
        })
    }

    /// The feeder's weight and bias, divided.
    pub(super) fn feeder(&self, weights: &Weights) -> Result<Vec<(String, Tensor)>> {
        let names = std::iter::once(self.feed.feeder.weight()).chain(self.feed.feeder.bias());
        let mut made = Vec::new();
        for name in names {
            let tensor = weights.get(name)?;
            let divisors = self.at_source(tensor.dim(0)?);
            let row = tensor.elem_count() / divisors.len().max(1);
            let mut values = with_values(tensor, <[f32]>::to_vec)?;
            for (values, by) in values.chunks_mut(row.max(1)).zip(&divisors) {
                for v in values.iter_mut() {
                    *v /= by;
                }
            }
            made.push((
                name.to_owned(),
                Tensor::from_vec(values, tensor.dims(), &Device::Cpu)?,
            ));
        }
        Ok(made)
    }

    /// A reader's weight, its columns multiplied.
    pub(super) fn reader(&self, weight: &Tensor) -> Result<Tensor> {
        let mut values = with_values(weight, <[f32]>::to_vec)?;
        multiply_columns(&mut values, &self.scales);
        Ok(Tensor::from_vec(values, weight.dims(), &Device::Cpu)?)
    }
}

/// What one stage did to each tensor that it scaled, by index.
#[derive(Default)]
pub(super) struct Record(BTreeMap<usize, Factors>);

impl Record {
    /// Notes a fold for its feeder and all of its readers.
    pub(super) fn note(&mut self, stage: &BlockStage<'_>, cut: &Cut, fold: &Fold<'_>, network: &dyn Network) {
        let feeder = std::iter::once(fold.feed.feeder.weight()).chain(fold.feed.feeder.bias());
        for name in feeder {
            let Some((at, _)) = stage.step(name) else { continue };
            let shape = &stage.tensors[at].shape;
            let inverse = fold.at_source(shape[0]).iter().map(|s| 1.0 / s).collect();
            let factors = self.0.entry(at).or_default();
            // A vector is one row.
            if shape.len() == 1 {
                factors.cols = inverse;
            } else {
                factors.rows = inverse;
            }
        }
        let others = fold.feed.others.iter().map(String::as_str);
        for name in cut.fed_by(fold.feed).chain(others) {
            let Some((at, _)) = stage.step(name) else { continue };
            let factors = self.0.entry(at).or_default();
            if network.stored_transposed(name) {
                factors.rows.clone_from(&fold.scales);
            } else {
                factors.cols.clone_from(&fold.scales);
            }
        }
    }

    /// What was noted since this was last asked.
    pub(super) fn take(&mut self) -> Vec<(usize, Factors)> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}

/// Multiplies each column of a matrix.
pub(super) fn multiply_columns(values: &mut [f32], by: &[f32]) {
    for row in values.chunks_mut(by.len().max(1)) {
        row.iter_mut().zip(by).for_each(|(v, s)| *v *= s);
    }
}

/// A scaled tensor as a stage hands it on; `transposed` where the checkpoint keeps it `[in, out]`.
pub(super) fn dense(tensor: &Tensor, plan: &TensorPlan, transposed: bool) -> Result<Weight> {
    let turned = if transposed {
        tensor.t()?.contiguous()?
    } else {
        tensor.clone()
    };
    let mut bytes = Vec::new();
    if !with_values(&turned, |values| encode_dense(DType::F32, values, &mut bytes))? {
        return Err(Error::internal("f32 is no plain type"));
    }
    Ok(Weight::Dense(Dense {
        rows: plan.rows(),
        cols: plan.cols(),
        dtype: DType::F32,
        bytes,
    }))
}
