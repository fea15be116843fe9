//! What techniques share that make each layer's weight behind a factor of its inputs' Gram matrix.
//!
//! Owns: their options, the factor. Must not know: what is made of a weight.
//! Invariant: a layer's Gram matrix is that of its inputs behind the layers already made.

use super::hessians::{Hessians, Seen};
use super::layerwise::{self, Done, Layerwise, Walker};
use super::options::Options;
use super::{BlockStage, Maker, folding};
use crate::error::Result;
use crate::kernels::factor::svd;
use crate::kernels::factor::whitened::{Whitening, working_bytes as svd_bytes};
use crate::plan::TensorPlan;
use crate::weight::Kind;
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
pub(super) type Act<'a> = Box<dyn Fn(&Layer<'_>) -> Result<Done> + 'a>;

/// Does it with each.
struct Whitener<'a> {
    is_full: bool,
    damp: f64,
    act: Act<'a>,
}

/// The way through the blocks, by the stage's options, which have those properties.
pub(super) fn walker<'a>(stage: BlockStage<'a>, options: &Options<'_>, act: Act<'a>) -> Box<dyn Maker + 'a> {
    let is_full = options.text("whitening") == "full";
    let whitener = Whitener {
        is_full,
        damp: options.real("damp_percent"),
        act,
    };
    Box::new(Walker::new(stage, whitener, is_full))
}

impl Layerwise for Whitener<'_> {
    type Input = Whitening;

    fn input(&self, stage: &BlockStage<'_>, seen: Seen, _: &[String]) -> Result<Whitening> {
        if self.is_full {
            let gram = seen.into_gram();
            let n = gram.len().isqrt();
            return Whitening::gram(&gram, n, self.damp, &|| stage.observer.should_stop());
        }
        let (norms, _) = seen.into_norms();
        let moments: Vec<f32> = norms.iter().map(|norm| norm * norm).collect();
        Whitening::diagonal(&moments, 1.0, self.damp)
    }

    fn layer(
        &self,
        stage: &BlockStage<'_>,
        whitening: &Whitening,
        layer: layerwise::Layer<'_>,
    ) -> Result<Done> {
        (self.act)(&Layer {
            values: &layer.values,
            rows: layer.rows,
            cols: layer.cols,
            kind: layer.kind,
            whitening,
            seed: stage.seed,
            stop: &|| stage.observer.should_stop(),
        })
    }
}
