//! Sparse upcycling: a dense model as a mixture of experts, each a copy of its feed-forward layers.
//!
//! Owns: its options, names of a mixture's tensors. Must not know: training.
//! Invariant: without noise the mixture computes what the dense model did: experts are equal and shares add up to one.

use super::mixture::{check_visited, dense_feeds, normal, not_a_llama, outlined};
use super::options::{Options, Planned};
use super::structure;
use super::{Blocks, Decision, Old, Reshapes, Technique, Work};
use crate::error::{Error, Result};
use crate::models::structure::as_mixtral;
use crate::plan::{Context, Outline, OutlinedTensor, StagePlan};
use serde_json::{Value, json};

/// The technique.
pub(super) struct Upcycle;

impl Technique for Upcycle {
    fn name(&self) -> &'static str {
        "upcycle"
    }

    fn summary(&self) -> &'static str {
        "Sparse upcycling: a dense llama becomes a Mixtral whose experts begin as copies of its feed-forward layers, to be \
         trained on. Larger, not smaller: a start for what follows. Komatsuzaki et al. 2022."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/upcycle.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "num_experts": {"type": "integer", "minimum": 2, "maximum": 256, "default": 8, "examples": [8],
                "description": "Experts in each block."},
            "num_experts_per_tok": {"type": "integer", "minimum": 1, "maximum": 256, "default": 2, "examples": [2],
                "description": "Experts that a token visits."},
            "router_std": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.02, "examples": [0.02],
                "description": "Standard deviation of the routers' first weights."},
            "noise": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.0, "examples": [0.01],
                "description": "Standard deviation of noise on the experts' weights, as a part of theirs, so that they differ from the beginning; 0 computes what the dense model did."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let (experts, visited) = (
            options.number("num_experts"),
            options.number("num_experts_per_tok"),
        );
        let config = structure::config(context)?;
        let feeds = dense_feeds(context)?;
        check_visited(context, experts, visited)?;
        let inner = feeds[0].inner;
        let config = as_mixtral(config, experts, visited, inner).ok_or_else(|| not_a_llama(context))?;
        let tensors = outlined(context, &feeds, experts, inner, &|_, tensor| {
            tensor.origin.clone()
        });
        Ok(Decision {
            outline: Some(Outline {
                config,
                tensors,
                shared: None,
            }),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Reshapes(&Upcycle)
    }
}

impl Reshapes for Upcycle {
    fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        None
    }

    fn make(&self, stage: &StagePlan, tensor: &OutlinedTensor, old: &Old<'_>) -> Result<Vec<f32>> {
        let options = Options::of(&stage.options, self.schema());
        if !tensor.name.ends_with(".gate.weight") {
            return Err(Error::internal(format!("nothing makes {}", tensor.name)));
        }
        let std = options.real("router_std") as f32;
        let mut values = normal(old.seed, &tensor.name, tensor.shape.iter().product());
        for value in &mut values {
            *value *= std;
        }
        Ok(values)
    }

    fn finish(&self, stage: &StagePlan, tensor: &OutlinedTensor, values: &mut [f32], old: &Old<'_>) {
        let noise = Options::of(&stage.options, self.schema()).real("noise") as f32;
        if noise == 0.0 || !tensor.name.contains(".experts.") {
            return;
        }
        let square: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        let size = noise * (square / values.len().max(1) as f64).sqrt() as f32;
        let drawn = normal(old.seed, &tensor.name, values.len());
        values.iter_mut().zip(drawn).for_each(|(v, n)| *v += size * n);
    }

    fn finishes(&self, stage: &StagePlan) -> bool {
        Options::of(&stage.options, self.schema()).real("noise") > 0.0
    }
}
