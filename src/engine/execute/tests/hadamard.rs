//! Rotations through whole jobs: what the models compute stays, whatever their family.

use super::*;
use crate::models::network_of;
use crate::models::tests::golden;
use crate::tensor::Rows;

/// A job's folder of plain f32 weights.
struct Job {
    folder: TempDir,
    outcome: Outcome,
}

impl Job {
    fn of(small: &Small, recipe: &Value) -> Self {
        let none = Datasets::new();
        let plan = small.plan(recipe, &none).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let scratch = folder.path().join("scratch");
        let site = Site::on_cpu(folder.path(), &scratch);
        let outcome = execute(&plan, &small.model, &none, &site, &Silent).unwrap();
        Self { folder, outcome }
    }

    fn made(&self, format: &str) -> Checkpoint {
        inspect(&SourceFile::from_path(&self.folder.path().join(format)).unwrap()).unwrap()
    }
}

fn turn(options: &Value) -> Value {
    json!({"stages": [{"technique": "hadamard", "options": options}],
        "formats": [{"format": "safetensors", "options": {"dtype": "F32"}}]})
}

/// Turned, then rounded to four bits.
fn turned_int4(format: &str) -> Value {
    json!({"stages": [{"technique": "hadamard"}, {"technique": "rtn", "options": {"n_bits": 4, "group_size": 16}}],
        "formats": [format]})
}

fn values_of(model: &Checkpoint, name: &str) -> Option<Vec<f32>> {
    let info = model.tensors.iter().find(|t| t.name == name)?;
    let mut values = vec![0.0; info.elements()];
    model.rows(info).unwrap().read(0, &mut values).unwrap();
    Some(values)
}

/// Cases of the golden file whose models can be turned.
fn turnable() -> Vec<Value> {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap().iter();
    let can = |case: &&Value| {
        network_of(&Small::of(case, |_, _| {}).model)
            .unwrap()
            .residual()
            .is_some()
    };
    cases.filter(can).cloned().collect()
}

#[test]
fn hadamard_leaves_what_every_family_computes() {
    let cases = turnable();
    assert!(cases.len() >= 12, "{}", cases.len());
    for case in &cases {
        let name = &case["name"];
        let small = Small::of(case, |_, _| {});
        let before = logits(&small.model, case);
        for options in [
            json!({}),
            json!({"rotations": "R1", "transform_type": "random-hadamard"}),
            json!({"rotations": "R2"}),
            json!({"transform_type": "random-hadamard"}),
        ] {
            let job = Job::of(&small, &turn(&options));
            let made = job.made("safetensors");
            let after = logits(&made, case);
            let most = before
                .iter()
                .zip(&after)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            println!("{name} {options} {most}");
            assert!(most < 1e-3, "{name} {options}: {most}");
            assert_eq!(before.len(), after.len());
            let hidden = options["rotations"] != "R2";
            let turned = |name: &&crate::tensor::TensorInfo| {
                values_of(&small.model, &name.name).is_some_and(|v| Some(v) != values_of(&made, &name.name))
            };
            let changed = made.tensors.iter().filter(turned).count();
            assert!(
                changed >= 2 * network_of(&made).unwrap().sizes().blocks,
                "{name}: {changed}"
            );
            if hidden {
                assert_eq!(made.config.as_ref().unwrap()["tie_word_embeddings"], false);
                let head = network_of(&made).unwrap().head_tensors().pop();
                assert_eq!(head.as_deref(), Some("lm_head.weight"), "{name}");
            } else {
                assert_eq!(made.tensors.len(), small.model.tensors.len());
            }
        }
    }
}

#[test]
fn hadamard_makes_the_same_bytes_for_any_number_of_threads() {
    let digests = |threads: usize| {
        let small = Small::new("llama_gqa_tied");
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let job = pool.install(|| Job::of(&small, &turn(&json!({"transform_type": "random-hadamard"}))));
        let files = job.outcome.artifacts[0].files.iter();
        files.map(|file| file.sha256.clone()).collect::<Vec<_>>()
    };
    assert_eq!(digests(1), digests(3));
}

/// The seed draws the signs; without signs it changes nothing.
#[test]
fn hadamard_draws_signs_from_the_seed() {
    let embedding = |kind: &str, seed: u64| {
        let mut recipe = turn(&json!({"transform_type": kind}));
        recipe["seed"] = json!(seed);
        let made = Job::of(&Small::new("llama_gqa_tied"), &recipe).made("safetensors");
        values_of(&made, "model.embed_tokens.weight").unwrap()
    };
    assert_ne!(embedding("random-hadamard", 1), embedding("random-hadamard", 2));
    assert_eq!(embedding("random-hadamard", 1), embedding("random-hadamard", 1));
    assert_eq!(embedding("hadamard", 1), embedding("hadamard", 2));
}

