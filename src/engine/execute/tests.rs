//! Small models through plan and execution: what compression does to what they answer.

use super::{Outcome, Site, execute};
use crate::checkpoint::{Checkpoint, SourceFile, inspect};
use crate::dataset::{Dataset, Datasets};
use crate::error::Error;
use crate::models::network_of;
use crate::models::tests::{File, case, forward, shape_of, values};
use crate::network::{Batch, Ops};
use crate::observe::Silent;
use crate::plan::{Plan, plan};
use crate::recipe::{Recipe, Refusal};
use crate::report::html;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

mod budget;
mod channels;
mod convolutions;
mod correction;
mod factoring;
mod families;
mod hadamard;
mod heads;
mod laws;
mod provenance;
mod pruning;
mod sharing;
mod sharing_blocks;
mod sparse;
mod structure;

/// A model of the golden file whose weights are what bfloat16 holds of them.
struct Small {
    folder: TempDir,
    model: Checkpoint,
}

impl Small {
    fn new(name: &str) -> Self {
        Self::edited(name, |_, _| {})
    }

    /// The same with weights or files changed.
    fn edited(name: &str, edit: impl Fn(&str, &mut [f32])) -> Self {
        match name {
            "resnet" => Self::of(&convolutions::resnet(), edit),
            name => Self::of(&case(name), edit),
        }
    }

    fn of(case: &Value, edit: impl Fn(&str, &mut [f32])) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::default();
        for tensor in case["tensors"].as_array().unwrap() {
            let (name, shape) = (tensor["name"].as_str().unwrap(), shape_of(tensor));
            if tensor["kind"] == "count" {
                file.add(name, "I64", &shape, convolutions::COUNT.to_le_bytes());
                continue;
            }
            let mut values = values(name, tensor["kind"].as_str().unwrap(), &shape);
            for value in &mut values {
                *value = f32::from_bits(value.to_bits() & 0xffff_0000);
            }
            edit(name, &mut values);
            file.add(name, "F32", &shape, values.into_iter().flat_map(f32::to_le_bytes));
        }
        let path = folder.path().join("model");
        std::fs::create_dir(&path).unwrap();
        file.write(&path);
        std::fs::write(path.join("config.json"), case["config"].to_string()).unwrap();
        let model = inspect(&SourceFile::from_path(&path).unwrap()).unwrap();
        Self { folder, model }
    }

    /// The same with one more file.
    fn with_file(mut self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join("model");
        std::fs::write(path.join(name), text).unwrap();
        self.model = inspect(&SourceFile::from_path(&path).unwrap()).unwrap();
        self
    }

    fn data(&self, rows: &[Value]) -> Datasets {
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        let text = lines.join("\n");
        datasets(self.folder.path(), &text).unwrap()
    }

    fn plan(&self, recipe: &Value, datasets: &Datasets) -> Result<Plan, Vec<Refusal>> {
        plan(&Recipe::from_value(recipe).unwrap(), &self.model, datasets)
    }

    fn run(&self, recipe: &Value, datasets: &Datasets) -> Result<Outcome, Error> {
        let plan = self.plan(recipe, datasets).unwrap();
        let out = tempfile::tempdir_in(self.folder.path()).unwrap();
        let scratch = out.path().join("scratch");
        let site = Site::on_cpu(out.path(), &scratch);
        execute(&plan, &self.model, datasets, &site, &Silent)
    }

    /// Runs a recipe and opens what it wrote in a format.
    fn made(&self, recipe: &Value, datasets: &Datasets, format: &str) -> (Checkpoint, Outcome) {
        let plan = self.plan(recipe, datasets).unwrap();
        let out = self.folder.path().join(format!("out-{}", plan.recipe_hash));
        let scratch = out.join("scratch");
        let outcome = execute(
            &plan,
            &self.model,
            datasets,
            &Site::on_cpu(&out, &scratch),
            &Silent,
        )
        .unwrap();
        let files = SourceFile::from_path(&out.join(format)).unwrap();
        (inspect(&files).unwrap(), outcome)
    }

    /// The first refusal's place and code.
    fn refusal(&self, recipe: &Value, datasets: &Datasets) -> (String, &'static str) {
        let refusal = self.plan(recipe, datasets).unwrap_err().remove(0);
        (refusal.pointer, refusal.code)
    }
}

/// What a model answers to a golden case's sequences.
fn logits(model: &Checkpoint, case: &Value) -> Vec<f32> {
    let network = network_of(model).unwrap();
    let sequences: Vec<Vec<u32>> = serde_json::from_value(case["input_ids"].clone()).unwrap();
    let slices: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let (_, out) = forward(model, network.as_ref(), &Batch::new(&slices), Ops::Fused);
    out.flatten_all().unwrap().to_vec1().unwrap()
}

