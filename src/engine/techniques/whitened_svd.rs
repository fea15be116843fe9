//! Whitened singular value decomposition: a product of two narrow matrices whose outputs are nearest to a layer's.
//!
//! Owns: its options. Must not know: how it is decomposed.
//! Invariant: a layer's Gram matrix is that of its inputs behind the layers already factored.

use super::hessians::{Hessians, Seen};
use super::options::{self, Options, Planned};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work, factoring, folding};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::factor::whitened::{self, Whitening};
use crate::kernels::factor::{Truncation, svd};
use crate::network::{Cut, Sizes, State, read_all, with_values};
use crate::plan::{Context, TensorPlan};
use crate::weight::{Kind, Weight};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};

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
        factoring::schema(&json!({
            "whitening": {"type": "string", "enum": ["full", "diagonal"], "default": "full", "examples": ["full"],
                "description": "By the whole Gram matrix of a layer's inputs, or by its diagonal alone."},
            "damp_percent": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.01, "examples": [0.01],
                "description": "Part of the Gram matrix' mean diagonal that is added to it; raised tenfold where that is not enough."}}))
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::layers(context)?;
        factoring::decide(context, &options, &tensors)
    }

    fn work(&self) -> Work {
        Work::Blocks(&WhitenedSvd)
    }
}

impl Blocks for WhitenedSvd {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        Box::new(Factorizer {
            stage,
            is_full: options.text("whitening") == "full",
            damp: options.real("damp_percent"),
            hessians: Hessians::new(options.text("whitening") == "full"),
            made: Vec::new(),
        })
    }

    /// Gram matrices of a cut's inputs, the factor of one, a decomposition; a block's factors as they are made.
    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        let one = tensors.iter().map(|t| {
            let (rows, cols) = (t.rows(), t.cols());
            let square = 4 * cols * cols;
            square as u64
                + Whitening::working_bytes(cols)
                + whitened::working_bytes(rows, cols, &svd::Options::default())
                + 16 * (rows * cols) as u64
        });
        one.max().unwrap_or(0) + Hessians::bytes(tensors) + folding::block_bytes(tensors)
    }
}

struct Factorizer<'a> {
    stage: BlockStage<'a>,
    is_full: bool,
    damp: f64,
    hessians: Hessians,
    made: Vec<(usize, Weight)>,
}

impl Factorizer<'_> {
    /// Factors every layer that reads one input.
    fn settle_input(&mut self, seen: Seen, readers: &[String], here: &mut Here<'_>) -> Result<()> {
        let observer = self.stage.observer;
        let stop = || observer.should_stop();
        let named = |name: &str, e: Error| Error {
            message: format!("tensor {name}: {}", e.message),
            ..e
        };
        let whitening = self.whitening(seen, &stop).map_err(|e| named(&readers[0], e))?;
        for name in readers {
            let Some((at, Kind::LowRank { rank, dtype })) = self.stage.step(name) else {
                continue;
            };
            let weight = here.weights.get(name)?;
            let shape = weight.dims().to_vec();
            let values = with_values(weight, <[f32]>::to_vec)?;
            let options = svd::Options {
                seed: self.stage.seed,
                ..svd::Options::default()
            };
            let truncation = Truncation::Rank(rank);
            let factors = whitened::factorize(&values, shape[0], &whitening, truncation, &options, &stop)
                .map_err(|e| named(name, e))?;
            let weight = factoring::weight(factoring::filled(factors, rank), dtype);
            let values = read_all(weight.as_rows())?;
            here.weights
                .replace(name, &Tensor::from_vec(values, shape, &Device::Cpu)?)?;
            self.made.push((at, weight));
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

impl Visitor for Factorizer<'_> {
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

impl Maker for Factorizer<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }
}
