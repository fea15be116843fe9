//! Smaller models through whole jobs: what is not used is not missed, and what follows works on what is left.

use super::*;
use crate::models::network_of;
use crate::observe::{Level, Observer, Usage};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

fn recipe(stages: &Value, formats: &Value) -> Value {
    json!({"stages": stages, "formats": formats, "calibration": {"dataset": "mine", "max_seq_length": 16}})
}

fn cut(technique: &str, options: &Value) -> Value {
    let formats = json!([{"format": "safetensors", "options": {"dtype": "F32"}}]);
    recipe(&json!([{"technique": technique, "options": options}]), &formats)
}

fn close(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let size = a.iter().map(|v| v.abs()).fold(0.0, f32::max);
    assert!(worst < 2e-3 * size, "{what}: {worst} of {size}");
}

/// Zeroes the columns of a matrix, `[rows, cols]` as stored, in which `gone` says so.
fn silence(values: &mut [f32], cols: usize, gone: impl Fn(usize) -> bool) {
    for row in values.chunks_mut(cols) {
        row.iter_mut()
            .enumerate()
            .filter(|(c, _)| gone(*c))
            .for_each(|(_, v)| *v = 0.0);
    }
}

fn columns(case: &Value, name: &str) -> usize {
    let tensors = case["tensors"].as_array().unwrap();
    let tensor = tensors.iter().find(|t| t["name"] == name).unwrap();
    *shape_of(tensor).last().unwrap()
}

#[test]
fn neurons_that_nobody_reads_are_not_missed() {
    for (family, down, transposed) in [
        ("llama_gqa_tied", "down_proj.weight", false),
        ("qwen3", "down_proj.weight", false),
        ("mixtral", "w2.weight", false),
        ("bert_classes", "output.dense.weight", false),
        ("gpt2", "mlp.c_proj.weight", true),
    ] {
        let case = case(family);
        let small = Small::of(&case, |name, values| {
            if !name.ends_with(down) || name.contains("attention") || name.contains("attn") {
                return;
            }
            let cols = columns(&case, name);
            if transposed {
                let rows = values.len() / cols;
                values
                    .chunks_mut(cols)
                    .take(rows / 2)
                    .for_each(|row| row.fill(0.0));
            } else {
                silence(values, cols, |c| c < cols / 2);
            }
        });
        let before = logits(&small.model, &case);
        let data = small.data(&rows(14));
        for importance in ["obs", "activation"] {
            let options = json!({"ratio": 0.5, "multiple_of": 1, "importance": importance});
            let (made, outcome) = small.made(&cut("prune_neurons", &options), &data, "safetensors");
            close(&before, &logits(&made, &case), &format!("{family} {importance}"));
            assert!(outcome.report.formats[0].compression_ratio > 1.05, "{family}");
            let parameters = |m: &Checkpoint| {
                m.tensors
                    .iter()
                    .map(crate::tensor::TensorInfo::elements)
                    .sum::<usize>()
            };
            assert!(parameters(&made) < parameters(&small.model));
        }
    }
}

#[test]
fn heads_that_nobody_reads_are_not_missed() {
    for family in ["llama_gqa_tied", "llama_biases", "qwen2_tied", "qwen3", "mixtral"] {
        let case = case(family);
        let config = &case["config"];
        let (heads, kv) = (
            config["num_attention_heads"].as_u64().unwrap(),
            config["num_key_value_heads"].as_u64().unwrap(),
        );
        let small = Small::of(&case, |name, values| {
            if name.ends_with("o_proj.weight") {
                let cols = columns(&case, name);
                silence(values, cols, |c| c < cols / kv as usize);
            }
        });
        let before = logits(&small.model, &case);
        let data = small.data(&rows(14));
        let (made, _) = small.made(
            &cut("prune_heads", &json!({"keep": kv - 1})),
            &data,
            "safetensors",
        );
        close(&before, &logits(&made, &case), family);
        let config = made.config.as_ref().unwrap();
        assert_eq!(config["num_key_value_heads"], kv - 1);
        assert_eq!(config["num_attention_heads"], heads / kv * (kv - 1));
    }
}

/// A block whose last layers write nothing hands on what it gets.
#[test]
fn a_block_that_does_nothing_is_not_missed() {
    for (family, block, outs) in [
        (
            "llama_gqa_tied",
            "layers.1.",
            ["o_proj.weight", "down_proj.weight"],
        ),
        ("gpt2", "h.0.", ["c_proj.weight", "c_proj.bias"]),
    ] {
        let case = case(family);
        let small = Small::of(&case, |name, values| {
            if name.contains(block) && outs.iter().any(|out| name.ends_with(out)) {
                values.fill(0.0);
            }
        });
        let before = logits(&small.model, &case);
        let data = small.data(&rows(14));
        let blocks = network_of(&small.model).unwrap().sizes().blocks;
        let (made, _) = small.made(
            &cut("prune_blocks", &json!({"keep": blocks - 1})),
            &data,
            "safetensors",
        );
        close(&before, &logits(&made, &case), family);
        assert_eq!(network_of(&made).unwrap().sizes().blocks, blocks - 1);
    }
}