fn datasets(folder: &Path, text: &str) -> Result<Datasets, Error> {
    let path = folder.join("data.jsonl");
    std::fs::write(&path, text).unwrap();
    let mut datasets = Datasets::new();
    datasets.insert("mine", Dataset::open(&SourceFile::from_path(&path).unwrap())?);
    Ok(datasets)
}

/// Sequences of ids that differ in length and content.
fn rows(count: usize) -> Vec<Value> {
    let ids = |i: usize| -> Vec<usize> { (0..6 + i % 7).map(|k| 3 + (i * 31 + k * 17) % 90).collect() };
    (0..count).map(|i| json!({"input_ids": ids(i)})).collect()
}

/// A stage that leaves every weight as it is.
fn same(evaluation: &Value) -> Value {
    json!({"stages": [{"technique": "ggml", "options": {"type": "BF16"}}], "formats": ["safetensors"],
        "evaluation": evaluation})
}

/// Four bits in groups of 16.
fn int4(evaluation: &Value) -> Value {
    json!({"stages": [{"technique": "rtn", "options": {"n_bits": 4, "group_size": 16}}],
        "formats": ["compressed-tensors"], "evaluation": evaluation})
}

fn on(metrics: &[&str]) -> Value {
    json!({"dataset": "mine", "metrics": metrics, "max_seq_length": 16})
}

/// Names of what was measured, and the values of the compressed model.
fn measured(outcome: &Outcome) -> Vec<(String, f64)> {
    let quality = outcome.report.quality.as_ref().unwrap();
    let measures = quality.measures.iter();
    measures.map(|m| (m.metric.clone(), m.after)).collect()
}

const EVERY: [&str; 3] = ["llama_gqa_tied", "bert_classes", "minilm"];

#[test]
fn an_unchanged_model_is_measured_as_unchanged() {
    for name in EVERY {
        let small = Small::new(name);
        let outcome = small.run(&same(&on(&[])), &small.data(&rows(14))).unwrap();
        let quality = outcome.report.quality.as_ref().unwrap();
        assert_eq!(quality.sequences, 14);
        for measure in &quality.measures {
            let right = match measure.metric.as_str() {
                "kl" => 0.0,
                "perplexity" => measure.before.unwrap(),
                _ => 1.0,
            };
            assert_eq!(measure.after, right, "{name} {}", measure.metric);
            assert!(measure.change.is_none_or(|change| change == 0.0));
        }
        assert!(
            outcome.report.warnings.is_empty(),
            "{:?}",
            outcome.report.warnings
        );
    }
}

#[test]
fn what_is_measured_by_default_is_what_fits() {
    for (name, metrics) in [
        (
            "llama_gqa_tied",
            ["perplexity", "kl", "top1_agreement"].as_slice(),
        ),
        ("gpt2", &["perplexity", "kl", "top1_agreement"]),
        ("bert_classes", &["kl", "top1_agreement"]),
        ("minilm", &["cosine", "retrieval"]),
        ("roberta", &["cosine", "retrieval"]),
    ] {
        let small = Small::new(name);
        let plan = small.plan(&same(&on(&[])), &small.data(&rows(14))).unwrap();
        let planned: Vec<&str> = plan
            .evaluation
            .unwrap()
            .metrics
            .iter()
            .map(|m| m.name())
            .collect();
        assert_eq!(planned, metrics, "{name}");
    }
}

#[test]
fn four_bits_change_every_measure() {
    for name in EVERY {
        let small = Small::new(name);
        let outcome = small.run(&int4(&on(&[])), &small.data(&rows(40))).unwrap();
        let quality = outcome.report.quality.as_ref().unwrap();
        for measure in &quality.measures {
            let (after, [low, high]) = (measure.after, measure.interval);
            match measure.metric.as_str() {
                "kl" => assert!(after > 1e-5 && after < 1.0, "{name} kl {after}"),
                "perplexity" => assert_ne!(Some(after), measure.before),
                "cosine" => assert!(after > 0.9 && after < 0.9999, "{name} cosine {after}"),
                metric => assert!(after > 0.3 && after < 1.0, "{name} {metric} {after}"),
            }
            assert!(low <= after && after <= high, "{name} {measure:?}");
        }
        let again = small.run(&int4(&on(&[])), &small.data(&rows(40))).unwrap();
        assert_eq!(measured(&outcome), measured(&again), "the same every time");
    }
}

