//! Recipes under the names users already know.
//!
//! Owns: the list. Must not know: models. Invariant: every preset parses as if it had been written out.
//! A preset is one line.

use crate::recipe::{FormatSpec, Recipe, StageSpec};
use serde::Serialize;
use serde_json::{Value, json};

/// One preset.
#[derive(Clone, Debug, Serialize)]
pub struct Preset {
    /// Name.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Stages that come before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<PresetStage>,
    /// Technique of its stage, the last one where there are several.
    pub technique: &'static str,
    /// Default formats.
    pub format: &'static str,
    /// Options of that stage.
    pub options: Value,
}

/// A stage that prepares the model for the one that quantizes.
#[derive(Clone, Debug, Serialize)]
pub struct PresetStage {
    /// Technique.
    pub technique: &'static str,
    /// Options.
    pub options: Value,
}

impl Preset {
    fn after(mut self, technique: &'static str, options: Value) -> Self {
        self.before.push(PresetStage { technique, options });
        self
    }
}

fn preset(
    name: &'static str,
    technique: &'static str,
    format: &'static str,
    options: Value,
    summary: &'static str,
) -> Preset {
    Preset {
        name,
        summary,
        before: Vec::new(),
        technique,
        format,
        options,
    }
}

/// All presets.
pub fn all() -> Vec<Preset> {
    [rounded(), calibrated(), fixed(), pruned(), blocks(), weighed()].concat()
}

const CT: &str = "compressed-tensors";

fn int4(symmetric: bool) -> Value {
    json!({"n_bits": 4, "symmetric": symmetric, "granularity": "group", "group_size": 128})
}

