//! `SparseGPT`: zeros chosen block after block of columns, each made up for by the weights that stay.
//!
//! Owns: its options. Must not know: how the solve works.
//! Invariant: a layer's Hessian is that of its inputs behind the layers already pruned ("true sequential").

use super::hessians::{Hessians, Seen, tell_damping};
use super::layerwise::{Done, Layer, Layerwise, Walker};
use super::options::{Options, Planned};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work, folding, pruning};
use crate::error::Result;
use crate::kernels::gptq::{ActOrder, Curvature};
use crate::kernels::prune::{Refit, Rule, refit, solve};
use crate::network::Sizes;
use crate::plan::{Context, TensorPlan};
use crate::weight::Kind;
use serde_json::{Value, json};

/// The technique.
pub(super) struct SparseGpt;

impl Technique for SparseGpt {
    fn name(&self) -> &'static str {
        "sparsegpt"
    }

    fn summary(&self) -> &'static str {
        "Zeros chosen block after block of columns by what they cost, each made up for by the weights that stay, which are \
         then fitted once more by least squares. Frantar and Alistarh 2023; Meng et al. 2024 for the fit."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/sparsegpt.md")
    }

    fn schema(&self) -> Value {
        pruning::schema(&json!({
            "damp_percent": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.01, "examples": [0.01],
                "description": "Part of the Hessian's mean diagonal that is added to it; raised tenfold, up to five times, where that is not enough."},
            "refit_iterations": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 10, "examples": [10],
                "description": "Steps of conjugate gradients that fit the weights that stay to the layer's outputs, once zeros are chosen; 0 is SparseGPT as published."}}))
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = pruning::layers(context)?;
        let mut decision = pruning::decide(context, &options, &tensors, false)?;
        decision
            .kinds
            .iter_mut()
            .for_each(|(_, kind)| *kind = folding::SCALED);
        Ok(decision)
    }

    fn work(&self) -> Work {
        Work::Blocks(&SparseGpt)
    }

    fn steps(&self, options: &Value) -> Option<Vec<Value>> {
        pruning::steps(options)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

impl Blocks for SparseGpt {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let solver = Solver {
            damp: options.real("damp_percent"),
            iterations: options.number("refit_iterations"),
        };
        Box::new(Walker::new(stage, solver, true))
    }

    /// Gram matrices of a cut's inputs, the f64 matrix that becomes the factor, and the factor; a matrix as it was, as it
    /// is, its marks and errors, and what the fit takes of it; a block's weights as they are made.
    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        let solving = tensors.iter().map(|t| {
            let inputs = t.cols().max(t.rows());
            (inputs * inputs * (4 + 8 + 4) + t.elements() * 32) as u64
        });
        solving.max().unwrap_or(0) + Hessians::bytes(tensors) + folding::block_bytes(tensors)
    }
}

struct Solver {
    damp: f64,
    iterations: usize,
}

impl Layerwise for Solver {
    /// `XᵀX`, and its factor.
    type Input = (Vec<f32>, Curvature);

    fn input(&self, stage: &BlockStage<'_>, seen: Seen, readers: &[String]) -> Result<Self::Input> {
        let stop = || stage.observer.should_stop();
        let tokens = seen.tokens;
        let gram = seen.into_gram();
        let n = gram.len().isqrt();
        let curvature = Curvature::new(&gram, n, self.damp, ActOrder::None, true, &stop)?;
        let by = (&curvature, self.damp);
        tell_damping(
            stage,
            readers,
            by,
            tokens,
            "the smallest |w|·‖x‖ of each row went",
        );
        Ok((gram, curvature))
    }

    fn layer(&self, stage: &BlockStage<'_>, input: &Self::Input, layer: Layer<'_>) -> Result<Done> {
        let stop = || stage.observer.should_stop();
        let (gram, curvature) = input;
        let sparsity = pruning::planned(stage, layer.name)?;
        let rule = Rule {
            pattern: sparsity.pattern,
            share: sparsity.share.unwrap_or_default(),
        };
        let original = layer.values;
        let mut values = solve(original.clone(), curvature, rule, &stop)?.values;
        if self.iterations > 0 && curvature.is_usable() {
            let by = Refit {
                gram,
                n: layer.cols,
                damp_percent: curvature.damp_percent,
                iterations: self.iterations,
            };
            refit(&mut values, &original, &by, &stop)?;
        }
        Ok(Done::Values(values))
    }
}
