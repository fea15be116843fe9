//! LQER: 4-bit weights and a product of low rank that is nearest in what a layer answers.
//!
//! Owns: its options. Must not know: how a matrix is decomposed, file formats.
//! Invariant: of all rounds the best is kept, by the error of the layer's answers.

use super::correction::{self, Matrix};
use super::layerwise::Done;
use super::options::{self, Options, Planned};
use super::whitening::{self, Layer};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work};
use crate::network::Sizes;
use crate::plan::{Context, TensorPlan};
use serde_json::Value;

/// The technique.
pub(super) struct Lqer;

impl Technique for Lqer {
    fn name(&self) -> &'static str {
        "lqer"
    }

    fn summary(&self) -> &'static str {
        "NF4 weights, and beside each matrix an adapter of low rank that makes up for what they lost of the layer's answers on \
         calibration data: the error's decomposition behind a Cholesky factor of the inputs' Gram matrix. Zhang et al. 2024 \
         (LQER, QERA)."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/lqer.md")
    }

    fn schema(&self) -> Value {
        correction::schema(1, &whitening::properties())
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::layers(context)?;
        correction::decide(context, &options, &tensors)
    }

    fn work(&self) -> Work {
        Work::Blocks(&Lqer)
    }
}

impl Blocks for Lqer {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let rounds = options.number("iterations");
        let make = move |layer: &Layer<'_>| {
            let matrix = Matrix {
                values: layer.values,
                rows: layer.rows,
                cols: layer.cols,
                kind: layer.kind,
                rounds,
                whitening: layer.whitening,
                seed: layer.seed,
                stop: layer.stop,
            };
            matrix.corrected().map(Done::Weight)
        };
        whitening::walker(stage, &options, Box::new(make))
    }

    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        // Beside the decomposition the residual, what is quantized, the best so far and codes.
        let most = tensors.iter().map(|t| 20 * t.elements() as u64).max();
        whitening::working_bytes(tensors) + most.unwrap_or(0)
    }
}
