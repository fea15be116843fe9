//! Learning the rounding of a block's layers together.
//!
//! Owns: the steps, and which of what was learned is kept. Must not know: where learning begins.
//! Invariant: what is kept answers the sequences that are held out no worse than what learning began with.

use super::draw::{Draws, rows_of, together};
use super::start::{Layer, layers};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::signround::Rate;
use crate::network::{Batch, Cut, Network, Ops, Run, State, Weights, read_all, with_values};
use crate::observe::Level;
use crate::techniques::{BlockStage, Maker};
use crate::weight::{Affine, Weight};
use candle_core::{Device, Tensor, Var};
use serde_json::json;

/// How often what was learned is compared with the best so far.
const CHECKS: usize = 8;

/// What the options say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Steps for each block.
    pub iters: usize,
    /// Sequences of a step.
    pub batch: usize,
    /// Length of the first step of places.
    pub lr: f32,
    /// Length of the first step of scales; 0 leaves them.
    pub minmax_lr: f32,
    /// Begin at GPTQ's solution.
    pub compensated: bool,
}

/// Makes all of a block's weights at its first cut.
pub(super) struct Learner<'a> {
    stage: BlockStage<'a>,
    settings: Settings,
    made: Vec<(usize, Weight)>,
}

/// A block as a function of its weights.
struct Block<'a> {
    network: &'a dyn Network,
    index: usize,
    cuts: usize,
    all_experts: bool,
    ops: Ops,
}

impl Block<'_> {
    fn answer(&self, batch: &Batch, hidden: &Tensor, weights: &Weights) -> Result<Tensor> {
        let run = Run {
            batch,
            weights,
            ops: self.ops,
            all_experts: self.all_experts,
        };
        let mut state = State::between(hidden.clone());
        for at in 0..=self.cuts {
            state = self.network.advance(self.index, at, state, &run)?;
        }
        Ok(state.hidden)
    }
}

/// Some sequences as the quantized blocks before left them, and what the block would make of them if nothing were
/// quantized: so a block also learns to make up for the error of those before it.
struct Lesson {
    batch: Batch,
    hidden: Tensor,
    wanted: Tensor,
}

/// Mean squared error of an answer, and its gradient but for a factor.
fn error_of(answer: &Tensor, wanted: &Tensor) -> Result<(f64, Vec<f32>)> {
    let error: Vec<f32> = with_values(answer, |a| {
        with_values(wanted, |b| a.iter().zip(b).map(|(a, b)| a - b).collect())
    })??;
    let sum: f64 = error.iter().map(|e| f64::from(*e).powi(2)).sum();
    Ok((sum / error.len().max(1) as f64, error))
}

impl<'a> Learner<'a> {
    pub(super) fn new(stage: BlockStage<'a>, settings: Settings) -> Self {
        Self {
            stage,
            settings,
            made: Vec::new(),
        }
    }

    fn check(&self) -> Result<()> {
        if self.stage.observer.should_stop() {
            return Err(Error::cancelled());
        }
        Ok(())
    }

    fn block(&mut self, here: &mut Here<'_>) -> Result<()> {
        let mut layers = layers(&self.stage, here, self.settings.compensated)?;
        if layers.is_empty() {
            return Ok(());
        }
        let block = Block {
            network: here.network,
            index: here.block,
            cuts: here.network.cuts(here.block).len(),
            all_experts: here.all_experts,
            ops: here.ops,
        };
        let best = self.learn(&block, here, &mut layers)?;
        for (layer, weight) in layers.iter().zip(best) {
            let values = read_all(&weight)?;
            let tensor = Tensor::from_vec(values, (weight.rows, weight.cols), &Device::Cpu)?;
            here.weights.replace(&layer.name, &tensor)?;
            self.made.push((layer.index, Weight::Affine(weight)));
        }
        Ok(())
    }

