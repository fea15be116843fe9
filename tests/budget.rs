//! Budgets on a tiny LLaMA: the limit holds, bytes go where they count, and what is chosen is a recipe like any other.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/llama.rs"]
#[expect(dead_code, reason = "other tests need a tokenizer")]
mod llama;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use modelpress_engine::observe::{Level, Silent};
use modelpress_engine::{
    Checkpoint, Class, Dataset, Datasets, Error, Observer, Outcome, Plan, Recipe, Refusal, Site, SourceFile,
    Usage, execute, inspect, plan,
};
use serde_json::{Value, json};
use tempfile::TempDir;

struct House {
    folder: TempDir,
    model: Checkpoint,
    datasets: Datasets,
}

/// Token ids that follow each other by a rule, so that the model's distributions are not those of noise.
fn ids(folder: &Path) -> Datasets {
    let path = folder.join("ids.jsonl");
    let row = |r: usize| {
        let ids: Vec<usize> = (0..48)
            .map(|i| (r * 31 + i * i * 7 + i * r) % llama::VOCAB)
            .collect();
        json!({"input_ids": ids}).to_string()
    };
    fs::write(&path, (0..24).map(row).collect::<Vec<_>>().join("\n")).expect("writes");
    let files = SourceFile::from_path(&path).expect("a file");
    let mut datasets = Datasets::new();
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
        datasets: ids(folder.path()),
        folder,
    }
}

/// Group-wise integers, 2 to 8 bits for each layer.
fn recipe(more: &Value) -> Recipe {
    let mut recipe = json!({
        "stages": [{"technique": "rtn", "options": {"group_size": 32}}], "formats": ["compressed-tensors"],
        "calibration": {"dataset": "ids", "num_samples": 16, "max_seq_length": 48},
        "evaluation": {"dataset": "ids", "num_samples": 24, "max_seq_length": 48, "metrics": ["kl", "perplexity"]},
    });
    let fields = recipe.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    Recipe::from_value(&recipe).expect("a recipe")
}

const ALL: [&str; 7] = ["W2", "W3", "W4", "W5", "W6", "W7", "W8"];

impl House {
    fn planned(&self, more: &Value) -> Result<Plan, Vec<Refusal>> {
        plan(&recipe(more), &self.model, &self.datasets)
    }

    fn budget(&self, limit: &str, value: impl Into<Value>) -> Plan {
        self.planned(&json!({"budget": {limit: value.into(), "candidates": ALL}}))
            .expect("plans")
    }

    fn bits(&self, options: &Value) -> Plan {
        let stages = json!([{"technique": "rtn", "options": options}]);
        self.planned(&json!({"stages": stages})).expect("plans")
    }

    fn run(&self, plan: &Plan, name: &str, observer: &dyn Observer) -> Result<Outcome, Error> {
        let (out, scratch) = (
            self.folder.path().join(name),
            self.folder.path().join(format!("{name}-scratch")),
        );
        execute(
            plan,
            &self.model,
            &self.datasets,
            &Site::on_cpu(&out, &scratch),
            observer,
        )
    }

    fn done(&self, plan: &Plan, name: &str) -> Outcome {
        self.run(plan, name, &Silent).expect("runs")
    }
}

fn digests(outcome: &Outcome) -> BTreeMap<String, String> {
    let files = outcome.artifacts.iter().flat_map(|a| &a.files);
    files.map(|f| (f.name.clone(), f.sha256.clone())).collect()
}

fn bytes(outcome: &Outcome) -> u64 {
    outcome.artifacts[0].planned().map(|f| f.bytes).sum()
}

fn kl(outcome: &Outcome) -> f64 {
    let quality = outcome.report.quality.as_ref().expect("evaluated");
    quality.measure("kl").expect("a divergence").after
}

