//! Techniques that make one layer after another, each by the sums of what it reads: the way through a block.
//!
//! Owns: the sums, the layers' values, their replacement in the network. Must not know: what is made of a layer.
//! Invariant: a layer's sums are those of its inputs behind the layers already made ("true sequential"); they are dropped
//! before the next cut is seen.

use super::hessians::{Hessians, Seen};
use super::{BlockStage, Maker, folding, seen_name, seen_words};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::network::{Batch, Cut, Network, State, read_all, with_values};
use crate::weight::{Kind, Weight};
use candle_core::{Device, Tensor};

/// A layer that is to be made.
pub(super) struct Layer<'a> {
    /// Of its weight.
    pub name: &'a str,
    /// Weights, `[rows, cols]`.
    pub values: Vec<f32>,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// What the weight becomes.
    pub kind: Kind,
}

/// What comes of a layer.
pub(super) enum Done {
    /// Its weight, compressed.
    Weight(Weight),
    /// Other values of the same shape, as plain as they were.
    Values(Vec<f32>),
    /// What was seen of it; it stays as it is.
    Seen(Vec<f64>),
}

/// What is done with the layers of a block.
pub(super) trait Layerwise {
    /// What layers that read the same have in common.
    type Input;

    /// Made of the sums of what `readers` read.
    fn input(&self, stage: &BlockStage<'_>, seen: Seen, readers: &[String]) -> Result<Self::Input>;

    /// How many tokens at the beginning of each sequence are left out of the sums.
    fn left_out(&self, _network: &dyn Network) -> usize {
        0
    }

    /// One of them.
    fn layer(&self, stage: &BlockStage<'_>, input: &Self::Input, layer: Layer<'_>) -> Result<Done>;
}

/// Goes through the blocks.
pub(super) struct Walker<'a, L> {
    stage: BlockStage<'a>,
    layerwise: L,
    hessians: Hessians,
    made: Vec<(usize, Weight)>,
    seen: Vec<(String, Vec<u32>)>,
}

impl<'a, L: Layerwise> Walker<'a, L> {
    /// With whole sums, or their diagonals.
    pub(super) fn new(stage: BlockStage<'a>, layerwise: L, is_whole: bool) -> Self {
        Self {
            stage,
            layerwise,
            hessians: Hessians::new(is_whole),
            made: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn settle_input(&mut self, seen: Seen, readers: &[String], here: &mut Here<'_>) -> Result<()> {
        let input = of_tensor(&readers[0], self.layerwise.input(&self.stage, seen, readers))?;
        for name in readers {
            if self.stage.observer.should_stop() {
                return Err(Error::cancelled());
            }
            if let Some((at, kind)) = self.stage.step(name) {
                self.settle_layer(&input, (name, at, kind), here)?;
            }
        }
        Ok(())
    }

    fn settle_layer(
        &mut self,
        input: &L::Input,
        (name, at, kind): (&str, usize, Kind),
        here: &mut Here<'_>,
    ) -> Result<()> {
        let weight = here.weights.get(name)?;
        let (rows, cols) = weight.dims2()?;
        let layer = Layer {
            name,
            values: with_values(weight, <[f32]>::to_vec)?,
            rows,
            cols,
            kind,
        };
        let done = self.layerwise.layer(&self.stage, input, layer);
        let (values, weight) = match of_tensor(name, done)? {
            Done::Seen(seen) => {
                self.seen.push((seen_name(at), seen_words(&seen)));
                return Ok(());
            }
            Done::Weight(weight) => (read_all(weight.as_rows())?, Some(weight)),
            Done::Values(values) => (values, None),
        };
        let tensor = Tensor::from_vec(values, (rows, cols), &Device::Cpu)?;
        let weight = if let Some(weight) = weight {
            weight
        } else {
            let transposed = here.network.stored_transposed(name);
            folding::dense(&tensor, &self.stage.tensors[at], transposed)?
        };
        self.made.push((at, weight));
        here.weights.replace(name, &tensor)
    }
}

/// An error that tells of which tensor it is.
fn of_tensor<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|e| Error {
        message: format!("tensor {name}: {}", e.message),
        ..e
    })
}

impl<L: Layerwise> Visitor for Walker<'_, L> {
    /// Sums are those of one cut at a time, also where layers stay as they are.
    fn replaces(&self) -> bool {
        true
    }

    fn meets(&mut self, batch: &Batch, network: &dyn Network) {
        self.hessians.leave_out(self.layerwise.left_out(network), batch);
    }

    fn see(&mut self, _at: usize, cut: &Cut, state: &State) -> Result<()> {
        self.hessians.see(&self.stage, cut, state)
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        for (seen, readers) in self.hessians.take(&self.stage, here.cut) {
            self.settle_input(seen, &readers, here)?;
        }
        Ok(())
    }
}

impl<L: Layerwise> Maker for Walker<'_, L> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }

    fn listed(&mut self) -> Vec<(String, Vec<u32>)> {
        std::mem::take(&mut self.seen)
    }
}
