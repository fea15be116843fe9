//! What can be cut out of a network whole: heads, neurons, blocks.
//!
//! Owns: which tensors share such an axis, and under which names a config.json counts them. Must not know: what is cut.
//! Invariant: a tensor that shares an axis is listed with it, or nothing is cut there.

use super::Role;
use crate::plan::TensorPlan;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

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
pub fn feed_forwards(tensors: &[TensorPlan]) -> Vec<FeedForward> {
    let mut parts: BTreeMap<(usize, String), Vec<&TensorPlan>> = BTreeMap::new();
    let is_part = |t: &&TensorPlan| matches!(t.role, Role::FfnGate | Role::FfnUp | Role::FfnDown);
    for tensor in tensors.iter().filter(is_part) {
        let Some(layer) = tensor.layer else { continue };
        parts
            .entry((layer, expert_of(&tensor.name)))
            .or_default()
            .push(tensor);
    }
    let whole = |((layer, _), parts): ((usize, String), Vec<&TensorPlan>)| {
        let of = |role: Role| parts.iter().filter(move |t| t.role == role);
        let (up, down) = (of(Role::FfnUp).count(), of(Role::FfnDown).next()?);
        if up != 1 || of(Role::FfnDown).count() != 1 || of(Role::FfnGate).count() > 1 {
            return None;
        }
        let into = of(Role::FfnGate).chain(of(Role::FfnUp)).map(|t| t.name.clone());
        Some(FeedForward {
            layer,
            into: into.collect(),
            out: down.name.clone(),
            inner: 0,
        })
    };
    parts.into_iter().filter_map(whole).collect()
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
pub fn attentions(tensors: &[TensorPlan]) -> Vec<Attention> {
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
                .push(&tensor.name);
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
