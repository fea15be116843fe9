//! What can be cut out of a network whole: heads, neurons, blocks.
//!
//! Owns: which tensors share such an axis, and under which names a config.json counts them. Must not know: what is cut.
//! Invariant: a tensor that shares an axis is listed with it, or nothing is cut there.

use super::Role;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// A tensor as far as its part goes.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Name.
    pub name: &'a str,
    /// What it is.
    pub role: Role,
    /// Block it belongs to.
    pub layer: Option<usize>,
    /// Shape.
    pub shape: &'a [usize],
}

/// The feed-forward part of a block, or of one of its experts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedForward {
    /// Block.
    pub layer: usize,
    /// Weights whose outputs are the neurons: gate and up.
    pub into: Vec<String>,
    /// The weight that reads them.
    pub out: String,
    /// Neurons.
    pub inner: usize,
}

/// The attention of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Block.
    pub layer: usize,
    /// Query, key, value and output weights.
    pub q: String,
    /// Keys.
    pub k: String,
    /// Values.
    pub v: String,
    /// What reads the mixed values.
    pub o: String,
}

/// Heads of every block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadCounts {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// Names under which families count neurons.
const INNER: [&str; 4] = [
    "moe_intermediate_size",
    "intermediate_size",
    "n_inner",
    "hidden_dim",
];
/// And blocks.
const LAYERS: [&str; 3] = ["num_hidden_layers", "n_layer", "n_layers"];
/// Families whose heads may have any size, so that their number is free.
const FREE_HEADS: [&str; 8] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
];

/// Every feed-forward part whose tensors are all there, by the names that they have in common.
pub fn feed_forwards(tensors: &[Part<'_>]) -> Vec<FeedForward> {
    let mut parts: BTreeMap<(usize, String), Vec<&Part<'_>>> = BTreeMap::new();
    let is_part = |t: &&Part<'_>| matches!(t.role, Role::FfnGate | Role::FfnUp | Role::FfnDown);
    for tensor in tensors.iter().filter(is_part) {
        let Some(layer) = tensor.layer else { continue };
        parts
            .entry((layer, expert_of(tensor.name)))
            .or_default()
            .push(tensor);
    }
    let whole = |((layer, _), parts): ((usize, String), Vec<&Part<'_>>)| {
        let of = |role: Role| parts.iter().filter(move |t| t.role == role);
        let (up, down) = (of(Role::FfnUp).count(), of(Role::FfnDown).next()?);
        if up != 1 || of(Role::FfnDown).count() != 1 || of(Role::FfnGate).count() > 1 {
            return None;
        }
        let into = of(Role::FfnGate)
            .chain(of(Role::FfnUp))
            .map(|t| t.name.to_owned());
        Some(FeedForward {
            layer,
            into: into.collect(),
            out: down.name.to_owned(),
            inner: 0,
        })
    };
    parts.into_iter().filter_map(whole).collect()
}

/// A mixture of experts in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mixture {
    /// Block.
    pub layer: usize,
    /// The router's weight, one row for each expert.
    pub router: String,
    /// Pattern of the names of an expert's gate, up and down, `{}` for its number.
    pub parts: [String; 3],
    /// Experts.
    pub count: usize,
}

/// Every block's mixture of numbered experts.
pub fn mixtures(tensors: &[Part<'_>]) -> Vec<Mixture> {
    let routers = tensors
        .iter()
        .filter(|t| t.role == Role::Router && t.shape.len() == 2 && t.shape[0] > 1);
    let whole = |router: &Part<'_>| {
        let layer = router.layer?;
        let part = |role: Role| {
            let first = tensors
                .iter()
                .find(|t| t.layer == Some(layer) && t.role == role && t.name.contains(".experts.0."));
            first.map(|t| t.name.replacen(".experts.0.", ".experts.{}.", 1))
        };
        let parts = [part(Role::FfnGate)?, part(Role::FfnUp)?, part(Role::FfnDown)?];
        let there = |expert: usize| {
            let name = |pattern: &String| pattern.replace("{}", &expert.to_string());
            parts
                .iter()
                .all(|pattern| tensors.iter().any(|t| t.name == name(pattern)))
        };
        let count = router.shape[0];
        (0..count).all(there).then_some(Mixture {
            layer,
            router: router.name.to_owned(),
            parts,
            count,
        })
    };
    routers.filter_map(whole).collect()
}

/// Experts that a token visits, by the configuration.
pub fn visited(config: &Value) -> Option<usize> {
    count(config, &["num_experts_per_tok"])
}