/// Copies whose shares add up to one are what they are copies of.
#[test]
fn an_upcycled_model_computes_what_the_dense_one_did() {
    let case = case("llama_gqa_tied");
    let small = Small::of(&case, |_, _| {});
    let before = logits(&small.model, &case);
    let none = Datasets::new();
    let upcycled = |options: &Value| {
        let mut recipe = cut("upcycle", options);
        recipe.as_object_mut().unwrap().remove("calibration");
        recipe
    };
    let options = json!({"num_experts": 4, "num_experts_per_tok": 2});
    let (made, _) = small.made(&upcycled(&options), &none, "safetensors");
    assert_eq!(
        made.config.as_ref().unwrap()["architectures"],
        json!(["MixtralForCausalLM"])
    );
    assert_eq!(
        made.tensors
            .iter()
            .filter(|t| t.name.contains(".experts."))
            .count(),
        2 * 4 * 3
    );
    close(&before, &logits(&made, &case), "copies");
    let noisy = json!({"num_experts": 4, "num_experts_per_tok": 2, "noise": 0.5});
    let (made, _) = small.made(&upcycled(&noisy), &none, "safetensors");
    let after = logits(&made, &case);
    assert!(
        before
            .iter()
            .zip(&after)
            .any(|(a, b)| (a - b).abs() > 0.01 * a.abs())
    );
    let refused = Small::new("llama_biases").refusal(&upcycled(&options), &none);
    assert_eq!(refused, ("/stages/0/technique".into(), "no_such_structure"));
}

/// Where a token visits every expert, all neurons answer.
#[test]
fn neurons_shared_out_among_experts_compute_what_they_did() {
    let case = case("llama_gqa_tied");
    let small = Small::of(&case, |_, _| {});
    let before = logits(&small.model, &case);
    let data = small.data(&rows(14));
    let all = json!({"num_experts": 4, "num_experts_per_tok": 4});
    let (made, outcome) = small.made(&cut("moefication", &all), &data, "safetensors");
    let after = logits(&made, &case);
    let size = before.iter().map(|v| v.abs()).fold(0.0, f32::max);
    let worst = before
        .iter()
        .zip(&after)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < 0.05 * size, "{worst} of {size}");
    assert!(
        outcome.report.formats[0].compression_ratio > 0.97,
        "a router more, nothing else"
    );
    let error = |visited: usize| {
        let options = json!({"num_experts": 4, "num_experts_per_tok": visited});
        let (made, _) = small.made(&cut("moefication", &options), &data, "safetensors");
        let after = logits(&made, &case);
        before
            .iter()
            .zip(&after)
            .map(|(a, b)| f64::from(a - b).powi(2))
            .sum::<f64>()
    };
    let errors = [1, 2, 3].map(error);
    assert!(errors[0] > errors[1] && errors[1] > errors[2], "{errors:?}");
    let refused = small.refusal(
        &cut(
            "moefication",
            &json!({"num_experts": 5, "num_experts_per_tok": 2}),
        ),
        &data,
    );
    assert_eq!(
        refused,
        ("/stages/0/options/num_experts".into(), "experts_do_not_divide")
    );
}

/// Experts that answer nothing add nothing.
#[test]
fn experts_that_add_nothing_go_first() {
    for family in ["mixtral", "qwen3_moe"] {
        let case = case(family);
        let down = if family == "mixtral" {
            "w2.weight"
        } else {
            "down_proj.weight"
        };
        let small = Small::of(&case, |name, values| {
            if name.contains(".experts.1.") && name.ends_with(down) {
                values.fill(0.0);
            }
        });
        let config = &case["config"];
        let experts = config["num_local_experts"]
            .as_u64()
            .or(config["num_experts"].as_u64())
            .unwrap();
        let data = small.data(&rows(14));
        for options in [
            json!({"keep": experts - 1}),
            json!({"keep": experts - 1, "merge": true}),
        ] {
            let (made, _) = small.made(&cut("prune_experts", &options), &data, "safetensors");
            let after = logits(&made, &case);
            assert!(after.iter().all(|v| v.is_finite()));
            let config = made.config.as_ref().unwrap();
            let now = config["num_local_experts"]
                .as_u64()
                .or(config["num_experts"].as_u64());
            assert_eq!(now, Some(experts - 1), "{family}");
            let silent = |t: &&crate::tensor::TensorInfo| {
                let mut values = vec![0.0; t.elements()];
                crate::tensor::Rows::read(&made.rows(t).unwrap(), 0, &mut values).unwrap();
                t.name.contains(".experts.") && t.name.ends_with(down) && values.iter().all(|v| *v == 0.0)
            };
            assert_eq!(
                made.tensors.iter().filter(silent).count(),
                0,
                "{family} {options}"
            );
        }
        let refused = small.refusal(&cut("prune_experts", &json!({"keep": 1})), &data);
        assert_eq!(
            refused,
            ("/stages/0/technique".into(), "too_few_experts"),
            "{family}"
        );
    }
    let dense = Small::new("llama_gqa_tied");
    let refused = dense.refusal(&cut("prune_experts", &json!({})), &dense.data(&rows(14)));
    assert_eq!(refused, ("/stages/0/technique".into(), "no_such_structure"));
}