/// Rounding that needs no data.
fn rounded() -> Vec<Preset> {
    vec![
        preset(
            "W4A16",
            "rtn",
            CT,
            int4(true),
            "INT4 weights, groups of 128, symmetric",
        ),
        preset(
            "W4A16_ASYM",
            "rtn",
            CT,
            int4(false),
            "INT4 weights, groups of 128, with zero points",
        ),
        preset(
            "W8A16",
            "rtn",
            CT,
            json!({"n_bits": 8, "granularity": "channel"}),
            "INT8 weights, one scale a channel",
        ),
        preset(
            "W8A8",
            "rtn",
            CT,
            json!({"n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}),
            "INT8 weights and activations, activations scaled per token at run time",
        ),
        preset(
            "FP8_DYNAMIC",
            "fp8",
            CT,
            json!({"granularity": "channel", "activations": "dynamic_token"}),
            "FP8 E4M3 weights and activations, activations scaled per token at run time",
        ),
        preset(
            "gptq-rtn",
            "rtn",
            "gptq",
            int4(true),
            "INT4 weights in the GPTQ layout, round to nearest",
        ),
        preset(
            "nf4",
            "nf4",
            "bitsandbytes",
            json!({"block_size": 64}),
            "4-bit NormalFloat, blocks of 64, as bitsandbytes stores it",
        ),
    ]
}

/// 8 bits whose ranges calibration fixes.
fn fixed() -> Vec<Preset> {
    vec![
        preset(
            "W8A8_STATIC",
            "static_activations",
            CT,
            json!({}),
            "INT8 weights and activations, one fixed scale for a layer's inputs, outliers moved into the weights first \
             (calibrated)",
        )
        .after("smoothquant", json!({}))
        .after(
            "rtn",
            json!({"n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}),
        ),
        preset(
            "FP8_STATIC",
            "static_activations",
            CT,
            json!({}),
            "FP8 E4M3 weights and activations, one fixed scale for a layer's inputs (calibrated)",
        )
        .after(
            "fp8",
            json!({"granularity": "tensor", "activations": "dynamic_token"}),
        ),
        preset(
            "FP8_KV",
            "kv_cache",
            CT,
            json!({"dtype": "fp8"}),
            "FP8 E4M3 weights and activations per token, and scales for an FP8 key/value cache (calibrated)",
        )
        .after(
            "fp8",
            json!({"granularity": "channel", "activations": "dynamic_token"}),
        ),
    ]
}

/// What is calibrated.
fn calibrated() -> Vec<Preset> {
    vec![
        preset(
            "W8A8_SMOOTHQUANT",
            "rtn",
            CT,
            json!({"n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}),
            "INT8 weights and activations, outliers of activations moved into the weights first (calibrated)",
        )
        .after("smoothquant", json!({})),
        preset(
            "W8A8_GPTQ",
            "gptq",
            CT,
            json!({"n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}),
            "INT8 weights by GPTQ and INT8 activations (calibrated)",
        ),
        preset(
            "W4A16_GPTQ",
            "gptq",
            CT,
            int4(true),
            "INT4 weights by GPTQ, groups of 128, symmetric (calibrated)",
        ),
        preset(
            "W4A16_AUTOROUND",
            "autoround",
            CT,
            int4(true),
            "INT4 weights by AutoRound, groups of 128, symmetric (calibrated)",
        ),
        preset(
            "W4A16_AWQ",
            "awq",
            CT,
            json!({"n_bits": 4, "group_size": 128, "symmetric": false}),
            "INT4 weights by AWQ, groups of 128, with zero points (calibrated)",
        ),
    ]
}

/// Pruned first.
fn pruned() -> Vec<Preset> {
    vec![
        preset(
            "SPARSE24_W4A16",
            "gptq",
            CT,
            int4(true),
            "Half of the weights zero in the pattern 2:4 by SparseGPT, the others INT4 by GPTQ, groups of 128 (calibrated)",
        )
        .after("sparsegpt", json!({"pattern": "2:4"})),
        preset(
            "DEEP_COMPRESSION",
            "kmeans",
            "packed",
            json!({"n_centroids": 16, "weighting": "hessian"}),
            "Half of the weights zero by SparseGPT, the others share 15 values a row, entropy coded (calibrated)",
        )
        .after("sparsegpt", json!({})),
    ]
}

/// llama.cpp's mixes.
fn blocks() -> Vec<Preset> {
    let mixes = [
        ("Q8_0", "8.5 bits a weight, next to lossless"),
        ("Q6_K", "6.6 bits a weight"),
        ("Q5_K_M", "5-bit k-quants, more bits where they help most"),
        ("Q5_K_S", "5-bit k-quants throughout"),
        ("Q5_1", "legacy 5 bits with a minimum"),
        ("Q5_0", "legacy 5 bits"),
        (
            "Q4_K_M",
            "4-bit k-quants, more bits where they help most: llama.cpp's usual choice",
        ),
        ("Q4_K_S", "4-bit k-quants, smaller"),
        ("Q4_1", "legacy 4 bits with a minimum"),
        ("Q4_0", "legacy 4 bits"),
        ("IQ4_NL", "non-linear 4 bits, blocks of 32"),
        ("IQ4_XS", "non-linear 4 bits, super-blocks of 256"),
        ("Q3_K_M", "3-bit k-quants, more bits where they help most"),
        ("Q3_K_S", "3-bit k-quants throughout"),
        ("Q3_K_L", "3-bit k-quants, larger"),
        ("Q2_K", "2-bit k-quants"),
        ("F16", "half precision, for llama.cpp"),
        ("BF16", "bfloat16, for llama.cpp"),
    ];
    mixes
        .map(|(name, summary)| preset(name, "ggml", "gguf", json!({"type": name}), summary))
        .into()
}

/// Those that are weighed by calibration.
fn weighed() -> Vec<Preset> {
    // The first two can be written without calibration, but are hardly of use then.
    let mixes = [
        ("IQ3_M", "3.7 bits from a lattice, weighed by calibration"),
        ("IQ3_S", "3.4 bits from a lattice, weighed by calibration"),
        ("IQ3_XS", "3.3 bits from a lattice, weighed by calibration"),
        ("IQ3_XXS", "3.1 bits from a lattice, weighed by calibration"),
        ("Q2_K_S", "2-bit k-quants throughout, weighed by calibration"),
        ("IQ2_M", "2.7 bits from a lattice, weighed by calibration"),
        ("IQ2_S", "2.5 bits from a lattice, weighed by calibration"),
        ("IQ2_XS", "2.3 bits from a lattice, weighed by calibration"),
        ("IQ2_XXS", "2.1 bits from a lattice, weighed by calibration"),
    ];
    mixes
        .map(|(name, summary)| {
            let options = json!({"type": name, "imatrix": "calibration"});
            preset(name, "ggml", "gguf", options, summary)
        })
        .into()
}

/// Names of all presets.
pub fn names() -> Vec<&'static str> {
    all().iter().map(|p| p.name).collect()
}

/// The recipe of a preset.
pub fn find(name: &str) -> Option<Recipe> {
    let preset = all().into_iter().find(|p| p.name.eq_ignore_ascii_case(name))?;
    let ignore: &[&str] = if preset.technique == "ggml" {
        &[]
    } else {
        &["lm_head"]
    };
    let targets = if preset.technique == "ggml" {
        "re:.*"
    } else {
        "Linear"
    };
    let stage = |technique: &str, options: Value| StageSpec {
        technique: technique.to_owned(),
        options,
        targets: vec![targets.to_owned()],
        ignore: ignore.iter().map(|s| (*s).to_owned()).collect(),
    };
    let before = preset.before.into_iter().map(|s| stage(s.technique, s.options));
    let stages = before.chain([stage(preset.technique, preset.options)]).collect();
    let format = FormatSpec {
        format: preset.format.to_owned(),
        options: json!({}),
    };
    Some(Recipe {
        version: 1,
        preset: Some(preset.name.to_owned()),
        stages,
        formats: vec![format],
        calibration: None,
        evaluation: None,
        gates: None,
        budget: None,
        seed: 0,
    })
}