/// With so many experts.
pub fn with_experts(config: &Value, experts: usize) -> Value {
    with_count(config, &["num_local_experts", "num_experts"], experts)
}

/// The configuration of a dense llama as that of a Mixtral whose experts have `inner` neurons; nothing for other families
/// and for models with biases or sliding windows.
pub fn as_mixtral(config: &Value, experts: usize, visited: usize, inner: usize) -> Option<Value> {
    let family = config.get("model_type")?.as_str()?;
    let is_set = |name: &str| config.get(name).is_some_and(|v| v.as_bool() == Some(true));
    let slides = config.get("sliding_window").is_some_and(|v| !v.is_null());
    if !["llama", "mistral"].contains(&family) || is_set("attention_bias") || is_set("mlp_bias") || slides {
        return None;
    }
    let mut config = config.clone();
    let fields = json!({"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "intermediate_size": inner,
        "num_local_experts": experts, "num_experts_per_tok": visited, "sliding_window": null,
        "router_aux_loss_coef": 0.001, "output_router_logits": false, "router_jitter_noise": 0.0});
    for (name, value) in fields.as_object()? {
        config[name] = value.clone();
    }
    let own = config.as_object_mut()?;
    for name in ["attention_bias", "mlp_bias", "pretraining_tp"] {
        own.remove(name);
    }
    Some(config)
}

/// What tells one expert's tensors of a block from another's; nothing in a dense block.
fn expert_of(name: &str) -> String {
    match name.split_once("expert") {
        Some((_, rest)) => rest
            .rsplit_once('.')
            .map_or(rest, |(module, _)| module)
            .rsplit_once('.')
            .map_or_else(|| rest.to_owned(), |(expert, _)| expert.to_owned()),
        None => String::new(),
    }
}

/// Every block's attention with weights of its own for queries, keys, values and outputs.
pub fn attentions(tensors: &[Part<'_>]) -> Vec<Attention> {
    let mut blocks: BTreeMap<usize, HashMap<Role, Vec<&str>>> = BTreeMap::new();
    for tensor in tensors {
        let is_part = matches!(
            tensor.role,
            Role::AttnQ | Role::AttnK | Role::AttnV | Role::AttnOutput
        );
        if let (true, Some(layer)) = (is_part, tensor.layer) {
            blocks
                .entry(layer)
                .or_default()
                .entry(tensor.role)
                .or_default()
                .push(tensor.name);
        }
    }
    let whole = |(layer, parts): (usize, HashMap<Role, Vec<&str>>)| {
        let one = |role: Role| match parts.get(&role).map(Vec::as_slice) {
            Some([name]) => Some((*name).to_owned()),
            _ => None,
        };
        Some(Attention {
            layer,
            q: one(Role::AttnQ)?,
            k: one(Role::AttnK)?,
            v: one(Role::AttnV)?,
            o: one(Role::AttnOutput)?,
        })
    };
    blocks.into_iter().filter_map(whole).collect()
}

fn count(config: &Value, names: &[&str]) -> Option<usize> {
    let found = names.iter().find_map(|name| config.get(*name)?.as_u64());
    found.and_then(|n| usize::try_from(n).ok())
}

/// The same config.json with another count under the first of these names that it has, or else the last.
fn with_count(config: &Value, names: &[&str], count: usize) -> Value {
    let has = |name: &&&str| config.get(**name).is_some_and(|value| !value.is_null());
    let name = names
        .iter()
        .find(has)
        .or(names.last())
        .copied()
        .unwrap_or_default();
    let mut config = config.clone();
    config[name] = json!(count);
    config
}

/// With so many neurons; nothing where the family counts them under no name that is known.
pub fn with_inner(config: &Value, inner: usize) -> Option<Value> {
    let family = config.get("model_type")?.as_str()?;
    let names: &[&str] = match family {
        "gpt2" => &["n_inner"],
        "distilbert" => &["hidden_dim"],
        _ => &INNER[..2],
    };
    Some(with_count(config, names, inner))
}

/// With so many blocks. Lists that have an entry for each block are cut to as many where all entries are equal; where
/// they are not, nothing is answered.
pub fn with_blocks(config: &Value, blocks: usize) -> Option<Value> {
    let before = count(config, &LAYERS)?;
    let mut config = with_count(config, &LAYERS, blocks);
    for value in config.as_object_mut()?.values_mut() {
        let Some(list) = value.as_array_mut().filter(|list| list.len() == before) else {
            continue;
        };
        if list.iter().any(|entry| Some(entry) != list.first()) {
            return None;
        }
        list.truncate(blocks);
    }
    Some(config)
}

/// Heads by the configuration, where they may be as many as one likes.
pub fn head_counts(config: &Value) -> Option<HeadCounts> {
    let family = config.get("model_type")?.as_str()?;
    if !FREE_HEADS.contains(&family) {
        return None;
    }
    let heads = count(config, &["num_attention_heads"])?;
    let hidden = count(config, &["hidden_size"])?;
    Some(HeadCounts {
        heads,
        kv_heads: count(config, &["num_key_value_heads"]).unwrap_or(heads),
        head_dim: count(config, &["head_dim"]).unwrap_or(hidden / heads.max(1)),
    })
}

/// With these heads.
pub fn with_heads(config: &Value, counts: HeadCounts) -> Value {
    let mut config = config.clone();
    config["num_attention_heads"] = json!(counts.heads);
    config["num_key_value_heads"] = json!(counts.kv_heads);
    config["head_dim"] = json!(counts.head_dim);
    config
}

/// Channels of the residual stream by the configuration, where heads do not depend on how many there are.
pub fn width(config: &Value) -> Option<usize> {
    head_counts(config)?;
    count(config, &["hidden_size"])
}

/// With so many channels, heads as they are.
pub fn with_width(config: &Value, channels: usize) -> Option<Value> {
    let mut config = with_heads(config, head_counts(config)?);
    config["hidden_size"] = json!(channels);
    Some(config)
}

/// Where a tensor of a family with free heads has the channels of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Not at all.
    Nowhere,
    /// One for each of its values, or of its outputs.
    Outputs,
    /// One for each of its inputs, or of an embedding's values.
    Inputs,
}