#[test]
fn a_size_is_kept_and_spent_where_it_counts() {
    let house = house();
    let (four, eight) = (
        house.bits(&json!({"group_size": 32})),
        house.bits(&json!({"group_size": 32, "n_bits": 8})),
    );
    let target = u64::midpoint(four.formats[0].bytes, eight.formats[0].bytes);
    let planned = house.budget("target_bytes", target);
    assert!(planned.formats[0].bytes <= target);
    let chosen = house.done(&planned, "chosen");
    let allocation = chosen.report.allocation.as_ref().expect("a choice");
    assert!(allocation.held);
    // Exactly what was said, within the limit, and hardly below it.
    let written = bytes(&chosen);
    assert_eq!(written, chosen.report.formats[0].bytes);
    assert!(
        written <= target && written > target * 97 / 100,
        "{written} of {target}"
    );

    // The same bytes without looking: as many blocks from the front as fit have 8 bits, the others 4.
    let modules = |front: usize| json!({"group_size": 32, "tensor_bits": {"8": [format!(r"re:model\.layers\.[0-{front}]\.")]}});
    let naive = house.bits(&modules(1));
    assert!(
        naive.formats[0].bytes + 4096 > written,
        "{} {written}",
        naive.formats[0].bytes
    );
    let naive = house.done(&naive, "naive");
    assert!(kl(&chosen) < 0.8 * kl(&naive), "{} {}", kl(&chosen), kl(&naive));
    // And even all of them with 5 bits, which take more.
    let five = house.bits(&json!({"group_size": 32, "n_bits": 6}));
    if five.formats[0].bytes >= written {
        assert!(kl(&chosen) <= 1.05 * kl(&house.done(&five, "five")));
    }
}

/// vLLM multiplies by queries, keys and values at once.
#[test]
fn layers_that_the_engine_fuses_have_one_scheme() {
    let house = house();
    let outcome = house.done(&house.budget("target_bits_per_weight", 12.0), "fused");
    let schemes: HashMap<&str, &str> = outcome
        .report
        .allocation
        .iter()
        .flat_map(|a| &a.tensors)
        .map(|t| (t.name.as_str(), t.scheme.as_str()))
        .collect();
    assert_eq!(schemes.len(), 28);
    for block in 0..4 {
        let of = |part: &str| schemes[format!("model.layers.{block}.{part}_proj.weight").as_str()];
        assert!(of("self_attn.q") == of("self_attn.k") && of("self_attn.k") == of("self_attn.v"));
        assert_eq!(of("mlp.gate"), of("mlp.up"));
    }
}

#[test]
fn a_limit_on_quality_gets_the_smallest_that_keeps_it() {
    let house = house();
    let six = house.done(&house.bits(&json!({"group_size": 32, "n_bits": 6})), "six");
    let interval = |outcome: &Outcome| {
        let quality = outcome.report.quality.as_ref().expect("evaluated");
        quality.measure("kl").expect("a divergence").interval
    };
    // What 6 bits everywhere keep, so that a choice as good has at most their bytes.
    let most = interval(&six)[1] * 1.02;
    let outcome = house.done(&house.budget("max_kl", most), "kept");
    assert_eq!(outcome.gate, None);
    let allocation = outcome.report.allocation.as_ref().expect("a choice");
    assert!(allocation.held);
    assert!(interval(&outcome)[1] <= most, "{:?} {most}", interval(&outcome));
    assert!(
        bytes(&outcome) <= bytes(&six),
        "{} {}",
        bytes(&outcome),
        bytes(&six)
    );
    let kept = allocation.rounds.iter().filter(|round| round.kept).count();
    assert_eq!(kept, 1);
}

#[test]
fn a_limit_that_nothing_keeps_is_said_not_to_hold() {
    let house = house();
    let planned = house
        .planned(&json!({"budget": {"max_kl": 1e-7, "candidates": ["W2", "W3"]}}))
        .expect("plans");
    let outcome = house.done(&planned, "missed");
    let gate = outcome.gate.expect("a reason");
    for part in ["budget max_kl", "add larger candidates"] {
        assert!(gate.contains(part), "{gate}");
    }
    assert!(!outcome.report.allocation.expect("a choice").held);
}

#[test]
fn the_impossible_is_refused_with_the_smallest_that_is_possible() {
    let house = house();
    let refused = |field: &str, value: Value| {
        let refusals = house.planned(&json!({"budget": {field: value, "candidates": ["W3", "W4"]}}));
        let refusal = refusals.expect_err("is impossible").remove(0);
        assert_eq!(
            (refusal.pointer.as_str(), refusal.code),
            (format!("/budget/{field}").as_str(), "impossible_target")
        );
        let figure = refusal
            .detail
            .split("candidates (W3, W4) is ")
            .nth(1)
            .expect("a figure");
        figure
            .split(' ')
            .next()
            .expect("a number")
            .parse::<f64>()
            .expect("a number")
    };
    let bytes = refused("target_bytes", json!(1000)) as u64;
    let bits = refused("target_bits_per_weight", json!(0.5));
    // What it says is possible.
    assert!(
        house
            .planned(&json!({"budget": {"target_bytes": bytes - 1, "candidates": ["W3", "W4"]}}))
            .is_err()
    );
    let planned = house
        .planned(&json!({"budget": {"target_bytes": bytes, "candidates": ["W3", "W4"]}}))
        .expect("plans");
    let outcome = house.done(&planned, "smallest");
    assert_eq!(outcome.report.formats[0].bytes, bytes);
    house
        .planned(&json!({"budget": {"target_bits_per_weight": bits, "candidates": ["W3", "W4"]}}))
        .expect("plans");
}

