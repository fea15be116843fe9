//! What every technique promises, run over the list of them.

use super::*;
use crate::execute::Artifact;
use crate::formats::WRITERS;
use crate::observe::{Level, Observer, Usage};
use crate::techniques::{TECHNIQUES, Technique};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A model and options for a technique, and what must come before it.
pub(super) struct Specimen {
    family: &'static str,
    before: Vec<Value>,
    options: Value,
}

/// A technique without a specimen is not finished.
pub(super) fn specimen(technique: &str) -> Specimen {
    let groups = || json!({"group_size": 16});
    let (family, options) = match technique {
        "autoround" => ("llama_gqa_tied", json!({"group_size": 16, "iters": 3})),
        "awq" | "gptq" | "hqq" | "rtn" => ("llama_gqa_tied", groups()),
        "cp" | "depthwise_separable" | "spatial_svd" | "tensor_train" | "tucker" => ("resnet", json!({})),
        "ggml" => ("llama_gqa_tied", json!({"type": "Q8_0"})),
        "gqa" => ("llama_biases", json!({"num_key_value_heads": 1})),
        "kmeans" => ("bert_classes", json!({"n_centroids": 8})),
        "loftq" | "lqer" => ("llama_gqa_tied", json!({"rank": 4, "double_quant": true})),
        "magnitude" => ("gpt2", json!({"scope": "global"})),
        "moefication" => (
            "llama_gqa_tied",
            json!({"num_experts": 4, "num_experts_per_tok": 2}),
        ),
        "prune_blocks" | "prune_heads" | "share_blocks" => ("llama_gqa_tied", json!({"keep": 1})),
        "prune_experts" => ("mixtral", json!({"ratio": 0.25, "merge": true})),
        "prune_hidden" => ("llama_gqa_tied", json!({"ratio": 0.25, "multiple_of": 8})),
        "prune_neurons" => ("gpt2", json!({"ratio": 0.5, "multiple_of": 1})),
        "sparsegpt" => ("mixtral", json!({"pattern": "2:4"})),
        "upcycle" => ("llama_gqa_tied", json!({"num_experts": 4, "noise": 0.1})),
        "svd" => ("llama_gqa_tied", json!({"energy": 0.6})),
        "whitened_svd" => ("llama_gqa_tied", json!({"ratio": 0.6, "allocation": "loss"})),
        "fp8" | "hadamard" | "kv_cache" | "nf4" | "obd" | "smoothquant" | "static_activations" | "wanda" => {
            ("llama_gqa_tied", json!({}))
        }
        other => panic!("{other} has no specimen: say here on what it can be tried"),
    };
    let eight_bits = json!({"technique": "rtn",
        "options": {"n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}});
    let before = if technique == "static_activations" {
        vec![eight_bits]
    } else {
        Vec::new()
    };
    Specimen {
        family,
        before,
        options,
    }
}

impl Specimen {
    pub(super) fn recipe(&self, technique: &str, format: &str, small: &Small) -> Value {
        let names = small
            .model
            .tensors
            .iter()
            .map(|t| t.name.trim_end_matches(".weight"));
        let outside = |name: &&str| {
            let heads = ["pooler", "lm_head", "cls.", "vocab_", "classifier.dense"];
            heads.iter().any(|part| name.contains(part))
                || ["classifier", "out_proj", "block_sparse_moe.gate"]
                    .iter()
                    .any(|end| name.ends_with(end) && !name.contains("attn"))
        };
        let ignored: Vec<&str> = names.filter(outside).collect();
        let stage = json!({"technique": technique, "options": self.options, "ignore": ignored});
        let mut stages = self.before.clone();
        stages.push(stage);
        json!({"stages": stages, "formats": [format], "calibration": {"dataset": "mine", "max_seq_length": 16}})
    }
}

fn every(law: impl Fn(&dyn Technique, &Specimen, &Small, &Datasets)) {
    for technique in TECHNIQUES {
        let specimen = specimen(technique.name());
        let small = Small::new(specimen.family);
        let data = small.data(&rows(14));
        law(*technique, &specimen, &small, &data);
    }
}

/// The first format that holds what a technique makes.
fn a_format(technique: &dyn Technique, specimen: &Specimen, small: &Small, data: &Datasets) -> String {
    let holds = |format: &&str| {
        small
            .plan(&specimen.recipe(technique.name(), format, small), data)
            .is_ok()
    };
    let formats = ["safetensors", "compressed-tensors"];
    let found = formats.into_iter().find(|format| holds(format));
    found
        .unwrap_or_else(|| panic!("{} fits no format", technique.name()))
        .to_owned()
}

/// Digests of what is written, by name.
fn written(
    small: &Small,
    plan: &Plan,
    data: &Datasets,
    place: &Path,
    observer: &dyn Observer,
) -> Result<BTreeMap<String, String>, Error> {
    let site_out = place.join("out");
    let _earlier = std::fs::remove_dir_all(&site_out);
    let scratch = place.join("scratch");
    let outcome = execute(
        plan,
        &small.model,
        data,
        &Site::on_cpu(&site_out, &scratch),
        observer,
    )?;
    for (format, report) in plan.formats.iter().zip(&outcome.report.formats) {
        assert!(report.bytes == format.bytes || (format.at_most && report.bytes < format.bytes));
    }
    let files = outcome.artifacts.iter().flat_map(Artifact::planned);
    Ok(files.map(|f| (f.name.clone(), f.sha256.clone())).collect())
}

#[test]
fn the_same_bytes_come_out_for_any_number_of_threads() {
    every(|technique, specimen, small, data| {
        let format = a_format(technique, specimen, small, data);
        let plan = small
            .plan(&specimen.recipe(technique.name(), &format, small), data)
            .unwrap();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let place = tempfile::tempdir().unwrap();
            pool.install(|| written(small, &plan, data, place.path(), &Silent).unwrap())
        };
        assert_eq!(run(1), run(3), "{}", technique.name());
    });
}

/// Names and shapes of the plan are those of the file.
#[test]
fn what_is_written_has_the_shapes_that_were_declared() {
    every(|technique, specimen, small, data| {
        let recipe = specimen.recipe(technique.name(), "safetensors", small);
        let Ok(plan) = small.plan(&recipe, data) else {
            return;
        };
        let (made, _) = small.made(&recipe, data, "safetensors");
        let declared: BTreeMap<&str, &Vec<usize>> =
            plan.tensors.iter().map(|t| (t.name.as_str(), &t.shape)).collect();
        let found: BTreeMap<&str, &Vec<usize>> =
            made.tensors.iter().map(|t| (t.name.as_str(), &t.shape)).collect();
        assert_eq!(declared, found, "{}", technique.name());
    });
}

/// Every format holds what a technique makes, and reads it back, or says when a job is planned that it cannot.
#[test]
fn every_format_holds_it_or_says_so_at_once() {
    every(|technique, specimen, small, data| {
        let mut held = 0;
        for format in WRITERS {
            let recipe = specimen.recipe(technique.name(), format.name(), small);
            match small.plan(&recipe, data) {
                Ok(plan) => {
                    let place = tempfile::tempdir().unwrap();
                    let files = written(small, &plan, data, place.path(), &Silent).unwrap();
                    assert!(!files.is_empty(), "{} as {}", technique.name(), format.name());
                    held += 1;
                }
                Err(refusals) => {
                    for refusal in refusals {
                        assert!(
                            !refusal.code.is_empty() && refusal.detail.len() > 20,
                            "{refusal:?}"
                        );
                        assert!(
                            refusal.pointer.starts_with("/formats/0")
                                || refusal.pointer.starts_with("/stages/")
                        );
                    }
                }
            }
        }
        assert!(held > 0, "{}", technique.name());
    });
}

/// Says so after so many questions.
struct Stopping {
    left: AtomicUsize,
    asked_on: AtomicUsize,
}

impl Observer for Stopping {
    fn stage(&self, _name: &str, _index: usize, _of: usize) {}
    fn advanced(&self, _done: u64, _total: u64, _detail: &str) {}
    fn event(&self, _level: Level, _message: &str, _data: Value) {}
    fn should_stop(&self) -> bool {
        let stop = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_err();
        self.asked_on.fetch_add(usize::from(stop), Ordering::SeqCst);
        stop
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// Wherever it is stopped it ends with that, soon, and goes on to the same bytes.
#[test]
fn it_stops_when_asked_and_goes_on_to_the_same_bytes() {
    every(|technique, specimen, small, data| {
        let format = a_format(technique, specimen, small, data);
        let plan = small
            .plan(&specimen.recipe(technique.name(), &format, small), data)
            .unwrap();
        let place = tempfile::tempdir().unwrap();
        let right = written(small, &plan, data, place.path(), &Silent).unwrap();
        let place = tempfile::tempdir().unwrap();
        let mut questions = 1;
        loop {
            let observer = Stopping {
                left: AtomicUsize::new(questions),
                asked_on: AtomicUsize::new(0),
            };
            match written(small, &plan, data, place.path(), &observer) {
                Ok(files) => {
                    assert_eq!(files, right, "{} behind {questions} questions", technique.name());
                    break;
                }
                Err(error) => assert_eq!(error.code, "cancelled", "{}: {error}", technique.name()),
            }
            // A few threads may be told at once, no work goes on behind that.
            let asked_on = observer.asked_on.load(Ordering::SeqCst);
            assert!(asked_on <= 64, "{} asked {asked_on} times more", technique.name());
            questions = questions * 2 + 1;
        }
    });
}

#[test]
fn wrong_options_are_refused_by_name() {
    every(|technique, specimen, small, data| {
        let place = format!("/stages/{}/options", specimen.before.len());
        let with = |name: &str, value: Value| {
            let mut recipe = specimen.recipe(technique.name(), "safetensors", small);
            recipe["stages"][specimen.before.len()]["options"] = json!({name: value});
            small.refusal(&recipe, data)
        };
        let unknown = with("no_such_option", json!(1));
        assert_eq!(
            unknown,
            (format!("{place}/no_such_option"), "unknown_field"),
            "{}",
            technique.name()
        );
        let schema = technique.schema();
        assert_eq!(schema["additionalProperties"], false);
        for (name, property) in schema["properties"].as_object().unwrap() {
            let said = property["description"].as_str().unwrap_or_default();
            assert!(said.len() > 10, "{} {name}: {said:?}", technique.name());
            if property.get("anyOf").is_some() || property["type"] == "object" {
                continue;
            }
            let wrong = match property["type"].as_str() {
                Some("boolean") => json!("yes"),
                Some("string") => json!(17),
                _ => json!(-1.5),
            };
            assert_eq!(
                with(name, wrong),
                (format!("{place}/{name}"), "invalid_option"),
                "{}",
                technique.name()
            );
        }
    });
}
