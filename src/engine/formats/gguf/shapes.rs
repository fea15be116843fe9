//! Owns: that config.json and the tensors speak of the same network.
//!
//! Must not know: where either comes from. Invariant: what passes has as many blocks, tokens and columns as its
//! configuration says, so that nothing made of the configuration is larger than the model.

use std::collections::BTreeSet;

use super::metadata::ModelConfig;
use crate::error::{Error, Result};

/// A tensor of the checkpoint: its name there, its GGUF name, its shape.
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) gguf: &'a str,
    pub(super) shape: &'a [usize],
}

/// Compares every tensor that llama.cpp knows with what it will expect there.
pub(super) fn check<'a>(config: &ModelConfig, tensors: impl IntoIterator<Item = Found<'a>>) -> Result<()> {
    let mut blocks = BTreeSet::new();
    let mut embedding = false;
    for Found { name, gguf, shape } in tensors {
        let part = match gguf.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((block, part)) => {
                blocks.extend(block.parse::<u32>());
                part
            }
            None => gguf,
        };
        embedding |= part == "token_embd.weight";
        let expected = expected(config, part);
        let same = |want: &Vec<u64>| want.iter().copied().eq(shape.iter().map(|d| *d as u64));
        if let Some(want) = expected.filter(|want| !same(want)) {
            return mismatch(format!("{name} is {shape:?}, config.json makes it {want:?}"));
        }
    }
    if !embedding {
        return mismatch("there is no token embedding (model.embed_tokens.weight)".into());
    }
    let found = blocks.len();
    if found as u64 != u64::from(config.blocks) || blocks.last().is_some_and(|last| *last >= config.blocks) {
        let said = config.blocks;
        return mismatch(format!(
            "config.json says num_hidden_layers = {said}, the tensors have {found}"
        ));
    }
    Ok(())
}

fn mismatch(what: String) -> Result<()> {
    Err(Error::bad_input("shape_mismatch", what))
}

fn expected(config: &ModelConfig, part: &str) -> Option<Vec<u64>> {
    let [hidden, feed_forward, vocab, heads, kv_heads, head_dim] = [
        config.hidden,
        config.feed_forward,
        config.vocab,
        config.heads,
        config.kv_heads,
        config.head_dim,
    ]
    .map(u64::from);
    let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
    Some(match part {
        "token_embd.weight" | "output.weight" => vec![vocab, hidden],
        "output_norm.weight" | "attn_norm.weight" | "ffn_norm.weight" | "attn_output.bias" => vec![hidden],
        "attn_q.weight" => vec![queries, hidden],
        "attn_k.weight" | "attn_v.weight" => vec![keys, hidden],
        "attn_output.weight" => vec![hidden, queries],
        "attn_q.bias" => vec![queries],
        "attn_k.bias" | "attn_v.bias" => vec![keys],
        "attn_q_norm.weight" | "attn_k_norm.weight" => vec![head_dim],
        "ffn_gate.weight" | "ffn_up.weight" => vec![feed_forward, hidden],
        "ffn_down.weight" => vec![hidden, feed_forward],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn with(field: &str, value: Value) -> ModelConfig {
        let mut config = json!({"model_type": "llama", "hidden_size": 8, "intermediate_size": 24, "vocab_size": 100,
            "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 16});
        config[field] = value;
        ModelConfig::from_json(&config).unwrap()
    }

    fn code(
        config: &ModelConfig,
        change: impl Fn(&mut Vec<(String, Vec<usize>)>),
    ) -> std::result::Result<(), String> {
        let mut tensors = vec![("token_embd.weight".to_owned(), vec![100, 8])];
        for block in 0..2 {
            for (part, shape) in [
                ("attn_q.weight", vec![8, 8]),
                ("attn_k.weight", vec![4, 8]),
                ("attn_norm.weight", vec![8]),
                ("ffn_down.weight", vec![8, 24]),
                ("ffn_up.weight", vec![24, 8]),
            ] {
                tensors.push((format!("blk.{block}.{part}"), shape));
            }
        }
        change(&mut tensors);
        let found = tensors.iter().map(|(gguf, shape)| Found {
            name: gguf,
            gguf,
            shape,
        });
        check(config, found).map_err(|e| e.message)
    }

    #[test]
    fn a_configuration_of_another_network_is_refused() {
        let same = |_: &mut Vec<_>| {};
        assert_eq!(code(&with("hidden_size", json!(8)), same), Ok(()));
        for (field, value, says) in [
            (
                "hidden_size",
                json!(16),
                "token_embd.weight is [100, 8], config.json makes it [100, 16]",
            ),
            ("vocab_size", json!(16_777_216), "makes it [16777216, 8]"),
            ("vocab_size", json!(99), "makes it [99, 8]"),
            (
                "num_hidden_layers",
                json!(1_000_000_000),
                "num_hidden_layers = 1000000000, the tensors have 2",
            ),
            ("num_hidden_layers", json!(1), "the tensors have 2"),
            ("num_key_value_heads", json!(4), "blk.0.attn_k.weight is [4, 8]"),
            ("intermediate_size", json!(25), "blk.0.ffn_down.weight is [8, 24]"),
            (
                "head_dim",
                json!(64),
                "blk.0.attn_q.weight is [8, 8], config.json makes it [256, 8]",
            ),
        ] {
            let refused = code(&with(field, value), same).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
        let config = with("hidden_size", json!(8));
        let refused = code(&config, |tensors| drop(tensors.remove(0))).unwrap_err();
        assert!(refused.contains("embed_tokens"), "{refused}");
        let refused = code(&config, |tensors| {
            tensors.retain(|(name, _)| !name.starts_with("blk.0."));
        })
        .unwrap_err();
        assert!(refused.contains("the tensors have 1"), "{refused}");
    }
}
