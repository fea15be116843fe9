//! Whitened singular value decomposition: a product of two narrow matrices whose outputs are nearest to a layer's.
//!
//! Owns: its options. Must not know: how it is decomposed.
//! Invariant: a layer's Gram matrix is that of its inputs behind the layers already factored.

use super::layerwise::Done;
use super::options::{self, Options, Planned};
use super::whitening::{self, Layer};
use super::{BlockStage, Blocks, Decision, Look, Maker, Settles, Technique, Work, factoring};
use crate::error::{Error, Result};
use crate::kernels::factor::{Truncation, svd, whitened};
use crate::network::Sizes;
use crate::plan::{Context, TensorPlan};
use crate::tensor::MemoryRows;
use crate::weight::{Kind, Weight};
use serde_json::Value;

/// The technique.
pub(super) struct WhitenedSvd;

impl Technique for WhitenedSvd {
    fn name(&self) -> &'static str {
        "whitened_svd"
    }

    fn summary(&self) -> &'static str {
        "Truncated singular value decomposition of what a layer answers on calibration data: each matrix as a product of two \
         narrow ones, behind a Cholesky factor of its inputs' Gram matrix. Chen et al. 2021 (DRONE); Yuan et al. 2023 (ASVD); \
         Wang et al. 2024 (SVD-LLM)."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/whitened_svd.md")
    }

    fn schema(&self) -> Value {
        factoring::schema(&whitening::properties())
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::layers(context)?;
        factoring::decide(context, &options, &tensors)
    }

    fn work(&self) -> Work {
        Work::Blocks(&WhitenedSvd)
    }

    fn keeps_zeros(&self, kind: &Kind) -> bool {
        !kind.is_compressed()
    }

    fn settles(&self) -> Option<&'static dyn Settles> {
        Some(&WhitenedSvd)
    }
}

impl Settles for WhitenedSvd {
    fn looks(&self) -> Look {
        Look::Blocks(&Scout)
    }

    fn settle(&self, options: &Value, seen: &[(&TensorPlan, Vec<f64>)]) -> Result<Value> {
        factoring::settle(options, &Options::of(options, self.schema()), seen)
    }
}

/// The walk that looks at what every rank would lose of the layers' answers; the model stays as it is.
struct Scout;

impl Blocks for Scout {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, WhitenedSvd.schema());
        whitening::walker(stage, &options, Box::new(losses))
    }

    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        whitening::working_bytes(tensors)
    }
}

fn losses(layer: &Layer<'_>) -> Result<Done> {
    if !factoring::is_open(layer.kind, layer.rows, layer.cols) {
        return Ok(Done::Seen(Vec::new()));
    }
    let options = svd::Options {
        seed: layer.seed,
        ..svd::Options::default()
    };
    let found = whitened::decompose(layer.values, layer.rows, layer.whitening, &options, layer.stop)?;
    Ok(Done::Seen(found.losses()))
}

impl Blocks for WhitenedSvd {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        whitening::walker(
            stage,
            &options,
            Box::new(|layer| Ok(Done::Weight(factored(layer)?))),
        )
    }

    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        whitening::working_bytes(tensors)
    }
}

fn factored(layer: &Layer<'_>) -> Result<Weight> {
    let (rank, dtype) = match layer.kind {
        Kind::LowRank { rank, dtype } => (rank, dtype),
        Kind::Dense { dtype } => {
            let (values, cols) = (layer.values, layer.cols);
            return factoring::whole(&MemoryRows { values, cols }, dtype);
        }
        other => {
            let planned = other.label();
            return Err(Error::internal(format!("whitened_svd was planned as {planned}")));
        }
    };
    let options = svd::Options {
        seed: layer.seed,
        ..svd::Options::default()
    };
    let truncation = Truncation::Rank(rank);
    let factors = whitened::factorize(
        layer.values,
        layer.rows,
        layer.whitening,
        truncation,
        &options,
        layer.stop,
    )?;
    Ok(Weight::LowRank(factoring::weight(factors, rank, dtype)))
}