/// Only the second block's weights are touched, so the first one's output is the original's.
#[test]
fn layers_are_compared_block_by_block() {
    for name in ["llama_gqa_tied", "minilm"] {
        let small = Small::new(name);
        let mut recipe = int4(&on(&["layer_error"]));
        recipe["stages"][0]["ignore"] = json!(["re:.*layers?\\.0\\..*", "re:.*pooler.*", "lm_head"]);
        let outcome = small.run(&recipe, &small.data(&rows(14))).unwrap();
        let quality = outcome.report.quality.as_ref().unwrap();
        assert!(quality.measures.is_empty());
        assert_eq!(quality.layers[0].relative_error, 0.0);
        for (block, layer) in quality.layers.iter().enumerate().skip(1) {
            let (error, [low, high]) = (layer.relative_error, layer.interval);
            assert_eq!(layer.block, block);
            assert!(error > 1e-6 && error < 0.1, "{name} {error}");
            assert!(low <= error && error <= high);
        }
        let page = html(&outcome.report);
        assert!(
            page.contains("<h2>Quality</h2>") && page.contains("block 1"),
            "shown in the report"
        );
    }
}

/// Labels are what the model itself answers, half by number and half by name, but the last two.
#[test]
fn accuracy_against_labels() {
    let small = Small::new("bert_classes");
    let answer = |rows: &[Value]| {
        let outcome = small.run(&same(&on(&["accuracy"])), &small.data(rows)).unwrap();
        let accuracy = outcome.report.quality.unwrap().measures.remove(0);
        assert_eq!(accuracy.before, Some(accuracy.after));
        accuracy.after
    };
    let labelled = |of: &dyn Fn(usize) -> Value| -> Vec<Value> {
        let label = |(i, mut row): (usize, Value)| {
            row["label"] = of(i);
            row
        };
        rows(20).into_iter().enumerate().map(label).collect()
    };
    let shares: Vec<f64> = (0..3).map(|class| answer(&labelled(&|_| json!(class)))).collect();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{shares:?}");
    let named = answer(&labelled(&|_| json!("b")));
    assert_eq!(named, shares[1], "config.json calls class 1 b");
    let outcome = small
        .run(&int4(&on(&[])), &small.data(&labelled(&|i| json!(i % 3))))
        .unwrap();
    let names: Vec<String> = measured(&outcome).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["accuracy", "kl", "top1_agreement"]);
}

#[test]
fn a_missed_gate_is_a_sentence() {
    let small = Small::new("minilm");
    let data = small.data(&rows(14));
    let gated = |limit: f64| {
        let mut recipe = int4(&on(&[]));
        recipe["gates"] = json!({"min_cosine": limit});
        small.run(&recipe, &data).unwrap().gate
    };
    assert_eq!(gated(0.5), None);
    let missed = gated(0.99999).unwrap();
    assert!(
        missed.contains("min_cosine") && missed.contains("0.99999"),
        "{missed}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused_when_planned() {
    let (decoder, encoder, classifier) = (
        Small::new("llama_gqa_tied"),
        Small::new("minilm"),
        Small::new("bert_classes"),
    );
    let ids = |small: &Small| small.data(&rows(14));
    let misfit = ("/evaluation/metrics/0".to_owned(), "metric_does_not_fit");
    for metric in ["cosine", "retrieval", "accuracy"] {
        assert_eq!(decoder.refusal(&int4(&on(&[metric])), &ids(&decoder)), misfit);
    }
    for metric in ["perplexity", "kl", "top1_agreement", "accuracy"] {
        assert_eq!(encoder.refusal(&int4(&on(&[metric])), &ids(&encoder)), misfit);
    }
    for metric in ["perplexity", "cosine"] {
        assert_eq!(
            classifier.refusal(&int4(&on(&[metric])), &ids(&classifier)),
            misfit
        );
    }
    assert_eq!(
        classifier.refusal(&int4(&on(&["kl", "accuracy"])), &ids(&classifier)),
        ("/evaluation/metrics/1".to_owned(), "missing_labels")
    );
    assert_eq!(
        encoder.refusal(&int4(&on(&["retrieval"])), &encoder.data(&rows(11))),
        ("/evaluation/metrics/0".to_owned(), "dataset_too_short")
    );
    for label in [json!(3), json!(-1), json!("d")] {
        let data = classifier.data(&[json!({"input_ids": [5, 6], "label": label})]);
        let at = ("/evaluation/dataset".to_owned(), "unknown_label");
        assert_eq!(classifier.refusal(&int4(&on(&[])), &data), at);
    }
    let mut gated = int4(&on(&[]));
    gated["gates"] = json!({"max_perplexity_increase": 0.1});
    assert_eq!(
        encoder.refusal(&gated, &ids(&encoder)),
        ("/gates/max_perplexity_increase".to_owned(), "gate_without_metric")
    );
}

/// A tokenizer of so many words, `w0`, `w1`, …
fn tokenizer(words: usize) -> String {
    let vocab: serde_json::Map<String, Value> = (0..words).map(|i| (format!("w{i}"), json!(i))).collect();
    json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null, "decoder": null, "truncation": null, "padding": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}})
    .to_string()
}

