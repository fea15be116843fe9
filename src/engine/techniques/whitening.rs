//! What techniques share that make each layer's weight behind a factor of its inputs' Gram matrix.
//!
//! Owns: their options, the way through a block. Must not know: what is made of a weight.
//! Invariant: a layer's Gram matrix is that of its inputs behind the layers already made.

use super::hessians::{Hessians, Seen};
use super::options::Options;
use super::{BlockStage, Maker, folding, seen_name, seen_words};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::factor::svd;
use crate::kernels::factor::whitened::{Whitening, working_bytes as svd_bytes};
use crate::network::{Cut, State, read_all, with_values};
use crate::plan::TensorPlan;
use crate::weight::{Kind, Weight};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};

/// Their properties in a schema.
pub(super) fn properties() -> Value {
    json!({
        "whitening": {"type": "string", "enum": ["full", "diagonal"], "default": "full", "examples": ["full"],
            "description": "By the whole Gram matrix of a layer's inputs, or by its diagonal alone."},
        "damp_percent": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.01, "examples": [0.01],
            "description": "Part of the Gram matrix' mean diagonal that is added to it; raised tenfold where that is not enough."}})
}

/// Gram matrices of a cut's inputs, the factor of one, a decomposition; a block's weights as they are made.
pub(super) fn working_bytes(tensors: &[&TensorPlan]) -> u64 {
    let one = tensors.iter().map(|t| {
        let (rows, cols) = (t.rows(), t.cols());
        let square = 4 * cols * cols;
        square as u64
            + Whitening::working_bytes(cols)
            + svd_bytes(rows, cols, &svd::Options::default())
            + 16 * (rows * cols) as u64
    });
    one.max().unwrap_or(0) + Hessians::bytes(tensors) + folding::block_bytes(tensors)
}

/// A layer whose weight is to be made.
pub(super) struct Layer<'a> {
    /// `[rows, cols]`.
    pub values: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    /// What the weight becomes.
    pub kind: Kind,
    /// How errors in its columns count.
    pub whitening: &'a Whitening,
    /// Seed of everything random.
    pub seed: u64,
    /// True once nobody waits for it any more.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// What is done with one layer.
pub(super) type Act<'a, T> = Box<dyn Fn(&Layer<'_>) -> Result<T> + 'a>;

/// What is done with each.
pub(super) enum Do<'a> {
    /// Its weight is made; the layers behind it see what it answers then.
    Make(Act<'a, Weight>),
    /// It is looked at, and stays as it is.
    Look(Act<'a, Vec<f64>>),
}

/// Makes the weights of a stage.
pub(super) struct Whitener<'a> {
    stage: BlockStage<'a>,
    is_full: bool,
    damp: f64,
    hessians: Hessians,
    act: Do<'a>,
    made: Vec<(usize, Weight)>,
    seen: Vec<(String, Vec<u32>)>,
}

impl<'a> Whitener<'a> {
    /// By the stage's options, which have those properties.
    pub(super) fn new(stage: BlockStage<'a>, options: &Options<'_>, act: Do<'a>) -> Self {
        let is_full = options.text("whitening") == "full";
        Self {
            stage,
            is_full,
            damp: options.real("damp_percent"),
            hessians: Hessians::new(is_full),
            act,
            made: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Makes every layer that reads one input.
    fn settle_input(&mut self, seen: Seen, readers: &[String], here: &mut Here<'_>) -> Result<()> {
        let observer = self.stage.observer;
        let stop = || observer.should_stop();
        let named = |name: &str, e: Error| Error {
            message: format!("tensor {name}: {}", e.message),
            ..e
        };
        let whitening = self.whitening(seen, &stop).map_err(|e| named(&readers[0], e))?;
        for name in readers {
            let Some((at, kind)) = self.stage.step(name) else {
                continue;
            };
            let weight = here.weights.get(name)?;
            let shape = weight.dims().to_vec();
            let values = with_values(weight, <[f32]>::to_vec)?;
            let layer = Layer {
                values: &values,
                rows: shape[0],
                cols: whitening.inputs(),
                kind,
                whitening: &whitening,
                seed: self.stage.seed,
                stop: &stop,
            };
            match &self.act {
                Do::Make(make) => {
                    let weight = make(&layer).map_err(|e| named(name, e))?;
                    let values = read_all(weight.as_rows())?;
                    here.weights
                        .replace(name, &Tensor::from_vec(values, shape, &Device::Cpu)?)?;
                    self.made.push((at, weight));
                }
                Do::Look(look) => {
                    let seen = look(&layer).map_err(|e| named(name, e))?;
                    self.seen.push((seen_name(at), seen_words(&seen)));
                }
            }
        }
        Ok(())
    }

    fn whitening(&self, seen: Seen, stop: &(dyn Fn() -> bool + Sync)) -> Result<Whitening> {
        if self.is_full {
            let gram = seen.into_gram();
            let n = gram.len().isqrt();
            return Whitening::gram(&gram, n, self.damp, stop);
        }
        let (norms, _) = seen.into_norms();
        let moments: Vec<f32> = norms.iter().map(|norm| norm * norm).collect();
        Whitening::diagonal(&moments, 1.0, self.damp)
    }
}

impl Visitor for Whitener<'_> {
    /// Sums are those of one cut at a time, whatever is done with its layers.
    fn replaces(&self) -> bool {
        true
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

impl Maker for Whitener<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }

    fn listed(&mut self) -> Vec<(String, Vec<u32>)> {
        std::mem::take(&mut self.seen)
    }
}
