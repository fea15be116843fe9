//! Calibrated jobs on a tiny LLaMA: the same bytes however they are run, and refusals before they are.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/llama.rs"]
mod llama;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use modelpress_engine::observe::{Level, Silent};
use modelpress_engine::{
    Checkpoint, Class, Compute, Dataset, Datasets, Error, Observer, Outcome, Plan, Recipe, Refusal, Site,
    SourceFile, Usage, execute, inspect, plan,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn recipe(more: &Value) -> Recipe {
    let mut recipe = json!({
        "stages": [{"technique": "gptq", "options": {"group_size": 32}}],
        "formats": ["compressed-tensors"],
        "calibration": {"dataset": "ids", "num_samples": 12, "max_seq_length": 24}
    });
    let (fields, more) = (
        recipe.as_object_mut().expect("an object"),
        more.as_object().expect("an object"),
    );
    fields.extend(more.clone());
    Recipe::from_value(&recipe).expect("a recipe")
}

/// Token ids, so that no tokenizer is needed.
fn ids(folder: &Path) -> Datasets {
    let path = folder.join("ids.jsonl");
    let row = |r: usize| {
        let ids: Vec<usize> = (0..30)
            .map(|i| (r * 31 + i * i * 7 + i * r) % llama::VOCAB)
            .collect();
        json!({"input_ids": ids}).to_string()
    };
    fs::write(&path, (0..16).map(row).collect::<Vec<_>>().join("\n")).expect("writes");
    named("ids", &path)
}

fn named(name: &str, path: &Path) -> Datasets {
    let mut datasets = Datasets::new();
    let files = SourceFile::from_path(path).expect("a file");
    datasets.insert(name, Dataset::open(&files).expect("a dataset"));
    datasets
}

struct House {
    folder: TempDir,
    model: Checkpoint,
    datasets: Datasets,
}

fn house() -> House {
    let folder = TempDir::new().expect("a folder");
    let source = folder.path().join("model");
    fs::create_dir(&source).expect("makes");
    llama::write(&source);
    House {
        model: inspect(&SourceFile::from_path(&source).expect("files")).expect("opens"),
        datasets: ids(folder.path()),
        folder,
    }
}

impl House {
    fn plan(&self, more: &Value) -> Plan {
        plan(&recipe(more), &self.model, &self.datasets).expect("plans")
    }

    /// Runs in a folder of this name; what an earlier run of that name left in scratch is there.
    fn run(&self, plan: &Plan, name: &str, observer: &dyn Observer) -> Result<Outcome, Error> {
        self.run_on(Compute::cpu(), plan, name, observer)
    }

    fn run_on(
        &self,
        compute: Compute,
        plan: &Plan,
        name: &str,
        observer: &dyn Observer,
    ) -> Result<Outcome, Error> {
        let (out, scratch) = (
            self.folder.path().join(name),
            self.folder.path().join(format!("{name}-scratch")),
        );
        let site = Site {
            out: &out,
            scratch: &scratch,
            statistics: None,
            compute,
        };
        execute(plan, &self.model, &self.datasets, &site, observer)
    }
}

/// Digests of all files.
fn digests(outcome: &Outcome) -> BTreeMap<String, String> {
    let files = outcome.artifacts.iter().flat_map(|a| &a.files);
    files.map(|f| (f.name.clone(), f.sha256.clone())).collect()
}

/// Stops once it was asked so many times in a stage, and remembers what it was told.
#[derive(Default)]
struct Stopping {
    stage: String,
    after: usize,
    now: Mutex<String>,
    asked: AtomicUsize,
    told: Mutex<Vec<String>>,
    /// How much later it is at every look at the clock.
    tick: f64,
    looks: AtomicUsize,
}

impl Observer for Stopping {
    fn stage(&self, name: &str, _index: usize, _of: usize) {
        name.clone_into(&mut self.now.lock().expect("no panic"));
    }
    fn advanced(&self, done: u64, total: u64, _detail: &str) {
        assert!(done <= total);
    }
    fn event(&self, _level: Level, message: &str, _data: Value) {
        self.told.lock().expect("no panic").push(message.to_owned());
    }
    fn should_stop(&self) -> bool {
        *self.now.lock().expect("no panic") == self.stage
            && self.asked.fetch_add(1, Ordering::Relaxed) >= self.after
    }
    fn usage(&self) -> Usage {
        Usage {
            elapsed_seconds: self.looks.fetch_add(1, Ordering::Relaxed) as f64 * self.tick,
            ..Usage::default()
        }
    }
}

#[test]
fn the_number_of_threads_and_the_memory_change_no_byte() {
    let house = house();
    let plan = house.plan(&json!({}));
    let mut tight = plan.clone();
    tight.calibration.as_mut().expect("calibrated").activation_bytes = 5000;
    let with = |threads, plan: &Plan, name: &str| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool");
        let outcome = pool.install(|| house.run(plan, name, &Silent)).expect("runs");
        digests(&outcome)
    };
    let one = with(1, &plan, "one");
    assert_eq!(one, with(3, &plan, "three"));
    assert_eq!(
        one,
        with(2, &tight, "tight"),
        "activations that went to scratch came back the same"
    );
}

