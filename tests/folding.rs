//! Techniques that fold scales into what feeds a layer: the model computes the same, and rounding hurts it less.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/cases.rs"]
mod cases;
#[path = "support/walk.rs"]
mod walk;

use std::fs;
use std::path::Path;

use answers::answers;
use cases::{data, model, opened, sequences};
use modelpress_engine::observe::Silent;
use modelpress_engine::recipe::Refusal;
use modelpress_engine::{Checkpoint, Outcome, Recipe, Site, execute, plan};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Logits of all sequences.
fn logits(model: &Checkpoint) -> Vec<f32> {
    answers(model, &sequences()).concat()
}

/// Root of the mean squared difference, as a part of the first's own root mean square.
fn change(before: &[f32], after: &[f32]) -> f64 {
    let square = |sum: f64, v: f32| sum + f64::from(v).powi(2);
    let error = before.iter().zip(after).map(|(a, b)| a - b).fold(0.0, square);
    (error / before.iter().copied().fold(0.0, square)).sqrt()
}

fn recipe(stages: &Value) -> Recipe {
    let stages: Vec<Value> = stages
        .as_array()
        .expect("stages")
        .iter()
        .map(|stage| {
            let mut stage = stage.clone();
            stage["targets"] = json!(["Linear"]);
            stage["ignore"] = json!(["lm_head"]);
            stage
        })
        .collect();
    Recipe::from_value(&json!({
        "stages": stages,
        "formats": [{"format": "safetensors", "options": {"dtype": "F32"}}],
        "calibration": {"dataset": "data", "num_samples": 24, "max_seq_length": 24},
    }))
    .expect("a recipe")
}

fn refused(stages: &Value, name: &str) -> Vec<Refusal> {
    let folder = TempDir::new().expect("a folder");
    let model = model(name, &folder.path().join("model"));
    plan(&recipe(stages), &model, &data(folder.path())).expect_err("refused")
}

fn run(stages: &Value, model: &Checkpoint, folder: &Path) -> Outcome {
    let sets = data(folder);
    let plan = plan(&recipe(stages), model, &sets).expect("a plan");
    let (out, scratch) = (folder.join("out"), folder.join("scratch"));
    let site = Site::on_cpu(&out, &scratch);
    execute(&plan, model, &sets, &site, &Silent).expect("runs")
}

/// By how much the logits change.
fn cost(stages: &Value, name: &str) -> f64 {
    let folder = TempDir::new().expect("a folder");
    let model = model(name, &folder.path().join("model"));
    run(stages, &model, folder.path());
    let made = opened(&folder.path().join("out/safetensors"));
    change(&logits(&model), &logits(&made))
}

const FAMILIES: [&str; 8] = [
    "llama_mha",
    "llama_gqa_tied",
    "llama_biases",
    "qwen3",
    "mixtral",
    "qwen2_moe",
    "gpt2",
    "gpt2_prefixed",
];

#[test]
fn smoothing_leaves_the_function_as_it_is() {
    let smooth =
        json!([{"technique": "smoothquant", "options": {"smoothing_strength": 0.7, "mixtures": true}}]);
    for name in FAMILIES {
        let folder = TempDir::new().expect("a folder");
        let model = model(name, &folder.path().join("model"));
        run(&smooth, &model, folder.path());
        let made = opened(&folder.path().join("out/safetensors"));
        let (before, after) = (logits(&model), logits(&made));
        let worst = before
            .iter()
            .zip(&after)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        println!("{name}: {worst}");
        // Logits of up to 20, by way of f32 products in another order.
        assert!(worst < 5e-4, "{name}: {worst}");
        let changed = fs::read(folder.path().join("model/model.safetensors")).expect("source")
            != fs::read(folder.path().join("out/safetensors/model.safetensors")).expect("made");
        assert!(changed, "{name}: nothing was smoothed");
    }
}

/// Eight bits leave almost nothing but what a wrong fold would do.
#[test]
fn awq_folds_into_norms_values_ups_and_routers() {
    let awq = json!([{"technique": "awq", "options": {"n_bits": 8, "group_size": 8, "n_grid": 4}}]);
    for name in FAMILIES.iter().filter(|name| !name.starts_with("gpt2")) {
        let cost = cost(&awq, name);
        println!("{name}: {cost}");
        assert!(cost < 0.02, "{name}: {cost}");
    }
}

#[test]
fn awq_costs_less_than_rounding() {
    for name in ["llama_gqa_tied", "mixtral"] {
        let rounded =
            json!([{"technique": "rtn", "options": {"n_bits": 4, "group_size": 16, "symmetric": false}}]);
        let awq = json!([{"technique": "awq", "options": {"n_bits": 4, "group_size": 16}}]);
        let (rounded, awq) = (cost(&rounded, name), cost(&awq, name));
        println!("{name}: {rounded} {awq}");
        assert!(awq < 0.9 * rounded, "{name}: {awq} {rounded}");
    }
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    for technique in ["smoothquant", "awq"] {
        let options = if technique == "awq" {
            json!({"group_size": 16, "n_grid": 4})
        } else {
            json!({})
        };
        let stages = json!([{"technique": technique, "options": options}]);
        let digests = |threads: usize| {
            let folder = TempDir::new().expect("a folder");
            let model = model("llama_gqa_tied", &folder.path().join("model"));
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            let outcome = pool.install(|| run(&stages, &model, folder.path()));
            let files = outcome.artifacts[0].files.iter();
            files.map(|file| file.sha256.clone()).collect::<Vec<_>>()
        };
        assert_eq!(digests(1), digests(3), "{technique}");
    }
}

#[test]
fn stages_combine() {
    let smooth = json!({"technique": "smoothquant"});
    let eight = json!({"n_bits": 8, "granularity": "channel"});
    for second in [
        json!({"technique": "rtn", "options": eight}),
        json!({"technique": "gptq", "options": eight}),
        json!({"technique": "awq", "options": {"n_bits": 8, "group_size": 16, "n_grid": 2}}),
    ] {
        let cost = cost(&json!([smooth, second]), "llama_mha");
        println!("{second}: {cost}");
        assert!(cost < 0.05, "{second}: {cost}");
    }
}

#[test]
fn what_cannot_be_folded_is_refused() {
    for technique in ["smoothquant", "awq"] {
        let refused = refused(&json!([{"technique": technique, "options": {}}]), "bert");
        assert_eq!(
            (refused[0].pointer.as_str(), refused[0].code),
            ("/stages/0/technique", "no_feeders")
        );
        assert!(refused[0].detail.contains("BERT"), "{}", refused[0].detail);
    }
    let late = json!([
        {"technique": "rtn", "options": {"n_bits": 8, "granularity": "channel"}},
        {"technique": "smoothquant", "options": {}},
    ]);
    let refused = refused(&late, "llama_mha");
    assert_eq!(
        (refused[0].pointer.as_str(), refused[0].code),
        ("/stages/1/targets", "already_quantized")
    );
}