/// Where a tensor has channels; `of_bias` is the role of the weight that a bias belongs to. Nothing where that is unknown.
pub fn channels(part: &Part<'_>, of_bias: Option<Role>) -> Option<Channels> {
    let is_of_heads = |name: &str| name.contains("q_norm") || name.contains("k_norm");
    Some(match part.role {
        Role::TokenEmbedding
        | Role::Output
        | Role::AttnQ
        | Role::AttnK
        | Role::AttnV
        | Role::AttnQkv
        | Role::FfnGate
        | Role::FfnUp
        | Role::Router => Channels::Inputs,
        Role::Norm if is_of_heads(part.name) => Channels::Nowhere,
        Role::AttnOutput | Role::FfnDown | Role::Norm => Channels::Outputs,
        Role::Bias => match of_bias? {
            Role::AttnOutput | Role::FfnDown | Role::Norm => Channels::Outputs,
            _ => Channels::Nowhere,
        },
        // Frequencies of rotary embeddings.
        Role::Other if part.shape.len() < 2 => Channels::Nowhere,
        Role::Linear | Role::Convolution | Role::PositionEmbedding | Role::Other => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_blocks_are_cut_where_their_entries_are_equal() {
        let config = json!({"num_hidden_layers": 3, "layer_types": ["full", "full", "full"], "eos": [1, 2]});
        let cut = with_blocks(&config, 2).unwrap();
        assert_eq!(cut["layer_types"], json!(["full", "full"]));
        assert_eq!(
            (&cut["num_hidden_layers"], &cut["eos"]),
            (&json!(2), &json!([1, 2]))
        );
        let mixed = json!({"num_hidden_layers": 2, "layer_types": ["full", "sliding"]});
        assert_eq!(with_blocks(&mixed, 1), None);
    }

    #[test]
    fn experts_are_told_apart() {
        assert_eq!(expert_of("model.layers.0.mlp.up_proj.weight"), "");
        assert_eq!(
            expert_of("model.layers.0.block_sparse_moe.experts.3.w1.weight"),
            "s.3"
        );
        assert_eq!(expert_of("model.layers.0.mlp.experts.11.up_proj.weight"), "s.11");
        assert_eq!(expert_of("model.layers.0.mlp.shared_expert.up_proj.weight"), "");
    }

    #[test]
    fn neurons_are_counted_under_the_familys_name() {
        let llama = json!({"model_type": "llama", "intermediate_size": 8});
        assert_eq!(with_inner(&llama, 4).unwrap()["intermediate_size"], 4);
        let gpt2 = json!({"model_type": "gpt2", "n_inner": null});
        assert_eq!(with_inner(&gpt2, 4).unwrap()["n_inner"], 4);
    }
}
