//! The mixes against what llama.cpp's quantizer planned for the same models.

use super::*;
use crate::weight::Kind;
use serde_json::Value;

#[test]
fn more_bits_go_to_the_ends_and_every_third_layer_between() {
    let chosen: Vec<usize> = (0..30).filter(|l| more_bits(*l, 30)).collect();
    assert_eq!(chosen, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]);
}

#[test]
fn rows_that_are_no_multiple_of_256_fall_back_as_in_llama_cpp() {
    assert_eq!(fit(GgmlType::Q4_K, 576), GgmlType::Q5_0);
    assert_eq!(fit(GgmlType::Q6_K, 576), GgmlType::Q8_0);
    assert_eq!(fit(GgmlType::IQ2_XS, 576), GgmlType::IQ4_NL);
    assert_eq!(fit(GgmlType::Q4_K, 1536), GgmlType::Q4_K);
    assert_eq!(fit(GgmlType::Q4_0, 100), GgmlType::F16);
}

/// A matrix that plays a part in a block.
fn tensor(part: &str, layer: Option<usize>, cols: usize) -> TensorPlan {
    let role = match part {
        "token_embd" => Role::TokenEmbedding,
        "output" => Role::Output,
        "attn_q" => Role::AttnQ,
        "attn_k" => Role::AttnK,
        "attn_v" => Role::AttnV,
        "attn_output" => Role::AttnOutput,
        "ffn_gate" => Role::FfnGate,
        "ffn_up" => Role::FfnUp,
        "ffn_down" => Role::FfnDown,
        other => panic!("{other}"),
    };
    TensorPlan {
        cache: None,
        name: format!("{part}.weight"),
        role,
        layer,
        shape: vec![cols, cols],
        source_dtype: DType::F16,
        source_bytes: 2 * (cols * cols) as u64,
        steps: Vec::new(),
        kind: Kind::Dense { dtype: DType::F16 },
    }
}

/// Types by block: `Q5_K*2 Q4_K*30`.
fn unrolled(runs: &str) -> Vec<GgmlType> {
    let types = runs.split(' ').flat_map(|run| {
        let (name, count) = run.split_once('*').unwrap();
        vec![GgmlType::from_name(name).unwrap(); count.parse().unwrap()]
    });
    types.collect()
}

/// `mixes.json` is what `llama-quantize --dry-run` says (`tests/interop/make_ggml_mixes.py`).
#[test]
fn every_tensor_gets_the_type_llama_cpp_gives_it() {
    let golden: Value = serde_json::from_str(include_str!("mixes.json")).unwrap();
    let mut checked = 0;
    for (shape, golden) in golden.as_object().unwrap() {
        let number = |key: &str| golden[key].as_u64().unwrap() as usize;
        let facts = Facts {
            layers: number("layers"),
            heads: number("heads"),
            kv_heads: number("kv_heads"),
            experts: number("experts"),
        };
        let tied = golden["tied"].as_bool().unwrap();
        for (name, base) in MIXES.iter().filter(|(_, base)| base.is_quantized()) {
            for has_importance in [false, true] {
                let mix = Mix {
                    name,
                    base: *base,
                    facts,
                    tied,
                    pure: false,
                    has_importance,
                };
                // A line of its own only where importance makes a difference.
                let own = &golden["mixes"][format!("{name} imatrix")];
                let line = if has_importance && own.is_object() {
                    own
                } else {
                    &golden["mixes"][name]
                };
                for part in PARTS {
                    let layers = if part.contains('_') && part != "token_embd" {
                        facts.layers
                    } else {
                        1
                    };
                    if part == "output" && tied {
                        continue;
                    }
                    let expected = match line[part].as_str() {
                        Some(runs) => unrolled(runs),
                        None => vec![GgmlType::from_name(line["*"].as_str().unwrap()).unwrap(); layers],
                    };
                    let cols = number("cols");
                    let got: Vec<_> = (0..layers)
                        .map(|l| mix.type_of(&tensor(part, Some(l), cols)))
                        .collect();
                    assert_eq!(
                        got, expected,
                        "{shape} {name} {part}, importance {has_importance}"
                    );
                    checked += layers;
                }
            }
        }
    }
    assert!(checked > 50_000, "{checked}");
}

const PARTS: [&str; 9] = [
    "token_embd",
    "output",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
];

#[test]
fn few_bits_need_importance_but_for_embedding_and_head() {
    let mix = |name| Mix {
        name,
        base: GgmlType::Q2_K,
        facts: Facts::default(),
        tied: false,
        pure: false,
        has_importance: false,
    };
    let (up, embedding) = (tensor("ffn_up", Some(0), 256), tensor("token_embd", None, 256));
    let needs = |name, tensor, ty| mix(name).requires_importance(tensor, ty);
    for ty in [GgmlType::IQ3_XXS, GgmlType::IQ2_S] {
        assert!(needs("IQ3_XXS", &up, ty) && !needs("IQ3_XXS", &embedding, ty));
    }
    // ggml itself refuses these, whatever the tensor.
    for ty in [GgmlType::IQ2_XXS, GgmlType::IQ2_XS] {
        assert!(needs("IQ2_XS", &up, ty) && needs("IQ2_XS", &embedding, ty));
    }
    assert!(needs("Q2_K_S", &up, GgmlType::Q2_K) && !needs("Q2_K", &up, GgmlType::Q2_K));
    assert!(!needs("IQ3_M", &up, GgmlType::IQ3_S));
}
