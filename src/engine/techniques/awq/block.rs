//! One block: scales for each feed, then ranges, then codes.
//!
//! Owns: the order of work within a block. Must not know: how a feed's scales are found.
//! Invariant: weights in memory keep the channels that the checkpoint has, so that what waits at the cuts stays right:
//! `Q(W · s) / s` multiplies there, and `Q(W · s)` is what is handed on.

use super::search::Trial;
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::affine::{Range, Spec};
use crate::kernels::clip::{self, Grams};
use crate::network::{Batch, Cut, State, Weights, read_all, with_values};
use crate::techniques::folding::{self, Fold, Record, multiply_columns};
use crate::techniques::{BlockStage, Factors, Maker};
use crate::weight::{Affine, Kind, Weight};
use candle_core::{Device, Tensor};
use std::collections::HashMap;

/// Most tokens of a sequence that go into the sample: many short beginnings say more than a few whole texts.
const BEGINNING: usize = 256;

/// What the options say.
pub(super) struct Settings {
    /// Exponents that are tried.
    pub grid: usize,
    /// Whether scales look at weights too.
    pub duo: bool,
    /// Whether ranges are searched.
    pub clip: bool,
    /// Tokens of the sample.
    pub tokens: usize,
}

/// Looks at a block's inputs and makes all of its weights at its first cut.
pub(super) struct Searcher<'a> {
    stage: BlockStage<'a>,
    settings: Settings,
    made: Vec<(usize, Weight)>,
    record: Record,
}

/// A reader's input: how its columns are scaled, and how they vary.
struct Input {
    scales: Option<Vec<f32>>,
    grams: Option<Grams>,
}

impl<'a> Searcher<'a> {
    pub(super) fn new(stage: BlockStage<'a>, settings: Settings) -> Self {
        Self {
            stage,
            settings,
            made: Vec::new(),
            record: Record::default(),
        }
    }

    /// How a tensor is rounded in this stage, if it is.
    fn spec(&self, name: &str, range: Range) -> Option<Spec> {
        Spec::of(self.stage.step(name)?.1, range, range != Range::MinMax)
    }

    fn range(&self) -> Range {
        if self.settings.clip {
            Range::Mse
        } else {
            Range::MinMax
        }
    }

    fn block(&mut self, here: &mut Here<'_>) -> Result<()> {
        let observer = self.stage.observer;
        let stop = || observer.should_stop();
        let (batch, hidden) = sample(here, self.settings.tokens)?;
        let cuts = here.network.cuts(here.block);
        let original = here.weights.clone();
        let mut folds: Vec<Fold<'_>> = Vec::new();
        let mut inputs: HashMap<&str, Input> = HashMap::new();
        let mut state = State::between(hidden);
        for (at, cut) in cuts.iter().enumerate() {
            state = here.network.advance(here.block, at, state, &here.run(&batch))?;
            let first = folds.len();
            for feed in cut.feeds.iter().filter(|f| folding::is_used(&self.stage, cut, f)) {
                let specs = cut
                    .fed_by(feed)
                    .filter_map(|r| Some((r, self.spec(r, Range::MinMax)?)));
                let trial = Trial {
                    network: here.network,
                    block: here.block,
                    at,
                    cuts: cuts.len(),
                    cut,
                    feed,
                    batch: &batch,
                    state: &state,
                    weights: here.weights,
                    all_experts: here.all_experts,
                    ops: here.ops,
                    specs: specs.collect(),
                    observer: self.stage.observer,
                };
                let scales = trial.best(self.settings.grid, self.settings.duo)?;
                let mut fold = Fold { feed, scales };
                if let Some((index, _)) = self.stage.step(feed.feeder.weight()) {
                    fold.fit_norm(here.weights, self.stage.tensors[index].source_dtype)?;
                }
                folds.push(fold);
            }
            for reader in &cut.readers {
                let Some(spec) = self.spec(&reader.tensor, self.range()) else {
                    continue;
                };
                let fold = folds[first..]
                    .iter()
                    .find(|f| f.feed.inputs.contains(&reader.input));
                let input = self.input(&state.inputs[reader.input], &spec, fold)?;
                let affine = quantized(&original, &reader.tensor, &spec, &input, None, &stop)?;
                let effective = effective(&affine, &input)?;
                here.weights.replace(&reader.tensor, &effective)?;
                inputs.insert(&reader.tensor, input);
                if let Some((index, _)) = self.stage.step(&reader.tensor) {
                    self.made.push((index, Weight::Affine(affine)));
                }
            }
        }
        self.fold(here, &original, &cuts, &folds, &inputs)
    }

    fn input(&self, x: &Tensor, spec: &Spec, fold: Option<&Fold<'_>>) -> Result<Input> {
        let (_, cols) = x.dims2()?;
        let (_, size) = spec.granularity.groups(cols);
        let scales = fold.map(|f| f.scales.clone());
        let grams = if self.settings.clip {
            let grams = with_values(x, |x| Grams::of(x, cols, size))?;
            Some(match &scales {
                Some(scales) => grams.divided(scales),
                None => grams,
            })
        } else {
            None
        };
        Ok(Input { scales, grams })
    }

