//! Wanda: in each row the weights of least `|w|·‖x‖` become zeros.
//!
//! Owns: its options and its score. Must not know: how the smallest are found.
//! Invariant: a layer's inputs are those behind the layers already pruned; without a fit, what stays is what it was.

use super::hessians::{Hessians, Seen};
use super::layerwise::{Done, Layer, Layerwise, Walker};
use super::options::{Options, Planned};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work, folding, pruning};
use crate::error::{Error, Result};
use crate::kernels::linalg::Precision;
use crate::kernels::prune::{self, Refit, refit};
use crate::network::{HeadKind, Network, Sizes};
use crate::plan::{Context, TensorPlan};
use crate::weight::{Kind, Pattern};
use serde_json::{Value, json};

/// The technique.
pub(super) struct Wanda;

impl Technique for Wanda {
    fn name(&self) -> &'static str {
        "wanda"
    }

    fn summary(&self) -> &'static str {
        "In each output row the weights of least |w|·‖x‖ become zeros, by the norms of the inputs that calibration data \
         brings. Sun et al. 2023."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/wanda.md")
    }

    fn schema(&self) -> Value {
        pruning::schema(&json!({
            "sink_tokens": {"type": "integer", "minimum": 0, "maximum": 1024, "examples": [0],
                "description": "Tokens at the beginning of each sequence whose inputs are left out of the norms. By default 1 where the model predicts the next token, since it makes an attention sink of the first one, with inputs hundreds of times as large as the others'; 0 elsewhere. 0 is as published."},
            "refit_iterations": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 0, "examples": [0],
                "description": "Steps of conjugate gradients that fit the weights that stay to the layer's outputs, once zeros are chosen; 0 leaves them as they are, as published."},
            "damp_percent": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.01, "examples": [0.01],
                "description": "Part of the Hessian's mean diagonal that is added to it in that fit."}}))
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
        Work::Blocks(&Wanda)
    }

    fn steps(&self, options: &Value) -> Option<Vec<Value>> {
        pruning::steps(options)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

impl Blocks for Wanda {
    /// Norms are sums over all tokens, in which what bf16 rounds away evens out; Gram matrices of a fit are not.
    fn precision(&self, options: &Value) -> Precision {
        if Options::of(options, self.schema()).number("refit_iterations") > 0 {
            Precision::Split
        } else {
            Precision::Bf16
        }
    }

    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let iterations = options.number("refit_iterations");
        let pruner = Pruner {
            sink_tokens: options.maybe_number("sink_tokens"),
            damp: options.real("damp_percent"),
            iterations,
        };
        Box::new(Walker::new(stage, pruner, iterations > 0))
    }

    /// What is known of a cut's inputs; a matrix as it was and as it is, and what a fit takes; a block's weights as they
    /// are made.
    fn working_bytes(&self, options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        let fits = Options::of(options, self.schema()).number("refit_iterations") > 0;
        let one = tensors.iter().map(|t| {
            let inputs = t.cols().max(t.rows());
            (if fits {
                inputs * inputs * 4 + t.elements() * 28
            } else {
                t.elements() * 12
            }) as u64
        });
        let seen = if fits { Hessians::bytes(tensors) } else { 0 };
        one.max().unwrap_or(0) + seen + folding::block_bytes(tensors)
    }
}

struct Pruner {
    sink_tokens: Option<usize>,
    damp: f64,
    iterations: usize,
}

impl Layerwise for Pruner {
    /// Norms of the inputs, and `XᵀX` where weights are fitted.
    type Input = (Vec<f32>, Option<Vec<f32>>);

    fn input(&self, _: &BlockStage<'_>, seen: Seen, _: &[String]) -> Result<Self::Input> {
        let input = seen.into_norms();
        if input.0.iter().any(|x| !x.is_finite()) {
            let detail = "the squares of its inputs add up to more than a number holds";
            return Err(Error::numeric("activations_overflow", detail));
        }
        Ok(input)
    }

    fn left_out(&self, network: &dyn Network) -> usize {
        let has_sink = network.head_kind() == HeadKind::NextToken;
        self.sink_tokens.unwrap_or(usize::from(has_sink))
    }

    fn layer(&self, stage: &BlockStage<'_>, (norms, gram): &Self::Input, layer: Layer<'_>) -> Result<Done> {
        let sparsity = pruning::planned(stage, layer.name)?;
        let (mut values, n) = (layer.values, layer.cols);
        crate::kernels::check_finite(&values, 0)?;
        let original = gram.as_ref().map(|_| values.clone());
        let score = |at: usize, w: f32| w.abs() * norms[at % n];
        match sparsity.pattern {
            Pattern::NOfM { keep, of } => prune::n_of_m(&mut values, n, (keep, of), &score),
            Pattern::Unstructured => {
                let count = prune::count(n, sparsity.share.unwrap_or_default());
                prune::rows(&mut values, n, count, &score);
            }
        }
        if let (Some(gram), Some(original)) = (gram, original) {
            let by = Refit {
                gram,
                n,
                damp_percent: self.damp,
                iterations: self.iterations,
            };
            refit(&mut values, &original, &by, &|| stage.observer.should_stop())?;
        }
        Ok(Done::Values(values))
    }
}
