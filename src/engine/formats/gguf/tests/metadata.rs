//! What config files become, and what is refused.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::formats::gguf::mutate::{edits, mutated};

fn smollm2() -> Json {
    json!({
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0, "rope_scaling": null, "max_position_embeddings": 8192, "vocab_size": 49152,
        "hidden_act": "silu", "attention_bias": false, "tie_word_embeddings": true
    })
}

fn with(key: &str, value: Json) -> Json {
    let mut config = smollm2();
    config[key] = value;
    config
}

fn refusal(config: &Json) -> String {
    ModelConfig::from_json(config).unwrap_err().to_string()
}

fn keys(config: &Json) -> Metadata {
    let about = About {
        name: "SmolLM2",
        parameters: 134_515_008,
        file_type: 1,
        generation_config: None,
    };
    ModelConfig::from_json(config).unwrap().metadata(&about)
}

#[test]
fn smollm2_has_the_keys_llama_cpp_s_converter_writes() {
    let expected = [
        ("general.architecture", Value::text("llama")),
        ("general.type", Value::text("model")),
        ("general.name", Value::text("SmolLM2")),
        ("general.size_label", Value::text("135M")),
        ("llama.block_count", Value::U32(30)),
        ("llama.context_length", Value::U32(8192)),
        ("llama.embedding_length", Value::U32(576)),
        ("llama.feed_forward_length", Value::U32(1536)),
        ("llama.attention.head_count", Value::U32(9)),
        ("llama.attention.head_count_kv", Value::U32(3)),
        ("llama.rope.freq_base", Value::F32(100_000.0)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.attention.key_length", Value::U32(64)),
        ("llama.attention.value_length", Value::U32(64)),
        ("general.file_type", Value::U32(1)),
        ("llama.vocab_size", Value::U32(49152)),
        ("llama.rope.dimension_count", Value::U32(64)),
        ("general.quantization_version", Value::U32(2)),
    ];
    let metadata = keys(&smollm2());
    let got: Vec<(&str, Value)> = metadata.iter().map(|(key, value)| (key, value.clone())).collect();
    assert_eq!(got, expected);
    let names = ModelConfig::from_json(&smollm2()).unwrap().names();
    assert_eq!((names.heads, names.kv_heads, names.tied), (9, 3, true));
}

#[test]
fn defaults_are_those_of_transformers() {
    let mut config = smollm2();
    for key in [
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
        "rope_theta",
        "tie_word_embeddings",
    ] {
        config.as_object_mut().unwrap().remove(key);
    }
    let model = ModelConfig::from_json(&config).unwrap();
    assert_eq!(
        (model.kv_heads, model.head_dim, model.rms_eps, model.tied),
        (9, 64, 1e-6, false)
    );
    let metadata = keys(&config);
    assert_eq!(metadata.get("llama.attention.key_length"), None);
    assert_eq!(metadata.get("llama.rope.freq_base"), None);
    assert_eq!(metadata.get_u32("llama.rope.dimension_count"), Some(64));
}

#[test]
fn mistral_is_llama_and_qwen_has_its_own_prefix() {
    assert_eq!(
        keys(&with("model_type", json!("mistral"))).get_str("general.architecture"),
        Some("llama")
    );
    let qwen = keys(&with("model_type", json!("qwen3")));
    assert_eq!(qwen.get_u32("qwen3.block_count"), Some(30));
}

#[test]
fn linear_and_yarn_scaling_become_keys_in_both_spellings() {
    for (field, kind) in [("rope_scaling", "type"), ("rope_parameters", "rope_type")] {
        let linear = keys(&with(
            field,
            json!({ kind: "linear", "factor": 4.0, "rope_theta": 5e5 }),
        ));
        assert_eq!(linear.get_str("llama.rope.scaling.type"), Some("linear"));
        assert_eq!(linear.get_f32("llama.rope.scaling.factor"), Some(4.0));
        assert_eq!(linear.get_f32("llama.rope.freq_base"), Some(5e5));
    }
    let yarn =
        json!({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32768, "beta_fast": 16});
    let yarn = keys(&with("rope_scaling", yarn));
    assert_eq!(yarn.get_str("llama.rope.scaling.type"), Some("yarn"));
    assert_eq!(
        yarn.get_u32("llama.rope.scaling.original_context_length"),
        Some(32768)
    );
    assert_eq!(yarn.get_f32("llama.rope.scaling.yarn_beta_fast"), Some(16.0));
    let none = with(
        "rope_parameters",
        json!({"rope_type": "default", "rope_theta": 1e6}),
    );
    assert_eq!(keys(&none).get("llama.rope.scaling.type"), None);
    assert_eq!(keys(&none).get_f32("llama.rope.freq_base"), Some(1e6));
}

/// Values of the formula run in torch float32 for Llama 3.2 1B (theta 500000, heads of 64, factor 32).
const LLAMA32_FACTORS: [f32; 32] = [
    1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.65132927, 3.29226279,
    9.66673088, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0,
];

#[test]
fn llama3_scaling_becomes_a_tensor_of_factors() {
    let mut config = with(
        "rope_scaling",
        json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}),
    );
    config["rope_theta"] = json!(500_000.0);
    let model = ModelConfig::from_json(&config).unwrap();
    let factors = model.rope_freqs().unwrap();
    assert_eq!(factors.len(), 32);
    for (ours, torch) in factors.iter().zip(LLAMA32_FACTORS) {
        assert!((ours - torch).abs() <= torch * 1e-5, "{ours} against {torch}");
    }
    assert_eq!(keys(&config).get("llama.rope.scaling.type"), None);
    assert_eq!(ModelConfig::from_json(&smollm2()).unwrap().rope_freqs(), None);
}