    /// The best codes of each layer.
    fn learn(&self, block: &Block<'_>, here: &Here<'_>, layers: &mut [Layer]) -> Result<Vec<Affine>> {
        let seed = self.stage.seed.wrapping_add(here.block as u64);
        let mut draws = Draws::new(here, self.settings.batch, seed);
        let lesson = |mut places: Vec<_>| -> Result<Lesson> {
            // In order, so that each batch is read once.
            places.sort_unstable();
            Ok(Lesson {
                batch: together(here, &places),
                hidden: rows_of(&places, |batch| here.hidden(batch))?,
                wanted: rows_of(&places, |batch| here.answered(batch))?,
            })
        };
        let held_out = lesson(draws.held_out())?;
        let first = self.loss(block, &held_out, here.weights, layers)?;
        let (mut least, mut best) = (first, quantized(layers)?);
        let iters = self.settings.iters;
        for step in 0..iters {
            self.check()?;
            let part = 1.0 - step as f32 / iters as f32;
            let rate = Rate {
                round: self.settings.lr * part,
                scale: self.settings.minmax_lr * part,
            };
            self.step(block, &lesson(draws.draw())?, here.weights, layers, rate)?;
            if (step + 1) % iters.div_ceil(CHECKS) == 0 || step + 1 == iters {
                let loss = self.loss(block, &held_out, here.weights, layers)?;
                if loss < least {
                    (least, best) = (loss, quantized(layers)?);
                }
            }
        }
        self.tell(here.block, first, least);
        Ok(best)
    }

    fn tell(&self, block: usize, first: f64, least: f64) {
        let message = format!("block {block}: mean squared error {first:.4e}, learned {least:.4e}");
        let data = json!({"block": block, "loss_before": first, "loss_after": least});
        self.stage.observer.event(Level::Info, &message, data);
    }

    /// What the rounding as it is now costs.
    fn loss(&self, block: &Block<'_>, lesson: &Lesson, weights: &Weights, layers: &[Layer]) -> Result<f64> {
        self.check()?;
        let mut student = weights.clone();
        for layer in layers {
            let shape = weights.get(&layer.name)?.dims();
            let rounded = Tensor::from_vec(layer.rounding.rounded(), shape, &Device::Cpu)?;
            student.replace(&layer.name, &rounded)?;
        }
        let answer = block.answer(&lesson.batch, &lesson.hidden, &student)?;
        Ok(error_of(&answer, &lesson.wanted)?.0)
    }

    fn step(
        &self,
        block: &Block<'_>,
        lesson: &Lesson,
        weights: &Weights,
        layers: &mut [Layer],
        rate: Rate,
    ) -> Result<()> {
        let mut student = weights.clone();
        let mut vars = Vec::new();
        for layer in layers.iter() {
            let shape = weights.get(&layer.name)?.dims();
            let var = Var::from_vec(layer.rounding.rounded(), shape, weights.device())?;
            student.replace(&layer.name, var.as_tensor())?;
            vars.push(var);
        }
        let answer = block.answer(&lesson.batch, &lesson.hidden, &student)?;
        let (_, error) = error_of(&answer, &lesson.wanted)?;
        self.check()?;
        let slope = Tensor::from_vec(error, answer.dims(), answer.device())?;
        let gradients = (answer * slope)?.sum_all()?.backward()?;
        for (layer, var) in layers.iter_mut().zip(&vars) {
            // An expert that none of these tokens visits has no gradient and stays as it is.
            if let Some(gradient) = gradients.get(var.as_tensor()) {
                with_values(gradient, |g| layer.rounding.step(g, rate))?;
            }
        }
        Ok(())
    }
}

fn quantized(layers: &[Layer]) -> Result<Vec<Affine>> {
    layers.iter().map(|l| l.rounding.quantized()).collect()
}

impl Visitor for Learner<'_> {
    fn replaces(&self) -> bool {
        true
    }

    fn compares(&self) -> bool {
        true
    }

    fn see(&mut self, _at: usize, _cut: &Cut, _state: &State) -> Result<()> {
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        if here.at == 0 { self.block(here) } else { Ok(()) }
    }
}

impl Maker for Learner<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }
}
