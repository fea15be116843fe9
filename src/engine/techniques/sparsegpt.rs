//! `SparseGPT`: zeros chosen block after block of columns, each made up for by the weights that stay.
//!
//! Owns: its options. Must not know: how the solve works.
//! Invariant: a layer's Hessian is that of its inputs behind the layers already pruned ("true sequential").

use super::hessians::{Hessians, Seen, tell_damping};
use super::options::{Options, Planned};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work, folding, pruning};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::gptq::{ActOrder, Curvature};
use crate::kernels::prune::{Refit, Rule, refit, solve};
use crate::network::{Cut, Sizes, State, with_values};
use crate::plan::{Context, TensorPlan};
use crate::weight::{Kind, Weight};
use candle_core::{Device, Tensor};
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
        Box::new(Solver {
            stage,
            damp: options.real("damp_percent"),
            iterations: options.number("refit_iterations"),
            hessians: Hessians::new(true),
            made: Vec::new(),
        })
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

struct Solver<'a> {
    stage: BlockStage<'a>,
    damp: f64,
    iterations: usize,
    hessians: Hessians,
    made: Vec<(usize, Weight)>,
}

impl Solver<'_> {
    /// Prunes every layer that reads one input.
    fn settle_input(&mut self, seen: Seen, readers: &[String], here: &mut Here<'_>) -> Result<()> {
        let observer = self.stage.observer;
        let stop = || observer.should_stop();
        let n = here.weights.get(&readers[0])?.dim(1)?;
        let tokens = seen.tokens;
        let gram = seen.into_gram();
        let named = |name: &str, e: Error| Error {
            message: format!("tensor {name}: {}", e.message),
            ..e
        };
        let curvature = Curvature::new(&gram, n, self.damp, ActOrder::None, true, &stop)
            .map_err(|e| named(&readers[0], e))?;
        tell_damping(
            &self.stage,
            readers,
            (&curvature, self.damp),
            tokens,
            "the smallest |w|·‖x‖ of each row went",
        );
        for name in readers {
            let (Some((at, _)), Some(sparsity)) = (self.stage.step(name), self.stage.sparsity(name)) else {
                continue;
            };
            let weight = here.weights.get(name)?;
            let shape = weight.dims().to_vec();
            let original = with_values(weight, <[f32]>::to_vec)?;
            let rule = Rule {
                pattern: sparsity.pattern,
                share: sparsity.share.unwrap_or_default(),
            };
            let pruned = solve(original.clone(), &curvature, rule, &stop).map_err(|e| named(name, e))?;
            let mut values = pruned.values;
            if self.iterations > 0 && curvature.is_usable() {
                let by = Refit {
                    gram: &gram,
                    n,
                    damp_percent: curvature.damp_percent,
                    iterations: self.iterations,
                };
                refit(&mut values, &original, &by, &stop)?;
            }
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
            here.weights.replace(name, &tensor)?;
            let transposed = here.network.stored_transposed(name);
            self.made
                .push((at, folding::dense(&tensor, &self.stage.tensors[at], transposed)?));
        }
        Ok(())
    }
}

impl Visitor for Solver<'_> {
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

impl Maker for Solver<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }
}