#[test]
fn a_stage_goes_on_behind_its_last_finished_block_to_the_same_bytes() {
    let house = house();
    let learned = json!({"group_size": 32, "n_bits": 3, "iters": 4, "batch_size": 4});
    for (technique, options, step) in [("gptq", json!({"group_size": 32}), 7), ("autoround", learned, 23)] {
        let stages = json!([{"technique": technique, "options": options}]);
        let plan = house.plan(&json!({"stages": stages}));
        let whole = house.run(&plan, &format!("{technique}-whole"), &Silent);
        let whole = digests(&whole.expect("runs"));
        let mut resumed = 0;
        for after in (0..).step_by(step) {
            let name = format!("{technique}-stopped-{after}");
            let stopping = Stopping {
                stage: technique.to_owned(),
                after,
                ..Stopping::default()
            };
            match house.run(&plan, &name, &stopping) {
                Ok(_) => break,
                Err(error) => assert_eq!(error.class, Class::Cancelled),
            }
            let going_on = Stopping::default();
            let outcome = house.run(&plan, &name, &going_on).expect("runs");
            assert_eq!(digests(&outcome), whole, "{technique} stopped after {after}");
            let told = going_on.told.into_inner().expect("no panic");
            resumed += usize::from(told.iter().any(|t| t.contains("an earlier attempt ended")));
        }
        assert!(
            resumed >= 3,
            "{resumed} runs of {technique} went on in the middle"
        );
    }
}

#[test]
fn tensors_that_took_long_are_not_made_again_to_the_same_bytes_and_report() {
    let house = house();
    let stages = json!([{"technique": "rtn", "options": {"group_size": 32}}]);
    let plan = house.plan(&json!({"stages": stages, "calibration": null}));
    let whole = house.run(&plan, "rtn-whole", &Silent).expect("runs");
    let slow = |after| Stopping {
        stage: "compress".to_owned(),
        after,
        tick: 60.0,
        ..Stopping::default()
    };
    let mut went_on = 0;
    for after in (0..).step_by(3) {
        let name = format!("rtn-stopped-{after}");
        match house.run(&plan, &name, &slow(after)) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.class, Class::Cancelled),
        }
        let going_on = slow(usize::MAX);
        let outcome = house.run(&plan, &name, &going_on).expect("runs");
        assert_eq!(digests(&outcome), digests(&whole), "stopped after {after}");
        assert_eq!(
            outcome.report.tensors, whole.report.tensors,
            "stopped after {after}"
        );
        let told = going_on.told.into_inner().expect("no panic");
        went_on += usize::from(told.iter().any(|t| t.contains("tensors were there already")));
    }
    assert!(went_on >= 3, "{went_on} runs went on in the middle");
    // What is made as quickly as it is read is not kept.
    let kept = house.folder.path().join("rtn-whole-scratch/tensors");
    assert!(!kept.exists());
}

#[test]
fn what_another_plan_left_in_scratch_is_not_used() {
    let house = house();
    let (plan, other) = (house.plan(&json!({})), house.plan(&json!({"seed": 1})));
    house.run(&other, "shared", &Silent).expect("runs");
    let watching = Stopping::default();
    let outcome = house.run(&plan, "shared", &watching).expect("runs");
    assert!(
        watching
            .told
            .into_inner()
            .expect("no panic")
            .iter()
            .all(|t| !t.contains("earlier"))
    );
    assert_eq!(
        digests(&outcome),
        digests(&house.run(&plan, "fresh", &Silent).expect("runs"))
    );
}