#[test]
fn a_size_into_which_everything_fits_is_no_limit() {
    let house = house();
    for (field, value) in [
        ("target_bytes", json!(u64::MAX)),
        ("target_bits_per_weight", json!(1e300)),
    ] {
        let planned = house.budget(field, value);
        let outcome = house.done(&planned, field);
        let allocation = outcome.report.allocation.expect("a choice");
        assert!(
            allocation.tensors.iter().all(|t| t.scheme == "W8"),
            "{:?}",
            allocation.tensors
        );
        assert_eq!(outcome.report.formats[0].bytes, allocation.largest_bytes);
    }
}

#[test]
fn a_budget_that_makes_no_sense_is_refused_at_its_field() {
    let house = house();
    let gptq = json!([{"technique": "gptq", "options": {"group_size": 32}}]);
    let two = json!(["compressed-tensors", "safetensors"]);
    for (more, pointer, code) in [
        (
            json!({"budget": {"max_kl": 0.1}, "stages": gptq}),
            "/budget",
            "nothing_to_choose",
        ),
        (
            json!({"budget": {"max_kl": 0.1}, "formats": two}),
            "/formats",
            "budget_of_one_format",
        ),
        (
            json!({"budget": {"max_kl": 0.1, "candidates": ["W4", "Q4_K"]}}),
            "/budget/candidates/1",
            "unknown_scheme",
        ),
    ] {
        let refusal = house.planned(&more).expect_err("is refused").remove(0);
        assert_eq!(
            (refusal.pointer.as_str(), refusal.code),
            (pointer, code),
            "{}",
            refusal.detail
        );
    }
    for (budget, pointer, code) in [
        (json!({}), "/budget", "one_limit"),
        (json!({"max_kl": 0.1, "target_bytes": 5}), "/budget", "one_limit"),
        (json!({"max_kl": -1}), "/budget/max_kl", "out_of_range"),
        (
            json!({"target_bytes": 1.5}),
            "/budget/target_bytes",
            "out_of_range",
        ),
        (
            json!({"max_kl": 0.1, "candidates": []}),
            "/budget/candidates",
            "out_of_range",
        ),
        (
            json!({"max_kl": 0.1, "max_rounds": 0}),
            "/budget/max_rounds",
            "out_of_range",
        ),
        (json!({"max_size": 1}), "/budget/max_size", "unknown_field"),
    ] {
        let refusal = Recipe::from_value(&json!({"preset": "W4A16", "budget": budget}));
        let refusal = refusal.expect_err("is refused").remove(0);
        assert_eq!(
            (refusal.pointer.as_str(), refusal.code),
            (pointer, code),
            "{}",
            refusal.detail
        );
    }
    let declined = json!({"preset": "W4A16", "evaluation": false, "budget": {"max_kl": 0.1}});
    let refusal = Recipe::from_value(&declined).expect_err("is refused").remove(0);
    assert_eq!(refusal.code, "budget_without_evaluation");
    let unmeasured = json!({"preset": "W4A16", "evaluation": {"metrics": ["kl"]}, "budget": {"max_perplexity_increase": 0.1}});
    let refusal = Recipe::from_value(&unmeasured).expect_err("is refused").remove(0);
    assert_eq!(refusal.pointer, "/budget/max_perplexity_increase");
}

