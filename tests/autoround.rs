//! Learned rounding on a tiny LLaMA: what it is worth, the same bytes however it runs, refusals.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[expect(dead_code, reason = "tokenizers are for tests that read text")]
#[path = "support/llama.rs"]
mod llama;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use modelpress_engine::observe::{Level, Silent};
use modelpress_engine::{
    Checkpoint, Class, Dataset, Datasets, Error, Observer, Outcome, Recipe, Site, SourceFile, Usage, execute,
    inspect, plan,
};
use serde_json::{Value, json};
use tempfile::TempDir;

struct House {
    folder: TempDir,
    model: Checkpoint,
    datasets: Datasets,
}

/// Token ids, so that no tokenizer is needed.
fn ids(path: &Path) -> Datasets {
    let row = |r: usize| {
        let ids: Vec<usize> = (0..30)
            .map(|i| (r * 31 + i * i * 7 + i * r) % llama::VOCAB)
            .collect();
        json!({"input_ids": ids}).to_string()
    };
    fs::write(path, (0..48).map(row).collect::<Vec<_>>().join("\n")).expect("writes");
    let mut datasets = Datasets::new();
    let files = SourceFile::from_path(path).expect("a file");
    datasets.insert("ids", Dataset::open(&files).expect("a dataset"));
    datasets
}

fn house() -> House {
    let folder = TempDir::new().expect("a folder");
    let source = folder.path().join("model");
    fs::create_dir(&source).expect("makes");
    llama::write(&source);
    House {
        model: inspect(&SourceFile::from_path(&source).expect("files")).expect("opens"),
        datasets: ids(&folder.path().join("ids.jsonl")),
        folder,
    }
}

fn recipe(technique: &str, options: &Value) -> Recipe {
    let recipe = json!({
        "stages": [{"technique": technique, "options": options}],
        "formats": ["compressed-tensors"],
        "calibration": {"dataset": "ids", "num_samples": 40, "max_seq_length": 24},
        "evaluation": {"dataset": "ids", "num_samples": 40, "max_seq_length": 24, "metrics": ["kl", "layer_error"]}
    });
    Recipe::from_value(&recipe).expect("a recipe")
}

/// Three bits, so that errors are large; options of learning beside them.
fn learned(more: &Value) -> Value {
    let mut options = json!({"n_bits": 3, "group_size": 32, "iters": 60, "batch_size": 8});
    let fields = options.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    options
}

impl House {
    fn run(&self, recipe: &Recipe, observer: &dyn Observer) -> Result<Outcome, Error> {
        let plan = plan(recipe, &self.model, &self.datasets).expect("plans");
        let out = tempfile::tempdir_in(self.folder.path()).expect("a folder");
        let scratch = out.path().join("scratch");
        let site = Site::on_cpu(out.path(), &scratch);
        execute(&plan, &self.model, &self.datasets, &site, observer)
    }

    /// Error of the hidden states behind the first block, and the divergence at the end.
    fn cost(&self, technique: &str, options: &Value) -> (f64, f64) {
        let outcome = self.run(&recipe(technique, options), &Silent).expect("runs");
        let quality = outcome.report.quality.expect("evaluated");
        let kl = quality.measure("kl").expect("kl").after;
        (quality.layers[0].relative_error, kl)
    }
}

#[test]
fn learned_rounding_costs_less_than_gptq_and_that_less_than_nearest() {
    let house = house();
    for symmetric in [true, false] {
        let plain = json!({"n_bits": 3, "group_size": 32, "symmetric": symmetric});
        let nearest = house.cost("rtn", &plain);
        let gptq = house.cost("gptq", &plain);
        let from_nearest = house.cost(
            "autoround",
            &learned(&json!({"symmetric": symmetric, "start": "nearest"})),
        );
        let from_gptq = house.cost("autoround", &learned(&json!({"symmetric": symmetric})));
        println!("{symmetric}: {nearest:?} {gptq:?} {from_nearest:?} {from_gptq:?}");
        assert!(from_nearest.0 < 0.8 * nearest.0, "{from_nearest:?} {nearest:?}");
        assert!(from_gptq.0 < 0.95 * gptq.0, "{from_gptq:?} {gptq:?}");
        assert!(from_gptq.1 < gptq.1 && gptq.1 < nearest.1);
    }
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let house = house();
    let options =
        learned(&json!({"iters": 12, "n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool");
        let outcome = pool.install(|| house.run(&recipe("autoround", &options), &Silent));
        let files = outcome.expect("runs").artifacts.into_iter().flat_map(|a| a.files);
        files.map(|f| (f.name, f.sha256)).collect::<Vec<_>>()
    };
    assert_eq!(with(1), with(3));
}

/// Stops once it was asked so many times, and remembers what it was told.
#[derive(Default)]
struct Stopping {
    after: Option<usize>,
    asked: AtomicUsize,
    told: Mutex<Vec<(String, Value)>>,
}

impl Observer for Stopping {
    fn stage(&self, _name: &str, _index: usize, _of: usize) {}
    fn advanced(&self, _done: u64, _total: u64, _detail: &str) {}
    fn event(&self, _level: Level, message: &str, data: Value) {
        self.told
            .lock()
            .expect("no panic")
            .push((message.to_owned(), data));
    }
    fn should_stop(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        self.after.is_some_and(|after| asked >= after)
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

#[test]
fn each_block_tells_what_it_learned_and_steps_can_be_stopped() {
    let house = house();
    let recipe = recipe("autoround", &learned(&json!({"iters": 16})));
    let watching = Stopping::default();
    house.run(&recipe, &watching).expect("runs");
    let told = watching.told.into_inner().expect("no panic");
    let losses: Vec<_> = told
        .iter()
        .filter_map(|(_, data)| Some((data["loss_before"].as_f64()?, data["loss_after"].as_f64()?)))
        .collect();
    assert_eq!(losses.len(), 4, "{told:?}");
    assert!(losses.iter().all(|(before, after)| after <= before), "{losses:?}");
    let asked = watching.asked.load(Ordering::Relaxed);
    for after in (0..asked / 2).step_by(asked / 9) {
        let stopping = Stopping {
            after: Some(after),
            ..Stopping::default()
        };
        let error = house.run(&recipe, &stopping).expect_err("stops");
        assert_eq!(error.class, Class::Cancelled, "{after}: {error}");
        let asked = stopping.asked.load(Ordering::Relaxed);
        assert!(asked < after + 16, "{asked} {after}");
    }
}

#[test]
fn options_that_cannot_be_are_refused_when_they_are_planned() {
    let house = house();
    for (options, pointer, code) in [
        (json!({"n_bits": 9}), "/stages/0/options/n_bits", "invalid_option"),
        (json!({"iters": 0}), "/stages/0/options/iters", "invalid_option"),
        (json!({"lr": -0.1}), "/stages/0/options/lr", "invalid_option"),
        (
            json!({"group_size": 48}),
            "/stages/0/options/group_size",
            "group_size_does_not_divide",
        ),
    ] {
        let refusals =
            plan(&recipe("autoround", &options), &house.model, &house.datasets).expect_err("refused");
        assert_eq!((refusals[0].pointer.as_str(), refusals[0].code), (pointer, code));
    }
}
