//! What the techniques that make mixtures of dense models share.
//!
//! Owns: names of a mixture's tensors, which models can become one. Must not know: where experts come from.
//! Invariant: a mixture that is outlined is a Mixtral.

use super::options::{self, Planned};
use super::structure;
use crate::kernels::random::Random;
use crate::models::structure::{FeedForward, feed_forwards};
use crate::plan::{Context, Origin, OutlinedTensor, TensorPlan};
use crate::recipe::Refusal;

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
    let mut feeds = feed_forwards(&structure::parts(context.tensors));
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