    /// Folds all scales into what feeds, and hands on what changed. A feeder that is rounded itself is rounded anew.
    fn fold(
        &mut self,
        here: &Here<'_>,
        original: &Weights,
        cuts: &[Cut],
        folds: &[Fold<'_>],
        inputs: &HashMap<&str, Input>,
    ) -> Result<()> {
        let observer = self.stage.observer;
        let stop = || observer.should_stop();
        for fold in folds {
            let feeder = fold.feed.feeder.weight();
            if let (Some(spec), Some(input)) = (self.spec(feeder, self.range()), inputs.get(feeder)) {
                let affine = quantized(original, feeder, &spec, input, Some(fold), &stop)?;
                self.put(feeder, Weight::Affine(affine));
            }
            for (name, tensor) in fold.feeder(original)? {
                self.put_dense(here, &name, &tensor)?;
            }
        }
        for cut in cuts {
            for fold in folds.iter().filter(|f| cut.feeds.contains(f.feed)) {
                self.record.note(&self.stage, cut, fold, here.network);
                let others = fold.feed.others.iter().map(String::as_str);
                for name in cut.fed_by(fold.feed).chain(others) {
                    let scaled = fold.reader(original.get(name)?)?;
                    self.put_dense(here, name, &scaled)?;
                }
            }
        }
        Ok(())
    }

    /// Hands a scaled tensor on, unless codes of it are.
    fn put_dense(&mut self, here: &Here<'_>, name: &str, tensor: &Tensor) -> Result<()> {
        let Some((index, Kind::Dense { .. })) = self.stage.step(name) else {
            return Ok(());
        };
        let transposed = here.network.stored_transposed(name);
        let weight = folding::dense(tensor, &self.stage.tensors[index], transposed)?;
        self.put(name, weight);
        Ok(())
    }

    fn put(&mut self, name: &str, weight: Weight) {
        if let Some((index, _)) = self.stage.step(name) {
            self.made.retain(|(at, _)| *at != index);
            self.made.push((index, weight));
        }
    }
}

/// Codes of a weight whose columns are scaled by its input's fold, and its rows divided by the fold that it feeds.
fn quantized(
    original: &Weights,
    name: &str,
    spec: &Spec,
    input: &Input,
    feeds: Option<&Fold<'_>>,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Affine> {
    let weight = original.get(name)?;
    let (rows, cols) = weight.dims2()?;
    let mut values = with_values(weight, <[f32]>::to_vec)?;
    if let Some(scales) = &input.scales {
        multiply_columns(&mut values, scales);
    }
    if let Some(fold) = feeds {
        for (row, by) in values.chunks_mut(cols.max(1)).zip(fold.at_source(rows)) {
            for v in row.iter_mut() {
                *v /= by;
            }
        }
    }
    clip::quantize(&values, cols, spec, input.grams.as_ref(), stop).map_err(|e| Error {
        message: format!("tensor {name}: {}", e.message),
        ..e
    })
}

/// What multiplies inputs that are not scaled.
fn effective(affine: &Affine, input: &Input) -> Result<Tensor> {
    let mut values = read_all(affine)?;
    if let Some(scales) = &input.scales {
        for row in values.chunks_mut(scales.len().max(1)) {
            row.iter_mut().zip(scales).for_each(|(v, s)| *v /= s);
        }
    }
    Ok(Tensor::from_vec(
        values,
        (affine.rows, affine.cols),
        &Device::Cpu,
    )?)
}

/// Beginnings of sequences from all over the calibration data, about so many tokens, in front of the block.
fn sample(here: &Here<'_>, tokens: usize) -> Result<(Batch, Tensor)> {
    let mut places = Vec::new();
    for index in 0..here.batches() {
        let mut start = 0;
        for length in &here.batch(index).lengths {
            places.push((index, start, (*length).min(BEGINNING)));
            start += length;
        }
    }
    let mean = places.iter().map(|p| p.2).sum::<usize>() / places.len().max(1);
    let wanted = tokens.div_ceil(mean.max(1)).clamp(1, places.len().max(1));
    let (mut ids, mut rows): (Vec<Vec<u32>>, Vec<Tensor>) = (Vec::new(), Vec::new());
    let mut open: Option<(usize, Tensor)> = None;
    for pick in 0..wanted {
        let Some((index, start, length)) = places.get(pick * places.len() / wanted).copied() else {
            break;
        };
        let hidden = match open.take() {
            Some((at, hidden)) if at == index => hidden,
            _ => here.state(index)?.1.hidden,
        };
        ids.push(here.batch(index).ids[start..start + length].to_vec());
        rows.push(hidden.narrow(0, start, length)?);
        open = Some((index, hidden));
    }
    let slices: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    Ok((Batch::new(&slices), Tensor::cat(&rows, 0)?.contiguous()?))
}

impl Visitor for Searcher<'_> {
    fn replaces(&self) -> bool {
        true
    }

    fn see(&mut self, _at: usize, _cut: &Cut, _state: &State) -> Result<()> {
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        if here.at == 0 { self.block(here) } else { Ok(()) }
    }
}

impl Maker for Searcher<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }

    fn scaled(&mut self) -> Vec<(usize, Factors)> {
        self.record.take()
    }
}