#[test]
fn data_that_the_model_cannot_read_is_refused_when_planned() {
    let dataset = "/evaluation/dataset".to_owned();
    let small = Small::new("llama_gqa_tied");
    assert_eq!(
        datasets(small.folder.path(), "").unwrap_err().code,
        "empty_dataset"
    );
    assert_eq!(
        datasets(small.folder.path(), "\n\n").unwrap_err().code,
        "empty_dataset"
    );
    let strange = small.data(&[json!({"input_ids": [96]})]);
    assert_eq!(
        small.refusal(&int4(&on(&[])), &strange),
        (dataset.clone(), "tokenizer_mismatch")
    );
    let short = small.data(&[json!({"input_ids": [5]})]);
    assert_eq!(
        small.refusal(&int4(&on(&[])), &short),
        ("/evaluation".to_owned(), "dataset_too_short")
    );
    let text = [json!({"text": "w1 w2 w3"})];
    assert_eq!(
        small.refusal(&int4(&on(&[])), &small.data(&text)),
        (dataset.clone(), "missing_tokenizer")
    );
    let small = small.with_file("tokenizer.json", &tokenizer(96));
    small.plan(&int4(&on(&[])), &small.data(&text)).unwrap();
    let small = small.with_file("tokenizer.json", &tokenizer(97));
    assert_eq!(
        small.refusal(&int4(&on(&[])), &small.data(&text)),
        (dataset, "tokenizer_mismatch")
    );
}

#[test]
fn a_family_that_does_not_run_is_refused_when_planned() {
    let mut case = case("bert");
    case["config"]["model_type"] = json!("t5");
    let small = Small::of(&case, |_, _| {});
    let mut recipe = int4(&on(&[]));
    recipe["stages"][0]["targets"] = json!(["re:.*intermediate\\.dense.*"]);
    assert_eq!(
        small.refusal(&recipe, &small.data(&rows(14))),
        ("/evaluation".to_owned(), "unsupported_architecture")
    );
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let broken = "encoder.layer.0.output.LayerNorm.bias";
    let small = Small::edited("minilm", |name, values| {
        if name == broken {
            values[1] = f32::NAN;
        }
    });
    let error = small.run(&int4(&on(&[])), &small.data(&rows(14))).unwrap_err();
    assert_eq!(error.code, "non_finite_values");
    assert!(error.message.contains(broken), "{error}");
}

/// Numbers they are, but what the model computes with them is not.
#[test]
fn weights_too_large_to_compute_with_end_in_a_clear_error() {
    for (name, large, says) in [
        (
            "llama_gqa_tied",
            "model.layers.1.input_layernorm.weight",
            "original model's hidden states behind block 1",
        ),
        (
            "minilm",
            "encoder.layer.0.output.LayerNorm.weight",
            "original model's hidden states behind block 0",
        ),
    ] {
        let small = Small::edited(name, |name, values| {
            if name == large {
                values.fill(3e38);
            }
        });
        let error = small.run(&int4(&on(&[])), &small.data(&rows(14))).unwrap_err();
        assert_eq!(error.code, "non_finite_activations", "{name}: {error}");
        assert!(error.message.contains(says), "{error}");
    }
}

/// Techniques without data, each by its own measure in the report.
#[test]
fn data_free_techniques_run_through() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    for (technique, options, format, kind) in [
        (
            "hqq",
            json!({"group_size": 16}),
            "compressed-tensors",
            "int4 g16 asym",
        ),
        (
            "hqq",
            json!({"group_size": 16, "scale_dtype": "F16"}),
            "gptq",
            "int4 g16 asym",
        ),
        ("nf4", json!({"double_quant": true}), "bitsandbytes", "nf4 b64 dq"),
    ] {
        let recipe = json!({"stages": [{"technique": technique, "options": options,
            "ignore": ["re:.*mlp.*"]}], "formats": [format],
            "evaluation": on(&["kl"])});
        let outcome = small.run(&recipe, &data).unwrap();
        let made: Vec<&str> = outcome.report.tensors.iter().map(|t| t.kind.as_str()).collect();
        assert!(made.contains(&kind), "{made:?}");
        let kl = measured(&outcome)[0].1;
        assert!(kl > 1e-5 && kl < 0.5, "{technique} {kl}");
    }
}
