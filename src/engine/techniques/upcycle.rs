//! Sparse upcycling: a dense model as a mixture of experts, each a copy of its feed-forward layers.
//!
//! Owns: its options, names of a mixture's tensors. Must not know: training.
//! Invariant: without noise the mixture computes what the dense model did: experts are equal and shares add up to one.

use super::options::{self, Options, Planned};
use super::structure;
use super::{Blocks, Decision, Old, Reshapes, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::random::Random;
use crate::models::structure::{FeedForward, as_mixtral, feed_forwards};
use crate::plan::{Context, Origin, Outline, OutlinedTensor, StagePlan, TensorPlan};
use crate::recipe::Refusal;
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
            outline: Some(Outline { config, tensors }),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Reshapes(&Upcycle)
    }

    fn keeps_zeros(&self, _kind: &crate::weight::Kind) -> bool {
        true
    }
}

/// Refuses more visits than experts.
pub(super) fn check_visited(context: &Context<'_>, experts: usize, visited: usize) -> Planned<()> {
    if visited <= experts {
        return Ok(());
    }
    let detail = format!("a token cannot visit {visited} of {experts} experts");
    let pointer = options::pointer(context, "num_experts_per_tok");
    Err(vec![Refusal::new(pointer, "conflicting_options", detail)])
}

/// What only a llama can become.
pub(super) fn not_a_llama(context: &Context<'_>) -> Vec<Refusal> {
    let detail = "a Mixtral is a llama with experts: only dense llama and mistral models without biases and sliding windows \
                  become one";
    vec![Refusal::new(
        context.technique_pointer(),
        "no_such_structure",
        detail,
    )]
}

/// The feed-forward layers of a dense model, all alike.
pub(super) fn dense_feeds(context: &Context<'_>) -> Planned<Vec<FeedForward>> {
    let mut feeds = feed_forwards(context.tensors);
    for feed in &mut feeds {
        let out = context.tensors.iter().find(|t| t.name == feed.out);
        feed.inner = out.map_or(0, TensorPlan::cols);
    }
    let gated = |feed: &FeedForward| feed.into.len() == 2 && feed.inner == feeds[0].inner;
    let has_bias = context.tensors.iter().any(|t| t.name.ends_with(".bias"));
    if feeds.is_empty() || has_bias || !feeds.iter().all(gated) {
        return Err(not_a_llama(context));
    }
    structure::check_plain(
        context,
        feeds
            .iter()
            .flat_map(|f| f.into.iter().chain([&f.out]))
            .map(String::as_str),
    )?;
    Ok(feeds)
}

/// Every tensor of the mixture: experts with `inner` neurons, whose values come from where `origin` says, given the
/// expert's number and the dense tensor, and routers that are made.
pub(super) fn outlined(
    context: &Context<'_>,
    feeds: &[FeedForward],
    experts: usize,
    inner: usize,
    origin: &dyn Fn(usize, &OutlinedTensor) -> Origin,
) -> Vec<OutlinedTensor> {
    let mut tensors = Vec::new();
    for tensor in context.tensors {
        let own = feeds
            .iter()
            .find_map(|feed| part_of(feed, &tensor.name).map(|part| (feed, part)));
        let Some((feed, part)) = own else {
            tensors.push(structure::whole(tensor));
            continue;
        };
        let (moe, dense) = (moe_of(&feed.out), structure::whole(tensor));
        for expert in 0..experts {
            let mut made = OutlinedTensor {
                name: format!("{moe}.experts.{expert}.{part}.weight"),
                origin: origin(expert, &dense),
                ..dense.clone()
            };
            made.shape[usize::from(part == "w2")] = inner;
            tensors.push(made);
        }
        if part == "w2" {
            let hidden = tensor.rows();
            tensors.push(OutlinedTensor {
                name: format!("{moe}.gate.weight"),
                shape: vec![experts, hidden],
                dtype: dense.dtype,
                origin: Origin::Made,
            });
        }
    }
    tensors
}

/// What Mixtral calls a part of a feed-forward layer.
fn part_of(feed: &FeedForward, name: &str) -> Option<&'static str> {
    let parts = feed.into.iter().chain([&feed.out]).zip(["w1", "w3", "w2"]);
    parts
        .into_iter()
        .find(|(part, _)| *part == name)
        .map(|(_, part)| part)
}

/// The mixture's module by the name of a dense layer's output: `model.layers.0.block_sparse_moe`.
fn moe_of(out: &str) -> String {
    let block = out.split(".mlp.").next().unwrap_or(out);
    format!("{block}.block_sparse_moe")
}

/// Normal numbers, of a stream for each tensor.
pub(super) fn normal(seed: u64, name: &str, count: usize) -> Vec<f32> {
    let mix = name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut random = Random::new(mix);
    // Box and Muller 1958.
    let one = |random: &mut Random| {
        let (u, v) = (1.0 - random.share(), random.share());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    };
    (0..count).map(|_| one(&mut random)).collect()
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
        values.iter_mut().for_each(|v| *v *= std);
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