#[test]
fn sampling_comes_from_generation_config() {
    let generation = json!({"temperature": 0.6, "top_p": 0.95, "top_k": 20, "do_sample": true});
    let about = About {
        name: "m",
        parameters: 1,
        file_type: 0,
        generation_config: Some(&generation),
    };
    let metadata = ModelConfig::from_json(&smollm2()).unwrap().metadata(&about);
    assert_eq!(metadata.get("general.sampling.top_k"), Some(&Value::I32(20)));
    assert_eq!(metadata.get_f32("general.sampling.top_p"), Some(0.95));
    assert_eq!(metadata.get_f32("general.sampling.temp"), Some(0.6));
}

#[test]
fn what_cannot_be_expressed_is_refused_by_field() {
    assert_eq!(
        refusal(&with("model_type", json!("gpt2"))),
        "config.json field model_type = \"gpt2\" cannot be converted to gguf: \
         expected llama, mistral, qwen2 or qwen3"
    );
    assert_eq!(
        refusal(&with("num_local_experts", json!(8))),
        "config.json field num_local_experts = 8 cannot be converted to gguf: \
         expected a dense model (mixture of experts is not converted)"
    );
    assert_eq!(
        refusal(&with(
            "rope_scaling",
            json!({"rope_type": "longrope", "factor": 2.0})
        )),
        "config.json field rope_scaling.rope_type = \"longrope\" cannot be converted to gguf: \
         expected default, linear, yarn or llama3"
    );
    assert_eq!(
        refusal(&with("hidden_act", json!("gelu"))),
        "config.json field hidden_act = \"gelu\" cannot be converted to gguf: expected \"silu\""
    );
    for (key, value) in [
        ("partial_rotary_factor", json!(0.5)),
        ("use_sliding_window", json!(true)),
        ("layer_types", json!(["full_attention", "linear_attention"])),
        ("no_rope_layers", json!([1, 0])),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 4, "mscale": 1.0}),
        ),
    ] {
        let error = ModelConfig::from_json(&with(key, value)).unwrap_err();
        assert!(
            error.is_unsupported() && error.to_string().contains(key),
            "{error}"
        );
    }
}

#[test]
fn broken_fields_are_refused_by_field() {
    let mut config = smollm2();
    config.as_object_mut().unwrap().remove("hidden_size");
    assert_eq!(
        refusal(&config),
        "config.json has no hidden_size, which a gguf needs"
    );
    assert_eq!(
        refusal(&json!({})),
        "config.json has no model_type, which a gguf needs"
    );
    assert_eq!(
        refusal(&with("num_hidden_layers", json!("30"))),
        "config.json field num_hidden_layers must be a positive integer, got \"30\""
    );
    assert_eq!(
        refusal(&with("num_key_value_heads", json!(4))),
        "config.json field num_key_value_heads must be a divisor of num_attention_heads = 9, got 4"
    );
    assert_eq!(
        refusal(&with("rope_scaling", json!({"rope_type": "linear"}))),
        "config.json has no rope_scaling.factor, which a gguf needs"
    );
}

#[test]
fn size_labels_have_two_digits_or_more() {
    for (parameters, label) in [
        (134_515_008, "135M"),
        (1_235_814_400, "1.2B"),
        (70_553_706_496, "71B"),
        (494_032_768, "494M"),
        (9_960_000_000, "10B"),
        (500, "0.50K"),
    ] {
        assert_eq!(size_label(parameters), label);
    }
}

#[test]
fn long_values_are_not_echoed() {
    let refused = ModelConfig::from_json(&with("model_type", json!("x".repeat(5000)))).unwrap_err();
    assert!(refused.to_string().len() < 400, "{refused}");
    assert_eq!(refused.code(), "unsupported_model");
    let refused = ModelConfig::from_json(&with("hidden_size", json!("x"))).unwrap_err();
    assert_eq!(refused.code(), "invalid_config");
}

#[test]
fn a_head_has_a_width_that_can_be_held() {
    let mut config = with("head_dim", json!(4_294_967_294_u32));
    config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    assert!(refusal(&config).contains("head_dim must be even and at most 65536"));
}

proptest! {
    #[test]
    fn a_config_is_read_or_refused(edits in edits()) {
        let config = mutated(smollm2(), edits);
        match ModelConfig::from_json(&config) {
            Ok(model) => {
                prop_assert!(model.rope_freqs().is_none_or(|f| f.len() == model.head_dim as usize / 2));
                keys(&config);
            }
            Err(error) => prop_assert!(error.to_string().len() < 1000, "{}", error),
        }
    }
}