/// What the report says is measured between two networks of different shapes.
#[test]
fn a_smaller_model_is_measured_against_the_original() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    for (technique, options) in [
        ("prune_neurons", json!({"ratio": 0.5, "multiple_of": 1})),
        ("prune_blocks", json!({"keep": 1})),
    ] {
        let mut recipe = cut(technique, &options);
        recipe["evaluation"] = on(&[]);
        let outcome = small.run(&recipe, &data).unwrap();
        let quality = outcome.report.quality.as_ref().unwrap();
        let kl = quality.measures.iter().find(|m| m.metric == "kl").unwrap().after;
        assert!(kl > 1e-6 && kl.is_finite(), "{technique} {kl}");
        let names: Vec<&str> = outcome.report.sizes.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["original", technique, "safetensors"]);
        assert!(outcome.report.sizes[1].bytes < outcome.report.sizes[0].bytes);
    }
}

#[test]
fn stages_follow_each_other_whatever_they_change() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let stages = json!([
        {"technique": "prune_blocks", "options": {"keep": 1}},
        {"technique": "hadamard"},
        {"technique": "prune_neurons", "options": {"keep": 32, "importance": "taylor"}},
        {"technique": "sparsegpt", "options": {"pattern": "2:4"}},
        {"technique": "gptq", "options": {"group_size": 16}}]);
    let all = recipe(&stages, &json!(["compressed-tensors", "safetensors"]));
    let plan = small.plan(&all, &data).unwrap();
    assert_eq!(
        plan.all().iter().map(|p| p.stages.len()).collect::<Vec<_>>(),
        [1, 2, 2]
    );
    let (made, outcome) = small.made(&all, &data, "safetensors");
    assert_eq!(made.config.as_ref().unwrap()["intermediate_size"], 32);
    assert_eq!(network_of(&made).unwrap().sizes().blocks, 1);
    let reshaped = outcome.report.stages.iter().filter(|s| s.name == "reshape");
    assert_eq!(reshaped.count(), 2);
    let files: u64 = outcome.artifacts[0].planned().map(|f| f.bytes).sum();
    assert_eq!(files, plan.formats[0].bytes, "what is planned is what is written");
}

/// Refusals name the stage as the user counts it.
#[test]
fn a_stage_behind_a_cut_is_refused_by_its_own_number() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let stages = json!([{"technique": "prune_blocks", "options": {"keep": 1}},
        {"technique": "rtn", "options": {"group_size": 7}}]);
    let refused = small.refusal(&recipe(&stages, &json!(["compressed-tensors"])), &data);
    assert_eq!(
        refused,
        (
            "/stages/1/options/group_size".into(),
            "group_size_does_not_divide"
        )
    );
    let stages = json!([{"technique": "rtn", "options": {"group_size": 16}}, {"technique": "prune_neurons"}]);
    let refused = small.refusal(&recipe(&stages, &json!(["safetensors"])), &data);
    assert_eq!(refused, ("/stages/1/targets".into(), "already_quantized"));
    let stages = json!([{"technique": "rtn", "options": {"group_size": 16}}, {"technique": "prune_blocks", "options": {"keep": 1}}]);
    let refused = small.refusal(&recipe(&stages, &json!(["safetensors"])), &data);
    assert_eq!(refused, ("/stages/1/technique".into(), "already_quantized"));
    let stages = json!([{"technique": "wanda"}, {"technique": "prune_blocks", "options": {"keep": 1}}]);
    let refused = small.refusal(&recipe(&stages, &json!(["safetensors"])), &data);
    assert_eq!(refused, ("/stages/1/technique".into(), "zeros_lost"));
    let refused = |technique: &str, options: &Value| small.refusal(&cut(technique, options), &data);
    assert_eq!(refused("prune_blocks", &json!({"keep": 0})).1, "invalid_option");
    assert_eq!(refused("prune_blocks", &json!({"keep": 99})).1, "nothing_to_cut");
    assert_eq!(
        refused("prune_heads", &json!({"keep": 1, "ratio": 0.5})).1,
        "conflicting_options"
    );
    let bert = Small::new("bert_classes");
    let refused = bert.refusal(&cut("prune_heads", &json!({})), &bert.data(&rows(14)));
    assert_eq!(refused, ("/stages/0/technique".into(), "no_such_structure"));
}