/// What a later stage costs is measured against the turned weights.
#[test]
fn hadamard_is_what_later_stages_are_measured_against() {
    let small = Small::new("llama_gqa_tied");
    let report = |recipe: &Value| Job::of(&small, recipe).outcome.report;
    let alone = report(&turn(&json!({})));
    assert!(alone.tensors.iter().all(|t| t.mse == 0.0));
    let turned = report(&turned_int4("compressed-tensors"));
    assert!(turned.totals.snr_db.unwrap() > 15.0, "{:?}", turned.totals.snr_db);
    // One more tensor is written; what is saved is measured against what was uploaded.
    assert_eq!(alone.tensors.len(), small.model.tensors.len() + 1);
    assert_eq!(alone.totals.source_bytes, small.model.tensor_bytes());
    assert_eq!(alone.totals.source_bits_per_weight, 32.0);
    assert!(alone.formats[0].compression_ratio < 1.0);
}

#[test]
fn hadamard_combines_with_what_quantizes() {
    let case = case("llama_gqa_tied");
    let small = Small::of(&case, |_, _| {});
    let before = logits(&small.model, &case);
    let data = small.data(&rows(16));
    for second in [
        json!({"technique": "gptq", "options": {"n_bits": 8, "group_size": 16}}),
        json!({"technique": "awq", "options": {"n_bits": 8, "group_size": 16, "n_grid": 2}}),
        json!({"technique": "ggml", "options": {"type": "Q8_0"}}),
        json!({"technique": "hqq", "options": {"n_bits": 8, "group_size": 16}}),
    ] {
        for stages in [
            json!([{"technique": "hadamard"}, second]),
            json!([{"technique": "smoothquant"}, {"technique": "hadamard"}, second]),
        ] {
            let recipe = json!({"stages": stages, "formats": [{"format": "safetensors", "options": {"dtype": "F32"}}],
                "calibration": {"dataset": "mine", "num_samples": 16, "max_seq_length": 16}});
            let plan = small.plan(&recipe, &data).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let scratch = folder.path().join("scratch");
            let site = Site::on_cpu(folder.path(), &scratch);
            let outcome = execute(&plan, &small.model, &data, &site, &Silent).unwrap();
            let made = SourceFile::from_path(&folder.path().join("safetensors")).unwrap();
            let after = logits(&inspect(&made).unwrap(), &case);
            let square = |sum: f64, v: f32| sum + f64::from(v).powi(2);
            let error = before.iter().zip(&after).map(|(a, b)| a - b).fold(0.0, square);
            let cost = (error / before.iter().copied().fold(0.0, square)).sqrt();
            println!("{stages} {cost}");
            assert!(cost < 0.05, "{stages}: {cost}");
            assert!(outcome.report.totals.snr_db.unwrap() > 30.0, "{stages}");
        }
    }
}

/// Formats that describe the model themselves see the head of its own too.
#[test]
fn hadamard_unties_in_several_formats() {
    let small = Small::new("llama_gqa_tied");
    for format in ["compressed-tensors", "safetensors"] {
        let job = Job::of(&small, &turned_int4(format));
        let folder = job.folder.path().join(format);
        let config: Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["tie_word_embeddings"], false, "{format}");
        // The tensors alone: a checkpoint that says it is quantized is not opened.
        let tensors = SourceFile::from_path(&folder.join("model.safetensors")).unwrap();
        let made = inspect(&tensors).unwrap();
        let find = |name: &str| values_of(&made, name);
        let (table, head) = (
            find("model.embed_tokens.weight").unwrap(),
            find("lm_head.weight").unwrap(),
        );
        assert_ne!(table, head, "{format}");
    }
}

#[test]
fn hadamard_refuses_what_cannot_be_turned() {
    let none = Datasets::new();
    let refusal = |name: &str, recipe: &Value| Small::new(name).refusal(recipe, &none);
    for name in ["bert", "gpt2"] {
        let place = "/stages/0/technique".to_owned();
        assert_eq!(refusal(name, &turn(&json!({}))), (place, "no_rotatable_residual"));
    }
    let mut part = turn(&json!({}));
    part["stages"][0]["ignore"] = json!(["re:.*up_proj"]);
    let targets = "/stages/0/targets".to_owned();
    assert_eq!(refusal("llama_mha", &part), (targets, "partial_rotation"));
    let late = json!({"stages": [{"technique": "rtn", "options": {"granularity": "channel"}},
        {"technique": "hadamard"}], "formats": ["safetensors"]});
    let targets = "/stages/1/targets".to_owned();
    assert_eq!(refusal("llama_mha", &late), (targets, "already_quantized"));
    let unknown = turn(&json!({"rotations": "R3"}));
    let option = "/stages/0/options/rotations".to_owned();
    assert_eq!(refusal("llama_mha", &unknown), (option, "invalid_option"));
}
