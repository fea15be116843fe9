//! Names there and back, and the row order of q and k.

use proptest::prelude::*;

use super::*;

fn names(family: Family) -> Names {
    Names {
        family,
        heads: 9,
        kv_heads: 3,
        tied: false,
    }
}

fn gguf(family: Family, hf: &str) -> Result<TensorRename, String> {
    names(family)
        .to_gguf(hf)
        .map(|rename| rename.expect("kept"))
        .map_err(|error| error.to_string())
}

#[test]
fn every_llama_tensor_has_llama_cpp_s_name() {
    for (hf, expected, heads) in [
        ("model.embed_tokens.weight", "token_embd.weight", None),
        ("model.norm.weight", "output_norm.weight", None),
        ("lm_head.weight", "output.weight", None),
        (
            "model.layers.0.input_layernorm.weight",
            "blk.0.attn_norm.weight",
            None,
        ),
        (
            "model.layers.1.self_attn.q_proj.weight",
            "blk.1.attn_q.weight",
            Some(9),
        ),
        (
            "model.layers.1.self_attn.q_proj.bias",
            "blk.1.attn_q.bias",
            Some(9),
        ),
        (
            "model.layers.2.self_attn.k_proj.weight",
            "blk.2.attn_k.weight",
            Some(3),
        ),
        (
            "model.layers.3.self_attn.v_proj.weight",
            "blk.3.attn_v.weight",
            None,
        ),
        (
            "model.layers.4.self_attn.o_proj.weight",
            "blk.4.attn_output.weight",
            None,
        ),
        (
            "model.layers.5.post_attention_layernorm.weight",
            "blk.5.ffn_norm.weight",
            None,
        ),
        (
            "model.layers.6.mlp.gate_proj.weight",
            "blk.6.ffn_gate.weight",
            None,
        ),
        ("model.layers.7.mlp.up_proj.weight", "blk.7.ffn_up.weight", None),
        (
            "model.layers.123.mlp.down_proj.weight",
            "blk.123.ffn_down.weight",
            None,
        ),
        ("model.layers.8.mlp.down_proj.bias", "blk.8.ffn_down.bias", None),
    ] {
        let rename = gguf(Family::Llama, hf).unwrap();
        assert_eq!((rename.gguf.as_str(), rename.permute_heads), (expected, heads));
        assert_eq!(names(Family::Llama).to_hf(expected), Some((hf.to_owned(), heads)));
    }
}

#[test]
fn qwen_keeps_its_rows_and_has_its_own_extras() {
    let bias = gguf(Family::Qwen2, "model.layers.0.self_attn.q_proj.bias").unwrap();
    assert_eq!(
        bias,
        TensorRename {
            gguf: "blk.0.attn_q.bias".into(),
            permute_heads: None
        }
    );
    let norm = gguf(Family::Qwen3, "model.layers.0.self_attn.k_norm.weight").unwrap();
    assert_eq!(
        norm,
        TensorRename {
            gguf: "blk.0.attn_k_norm.weight".into(),
            permute_heads: None
        }
    );
    for family in [Family::Qwen2, Family::Llama] {
        assert_eq!(
            gguf(family, "model.layers.0.self_attn.k_norm.weight"),
            Err(format!(
                "tensor model.layers.0.self_attn.k_norm.weight has no gguf name in architecture {}",
                family.arch()
            ))
        );
    }
    gguf(Family::Qwen2, "model.layers.0.self_attn.o_proj.bias").unwrap_err();
    gguf(Family::Qwen3, "lm_head.bias").unwrap_err();
}

#[test]
fn unknown_names_are_refused_and_computed_ones_left_out() {
    for hf in [
        "weight",
        "model.layers.x.mlp.up_proj.weight",
        "model.layers.0.block_sparse_moe.gate.weight",
        "visual.w",
    ] {
        gguf(Family::Llama, hf).unwrap_err();
    }
    let tied = Names {
        tied: true,
        ..names(Family::Llama)
    };
    assert_eq!(tied.to_gguf("lm_head.weight").unwrap(), None);
    assert_eq!(
        tied.to_gguf("model.layers.0.self_attn.rotary_emb.inv_freq")
            .unwrap(),
        None
    );
    assert_eq!(tied.to_hf("rope_freqs.weight"), None);
}

#[test]
fn a_checkpoint_without_a_head_may_lack_the_model_prefix() {
    assert_eq!(
        gguf(Family::Qwen3, "norm.weight").unwrap().gguf,
        "output_norm.weight"
    );
    assert_eq!(
        gguf(Family::Qwen3, "layers.3.mlp.up_proj.weight").unwrap().gguf,
        "blk.3.ffn_up.weight"
    );
}

#[test]
fn one_head_of_eight_rows_is_interleaved() {
    let order: Vec<usize> = (0..8).map(|row| permute_row(row, 8, 1)).collect();
    assert_eq!(order, [0, 4, 1, 5, 2, 6, 3, 7]);
}

/// `reshape(heads, 2, half).swapaxes(1, 2)` of the row numbers, written with an index for each axis.
fn by_axes(heads: usize, half: usize) -> Vec<usize> {
    let mut out = Vec::new();
    for head in 0..heads {
        for j in 0..half {
            for p in 0..2 {
                out.push((head * 2 + p) * half + j);
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn rows_move_as_reshape_and_swapaxes_do(heads in 1_usize..12, half in 1_usize..40) {
        let rows = heads * 2 * half;
        let order: Vec<usize> = (0..rows).map(|row| permute_row(row, rows, heads)).collect();
        prop_assert_eq!(&order, &by_axes(heads, half));
        let mut seen = order.clone();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..rows).collect::<Vec<_>>());
        for (row, &from) in order.iter().enumerate() {
            prop_assert_eq!(unpermute_row(from, rows, heads), row);
        }
    }
}