/// Stops after so many questions; keeps what is said.
struct Nervous {
    left: AtomicUsize,
    said: Mutex<Vec<String>>,
}

impl Nervous {
    fn after(questions: usize) -> Self {
        Self {
            left: AtomicUsize::new(questions),
            said: Mutex::default(),
        }
    }
}

impl Observer for Nervous {
    fn stage(&self, _name: &str, _index: usize, _of: usize) {}
    fn advanced(&self, _done: u64, _total: u64, _detail: &str) {}
    fn event(&self, _level: Level, message: &str, _data: Value) {
        self.said.lock().unwrap().push(message.to_owned());
    }
    fn should_stop(&self) -> bool {
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_err()
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// Wherever it is stopped, what comes out in the end is the same; what an earlier job made is taken from the shared place.
#[test]
fn a_stopped_job_goes_on_and_ends_with_the_same_bytes() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let stages = json!([
        {"technique": "prune_neurons", "options": {"keep": 32}},
        {"technique": "prune_blocks", "options": {"keep": 1}},
        {"technique": "wanda"},
        {"technique": "gptq", "options": {"group_size": 16}}]);
    let recipe = recipe(&stages, &json!(["compressed-tensors"]));
    let plan = small.plan(&recipe, &data).unwrap();
    let digests = |outcome: &Outcome| -> Vec<(String, String)> {
        let files = outcome.artifacts[0].planned();
        files.map(|f| (f.name.clone(), f.sha256.clone())).collect()
    };
    let right = digests(&small.run(&recipe, &data).unwrap());
    let shared = small.folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    for (place, statistics) in [("alone", None), ("sharing", Some(shared.as_path()))] {
        let scratch = small.folder.path().join(place);
        let mut questions = 3;
        let outcome = loop {
            let out = small.folder.path().join(format!("{place}-{questions}"));
            let site = Site {
                statistics,
                ..Site::on_cpu(&out, &scratch)
            };
            match execute(&plan, &small.model, &data, &site, &Nervous::after(questions)) {
                Ok(outcome) => break outcome,
                Err(e) => assert_eq!(e.code, "cancelled", "{e}"),
            }
            questions += questions / 2;
        };
        assert_eq!(digests(&outcome), right, "{place}");
        assert!(questions > 50, "it was stopped often: {questions}");
    }
    let (out, scratch) = (
        small.folder.path().join("again"),
        small.folder.path().join("fresh"),
    );
    let site = Site {
        statistics: Some(&shared),
        ..Site::on_cpu(&out, &scratch)
    };
    let calm = Nervous::after(usize::MAX);
    let again = execute(&plan, &small.model, &data, &site, &calm).unwrap();
    assert_eq!(digests(&again), right);
    let said = calm.said.lock().unwrap();
    assert!(said.iter().any(|s| s.contains("there already")), "{said:?}");
}

/// Another last stage on the same first ones: those are not run again.
#[test]
fn a_changed_last_stage_does_not_run_the_first_ones_again() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let shared = small.folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let run = |place: &str, bits: u64, shared: Option<&Path>| {
        let stages = json!([{"technique": "sparsegpt"},
            {"technique": "gptq", "options": {"group_size": 16, "n_bits": bits}}]);
        let plan = small
            .plan(&recipe(&stages, &json!(["compressed-tensors"])), &data)
            .unwrap();
        let (out, scratch) = (
            small.folder.path().join(place),
            small.folder.path().join(format!("{place}-s")),
        );
        let site = Site {
            statistics: shared,
            ..Site::on_cpu(&out, &scratch)
        };
        let calm = Nervous::after(usize::MAX);
        let outcome = execute(&plan, &small.model, &data, &site, &calm).unwrap();
        let digests: Vec<String> = outcome.artifacts[0].planned().map(|f| f.sha256.clone()).collect();
        let known = calm
            .said
            .lock()
            .unwrap()
            .iter()
            .filter(|s| s.contains("is known from"))
            .count();
        (digests, known)
    };
    assert_eq!(run("first", 4, Some(&shared)).1, 0);
    let (digests, known) = run("second", 8, Some(&shared));
    assert_eq!(known, 1, "sparsegpt");
    assert_eq!(digests, run("alone", 8, None).0);
    assert_eq!(run("third", 8, Some(&shared)), (digests, 2));
}