/// Stages of every calibrated technique, in the orders that make sense.
fn calibrated_stages() -> Vec<Value> {
    let w8a8 = json!({"n_bits": 8, "granularity": "channel", "activations": "dynamic_token"});
    let learned = json!({"group_size": 32, "n_bits": 3, "iters": 6, "batch_size": 4});
    vec![
        json!([{"technique": "hadamard"}, {"technique": "gptq", "options": {"group_size": 32}}, {"technique": "kv_cache"}]),
        json!([{"technique": "smoothquant"}, {"technique": "rtn", "options": w8a8}, {"technique": "static_activations"}]),
        json!([{"technique": "awq", "options": {"group_size": 32}}]),
        json!([{"technique": "autoround", "options": learned}]),
    ]
}

#[test]
fn every_stage_can_be_stopped() {
    let house = house();
    let mut stopped = 0;
    for stages in calibrated_stages() {
        let plan = house.plan(&json!({"stages": stages, "evaluation": {"dataset": "ids", "num_samples": 4}}));
        let outcome = house
            .run(&plan, &format!("whole-{stopped}"), &Silent)
            .expect("runs");
        for stage in &outcome.report.stages {
            let stopping = Stopping {
                stage: stage.name.clone(),
                ..Stopping::default()
            };
            let error = house
                .run(&plan, &format!("stop-{stopped}"), &stopping)
                .expect_err("stops");
            assert_eq!(error.class, Class::Cancelled, "{}: {error}", stage.name);
            stopped += 1;
        }
    }
    assert!(stopped > 16, "{stopped}");
}

/// What a GPU would be asked to do, in the CPU's memory.
#[test]
fn candles_operations_calibrate_and_measure_as_our_kernels_do() {
    let house = house();
    for (at, stages) in calibrated_stages().into_iter().enumerate() {
        let plan =
            house.plan(&json!({"stages": stages, "evaluation": {"dataset": "ids", "num_samples": 12}}));
        let quality = |compute: Compute, name: &str| {
            let outcome = house.run_on(compute, &plan, &format!("{name}-{at}"), &Silent);
            outcome.expect("runs").report.quality.expect("evaluated")
        };
        let (ours, candles) = (
            quality(Compute::cpu(), "cpu"),
            quality(Compute::composed(), "composed"),
        );
        let measure = |quality: &modelpress_engine::evaluate::Quality, metric| {
            let measure = quality.measure(metric).expect("measured").clone();
            (measure.before.unwrap_or_default(), measure.after)
        };
        let ((before, after), (candles_before, candles_after)) =
            (measure(&ours, "perplexity"), measure(&candles, "perplexity"));
        assert!(
            (before / candles_before - 1.0).abs() < 1e-5,
            "{before} {candles_before}"
        );
        assert!(
            (after / candles_after - 1.0).abs() < 0.01,
            "{stages}: {after} {candles_after}"
        );
        let (kl, candles_kl) = (measure(&ours, "kl").1, measure(&candles, "kl").1);
        assert!(
            kl > 0.0 && (kl / candles_kl - 1.0).abs() < 0.2,
            "{stages}: {kl} {candles_kl}"
        );
    }
}

#[test]
fn calibration_leaves_less_error_in_the_outputs_than_rounding() {
    let house = house();
    let evaluation = json!({"dataset": "ids", "num_samples": 12});
    let kl = |technique: &str| {
        let stages = json!([{"technique": technique, "options": {"group_size": 32, "n_bits": 3}}]);
        let plan = house.plan(&json!({"stages": stages, "evaluation": evaluation}));
        let outcome = house.run(&plan, technique, &Silent).expect("runs");
        let quality = outcome.report.quality.expect("evaluated");
        let measure = quality.measure("kl").expect("kl").clone();
        assert!(measure.interval[0] <= measure.after && measure.after <= measure.interval[1]);
        measure.after
    };
    let (calibrated, rounded) = (kl("gptq"), kl("rtn"));
    assert!(calibrated < 0.7 * rounded, "{calibrated} {rounded}");
}

#[test]
fn a_missed_gate_is_told_with_the_measured_value() {
    let house = house();
    let gates = json!({"evaluation": {"dataset": "ids", "num_samples": 4}, "gates": {"max_kl": 1e-9}});
    let outcome = house.run(&house.plan(&gates), "gate", &Silent).expect("runs");
    let gate = outcome.gate.expect("missed");
    assert!(
        gate.contains("max_kl") && gate.contains("allows 0.000000001"),
        "{gate}"
    );
    let gates = json!({"evaluation": {"dataset": "ids", "num_samples": 4}, "gates": {"max_kl": 100.0}});
    assert_eq!(
        house
            .run(&house.plan(&gates), "kept", &Silent)
            .expect("runs")
            .gate,
        None
    );
}

