//! A tiny LLaMA as a Hugging Face folder, large enough that calibration tells.

use std::fs;
use std::path::Path;

use serde_json::json;

/// Tokens it knows.
pub(super) const VOCAB: usize = 96;
const HIDDEN: usize = 64;
const INNER: usize = 96;
const BLOCKS: usize = 4;

/// Writes config.json and model.safetensors.
pub(super) fn write(folder: &Path) {
    write_with(folder, |_, _| {});
}

/// The same, each tensor changed by `f` beforehand.
pub(super) fn write_with(folder: &Path, f: impl Fn(&str, &mut [f32])) {
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": VOCAB, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": false});
    fs::write(folder.join("config.json"), config.to_string()).expect("writes");
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        ("lm_head.weight".to_owned(), vec![VOCAB, HIDDEN]),
    ];
    for block in 0..BLOCKS {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![INNER, HIDDEN]),
            ("mlp.up_proj", vec![INNER, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INNER]),
        ] {
            tensors.push((format!("model.layers.{block}.{name}.weight"), shape));
        }
    }
    fs::write(folder.join("model.safetensors"), safetensors(&tensors, f)).expect("writes");
}

fn safetensors(tensors: &[(String, Vec<usize>)], f: impl Fn(&str, &mut [f32])) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (seed, (name, shape)) in tensors.iter().enumerate() {
        let begin = data.len();
        let mut values = values(seed as u64, shape);
        f(name, &mut values);
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let mut head = serde_json::to_vec(&header).expect("JSON");
    head.resize(head.len().next_multiple_of(8), b' ');
    let mut file = (head.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(&head);
    file.extend_from_slice(&data);
    file
}

/// Norms around 1, matrices of about unit gain.
fn values(seed: u64, shape: &[usize]) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let gain = 1.7 / (*shape.last().expect("a side") as f32).sqrt();
    let norm = shape.len() == 1;
    (0..shape.iter().product::<usize>())
        .map(|_| if norm { 1.0 + 0.3 * next() } else { next() * gain })
        .collect()
}

/// A tokenizer of so many single characters.
pub(super) fn write_tokenizer(folder: &Path, size: usize) {
    let vocab: serde_json::Map<_, _> = (0..size)
        .map(|i| {
            (
                char::from_u32(33 + i as u32).expect("a character").to_string(),
                json!(i),
            )
        })
        .collect();
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}});
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("writes");
}