/// The report's recipe has the choice spelled out: it makes the same files by itself, without a search.
#[test]
fn what_was_chosen_is_a_recipe() {
    let house = house();
    let outcome = house.done(&house.budget("target_bits_per_weight", 14.0), "chosen");
    let recipe = &outcome.report.recipe;
    assert_eq!(recipe.budget, None);
    let text = serde_json::to_value(recipe).expect("JSON");
    let again = plan(
        &Recipe::from_value(&text).expect("a recipe"),
        &house.model,
        &house.datasets,
    )
    .expect("plans");
    let again = house.done(&again, "again");
    assert!(again.report.allocation.is_none());
    let weights = |outcome: &Outcome| -> Vec<String> {
        let files = outcome.artifacts[0].planned();
        files.map(|file| file.sha256.clone()).collect()
    };
    assert_eq!(weights(&again), weights(&outcome));
}

/// Stops at the n-th question in a leg, and remembers what was measured.
#[derive(Default)]
struct Stopping {
    leg: &'static str,
    after: usize,
    now: Mutex<(String, usize)>,
    told: Mutex<Vec<String>>,
}

impl Observer for Stopping {
    fn stage(&self, name: &str, _index: usize, _of: usize) {
        name.clone_into(&mut self.now.lock().expect("no panic").0);
    }
    fn advanced(&self, done: u64, total: u64, _detail: &str) {
        assert!(done <= total);
    }
    fn event(&self, _level: Level, message: &str, _data: Value) {
        self.told.lock().expect("no panic").push(message.to_owned());
    }
    fn should_stop(&self) -> bool {
        let mut now = self.now.lock().expect("no panic");
        if now.0 == self.leg {
            now.1 += 1;
        }
        now.0 == self.leg && now.1 > self.after
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

#[test]
fn a_search_goes_on_where_it_was_stopped_to_the_same_bytes_and_measures_nothing_twice() {
    let house = house();
    let planned = house.budget("target_bits_per_weight", 14.0);
    let whole = house.done(&planned, "whole");
    let watching = Stopping {
        leg: "none",
        ..Stopping::default()
    };
    house.run(&planned, "watched", &watching).expect("runs");
    let trials = |observer: Stopping| {
        let told = observer.told.into_inner().expect("no panic");
        told.into_iter().filter(|t| t.contains("kl ")).collect::<Vec<_>>()
    };
    let all = trials(watching);
    assert!(all.len() >= 5, "{all:?}");
    let mut went_on = 0;
    for (leg, step) in [("fisher", 200), ("losses", 60), ("choose", 45)] {
        for after in (0..).step_by(step) {
            let name = format!("{leg}-{after}");
            let stopping = Stopping {
                leg,
                after,
                ..Stopping::default()
            };
            match house.run(&planned, &name, &stopping) {
                Ok(_) => break,
                Err(error) => assert_eq!(error.class, Class::Cancelled, "{error}"),
            }
            let before = trials(stopping);
            let going_on = Stopping {
                leg: "none",
                ..Stopping::default()
            };
            let outcome = house.run(&planned, &name, &going_on).expect("runs");
            assert_eq!(
                digests(&outcome),
                digests(&whole),
                "stopped after {after} in {leg}"
            );
            assert_eq!(outcome.report.allocation, whole.report.allocation);
            let behind = trials(going_on);
            went_on += usize::from(!before.is_empty());
            assert_eq!([before, behind].concat(), all, "stopped after {after} in {leg}");
        }
    }
    assert!(went_on >= 3, "{went_on} searches went on behind a trial");
}

#[test]
fn the_number_of_threads_changes_no_choice() {
    let house = house();
    let planned = house.budget("max_kl", 0.01);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool");
        pool.install(|| house.done(&planned, &format!("with-{threads}")))
    };
    let (one, three) = (with(1), with(3));
    assert_eq!(digests(&one), digests(&three));
    assert_eq!(one.report.allocation, three.report.allocation);
}

/// Divergences of sizes that were not tried, against what the curve of another search says of them.
#[test]
fn what_is_predicted_of_other_sizes_is_what_they_lose() {
    let house = house();
    let outcome = house.done(&house.budget("target_bits_per_weight", 13.0), "middle");
    let allocation = outcome.report.allocation.expect("a choice");
    let (mut within, mut tried) = (0, 0);
    for point in allocation.curve.iter().filter(|point| point.predicted_kl > 1e-6) {
        let held = house.done(
            &house.budget("target_bytes", point.bytes),
            &format!("held-{}", point.bytes),
        );
        let [low, high] = point.predicted_kl_interval;
        tried += 1;
        within += usize::from((low..=high).contains(&kl(&held)));
    }
    assert!(tried >= 8 && within * 10 >= tried * 7, "{within} of {tried}");
}