/// The one refusal of a recipe.
fn refused(model: &Checkpoint, datasets: &Datasets, more: &Value) -> Refusal {
    match plan(&recipe(more), model, datasets) {
        Ok(_) => panic!("planned"),
        Err(mut refusals) => refusals.remove(0),
    }
}

#[test]
fn what_cannot_be_calibrated_is_refused_when_it_is_planned() {
    let house = house();
    let text = house.folder.path().join("text.txt");
    fs::write(&text, "a few words").expect("writes");
    let texts = named("text", &text);
    let at = |more: Value, datasets: &Datasets| {
        let refusal = refused(&house.model, datasets, &more);
        (refusal.pointer, refusal.code, refusal.detail)
    };
    let asks = json!({"calibration": {"dataset": "text", "max_seq_length": 64}});
    let (pointer, code, detail) = at(asks.clone(), &texts);
    assert_eq!(
        (pointer.as_str(), code),
        ("/calibration/dataset", "missing_tokenizer"),
        "{detail}"
    );

    let head = json!({"stages": [{"technique": "gptq", "options": {"group_size": 32}, "ignore": []}]});
    let (pointer, code, detail) = at(head, &house.datasets);
    assert_eq!(
        (pointer.as_str(), code),
        ("/stages/0/targets", "not_a_layer_of_a_block")
    );
    assert!(detail.contains("lm_head"), "{detail}");

    let far = house.folder.path().join("far.jsonl");
    fs::write(&far, json!({"input_ids": [1, 2, 50_000]}).to_string()).expect("writes");
    let (_, code, detail) = at(json!({}), &named("ids", &far));
    assert_eq!(code, "tokenizer_mismatch");
    assert!(
        detail.contains("50000") && detail.contains(&llama::VOCAB.to_string()),
        "{detail}"
    );

    let folder = house.folder.path().join("words");
    fs::create_dir(&folder).expect("makes");
    llama::write(&folder);
    let open = || inspect(&SourceFile::from_path(&folder).expect("files")).expect("opens");
    llama::write_tokenizer(&folder, llama::VOCAB);
    let refusal = refused(&open(), &texts, &asks);
    assert_eq!(
        (refusal.pointer.as_str(), refusal.code),
        ("/calibration/max_seq_length", "dataset_too_short")
    );
    assert!(refusal.detail.contains("64"), "{}", refusal.detail);
    llama::write_tokenizer(&folder, llama::VOCAB + 1);
    assert_eq!(refused(&open(), &texts, &asks).code, "tokenizer_mismatch");
    fs::write(folder.join("tokenizer.json"), "{").expect("writes");
    assert_eq!(refused(&open(), &texts, &asks).code, "invalid_tokenizer");

    let mut config: Value =
        serde_json::from_slice(&fs::read(folder.join("config.json")).expect("reads")).expect("JSON");
    config["model_type"] = json!("mamba");
    config["architectures"] = json!(["MambaForCausalLM"]);
    fs::write(folder.join("config.json"), config.to_string()).expect("writes");
    let refusal = refused(&open(), &house.datasets, &json!({}));
    assert_eq!(
        (refusal.pointer.as_str(), refusal.code),
        ("/stages/0/technique", "unsupported_architecture")
    );
    assert!(
        refusal.detail.contains("MambaForCausalLM") && refusal.detail.contains("llama"),
        "{}",
        refusal.detail
    );
}

#[test]
fn activations_that_are_no_numbers_are_named() {
    let folder = TempDir::new().expect("a folder");
    llama::write_with(folder.path(), |name, values| {
        if name.contains("layers.1.input_layernorm") {
            values[3] = f32::NAN;
        }
    });
    let model = inspect(&SourceFile::from_path(folder.path()).expect("files")).expect("opens");
    let datasets = ids(folder.path());
    let plan = plan(&recipe(&json!({})), &model, &datasets).expect("plans");
    let (out, scratch) = (folder.path().join("out"), folder.path().join("scratch"));
    let site = Site::on_cpu(&out, &scratch);
    let error = execute(&plan, &model, &datasets, &site, &Silent).expect_err("refuses");
    assert_eq!(
        (error.class, error.code),
        (Class::Numeric, "non_finite_activations")
    );
    assert!(error.message.contains("layers.1"), "{error}");
}
