//! What calibrated stages store beside weights: scales of inputs and caches, groups in act order; and mixtures of
//! experts, all of which are calibrated.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/cases.rs"]
mod cases;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cases::{data, model};
use modelpress_engine::observe::Silent;
use modelpress_engine::{Outcome, Recipe, Refusal, Site, execute, plan};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Tensors of a safetensors file: type, shape, bytes.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

struct House {
    folder: TempDir,
    name: &'static str,
}

fn house(name: &'static str) -> House {
    House {
        folder: TempDir::new().expect("a folder"),
        name,
    }
}

fn recipe(stages: &Value, more: &Value) -> Recipe {
    let mut recipe = json!({"stages": stages, "formats": ["compressed-tensors"],
        "calibration": {"dataset": "data", "num_samples": 24, "max_seq_length": 24},
        "evaluation": {"dataset": "data", "num_samples": 8, "max_seq_length": 24}});
    let more = more.as_object().expect("an object").clone();
    recipe.as_object_mut().expect("an object").extend(more);
    Recipe::from_value(&recipe).expect("a recipe")
}

impl House {
    fn plan(&self, stages: &Value, more: &Value) -> Result<modelpress_engine::Plan, Vec<Refusal>> {
        let source = self.folder.path().join("model");
        plan(
            &recipe(stages, more),
            &model(self.name, &source),
            &data(self.folder.path()),
        )
    }

    fn run(&self, stages: &Value, more: &Value) -> (Outcome, PathBuf) {
        let plan = self.plan(stages, more).expect("plans");
        let source = self.folder.path().join("model");
        let out = TempDir::new_in(self.folder.path()).expect("a folder").keep();
        let scratch = out.join("scratch");
        let site = Site::on_cpu(&out, &scratch);
        let datasets = data(self.folder.path());
        let outcome = execute(&plan, &model(self.name, &source), &datasets, &site, &Silent).expect("runs");
        (outcome, out)
    }
}

fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).expect("reads");
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let (head, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let head: serde_json::Map<String, Value> = serde_json::from_slice(head).expect("JSON");
    let entries = head.into_iter().filter(|(name, _)| name != "__metadata__");
    entries
        .map(|(name, entry)| {
            let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone()).expect("a shape");
            let [from, to]: [usize; 2] =
                serde_json::from_value(entry["data_offsets"].clone()).expect("offsets");
            let dtype = entry["dtype"].as_str().expect("a type").to_owned();
            (name, (dtype, shape, data[from..to].to_vec()))
        })
        .collect()
}

fn of(out: &Path, format: &str) -> (Tensors, Value) {
    let folder = out.join(format);
    let config = fs::read(folder.join("config.json")).expect("reads");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    (tensors(&folder.join("model.safetensors")), config)
}

fn number(tensors: &Tensors, name: &str) -> f32 {
    let (dtype, shape, bytes) = &tensors[name];
    assert_eq!(
        (dtype.as_str(), shape.as_slice()),
        ("F32", [1].as_slice()),
        "{name}"
    );
    f32::from_le_bytes(bytes.as_slice().try_into().expect("four bytes"))
}

fn kl(outcome: &Outcome) -> f64 {
    let quality = outcome.report.quality.as_ref().expect("evaluated");
    quality.measure("kl").expect("kl").after
}

fn eight_bits(observer: &str) -> Value {
    json!([{"technique": "rtn", "options": {"n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}},
        {"technique": "static_activations", "options": {"observer": observer}}])
}

#[test]
fn static_activations_store_one_scale_for_all_that_read_the_same() {
    let house = house("llama_gqa_tied");
    let (outcome, out) = house.run(&eight_bits("minmax"), &json!({}));
    let (tensors, config) = of(&out, "compressed-tensors");
    let scale = |part: &str| number(&tensors, &format!("model.layers.0.{part}.input_scale"));
    assert_eq!(scale("self_attn.q_proj"), scale("self_attn.k_proj"));
    assert_eq!(scale("self_attn.q_proj"), scale("self_attn.v_proj"));
    assert_eq!(scale("mlp.gate_proj"), scale("mlp.up_proj"));
    assert!(scale("self_attn.q_proj") > 0.0 && scale("self_attn.q_proj") != scale("mlp.gate_proj"));
    let inputs = &config["quantization_config"]["config_groups"]["group_0"]["input_activations"];
    assert_eq!(inputs["dynamic"], json!(false));
    assert_eq!(
        (&inputs["strategy"], &inputs["num_bits"]),
        (&json!("tensor"), &json!(8))
    );
    let dynamic = json!([eight_bits("minmax")[0]]);
    let (dynamic, _) = house.run(&dynamic, &json!({}));
    let (with, without) = (kl(&outcome), kl(&dynamic));
    assert!(
        with > without && with < 0.3,
        "a fixed range costs something, and little: {with} {without}"
    );
}

#[test]
fn observers_choose_ranges_of_their_own() {
    let house = house("llama_mha");
    let scale = |observer: &str| {
        let (_, out) = house.run(&eight_bits(observer), &json!({}));
        number(
            &of(&out, "compressed-tensors").0,
            "model.layers.1.mlp.down_proj.input_scale",
        )
    };
    let widest = scale("minmax");
    for observer in ["percentile", "mse", "entropy"] {
        let scale = scale(observer);
        assert!(scale > 0.0 && scale <= widest, "{observer}: {scale} {widest}");
    }
}

#[test]
fn floats_have_static_ranges_too_but_no_entropy() {
    let house = house("llama_mha");
    let stages = |observer: &str| {
        json!([{"technique": "fp8", "options": {"granularity": "tensor", "activations": "dynamic_token"}},
            {"technique": "static_activations", "options": {"observer": observer}}])
    };
    let (outcome, out) = house.run(&stages("minmax"), &json!({}));
    let (tensors, config) = of(&out, "compressed-tensors");
    assert!(number(&tensors, "model.layers.0.mlp.up_proj.input_scale") > 0.0);
    let inputs = &config["quantization_config"]["config_groups"]["group_0"]["input_activations"];
    assert_eq!(
        (&inputs["type"], &inputs["dynamic"]),
        (&json!("float"), &json!(false))
    );
    assert!(kl(&outcome) < 0.1, "{}", kl(&outcome));
    let refused = house.plan(&stages("entropy"), &json!({})).expect_err("refuses");
    assert_eq!(
        (refused[0].pointer.as_str(), refused[0].code),
        ("/stages/1/options/observer", "observer_does_not_fit")
    );
}

#[test]
fn static_activations_need_a_stage_that_quantizes_them() {
    let house = house("llama_mha");
    let alone = json!([{"technique": "static_activations"}]);
    let refused = house.plan(&alone, &json!({})).expect_err("refuses");
    assert_eq!(refused[0].code, "no_quantized_activations");
    assert!(
        refused[0].detail.contains("dynamic_token"),
        "{}",
        refused[0].detail
    );
}

#[test]
fn caches_get_a_scale_for_keys_and_one_for_values() {
    let house = house("llama_gqa_tied");
    for (dtype, kind) in [("fp8", "float"), ("int8", "int")] {
        let stages = json!([{"technique": "kv_cache", "options": {"dtype": dtype}}]);
        let (outcome, out) = house.run(&stages, &json!({}));
        let (tensors, config) = of(&out, "compressed-tensors");
        for block in 0..2 {
            let scale = |part: char| {
                let name = format!("model.layers.{block}.self_attn.{part}_scale");
                number(&tensors, &name)
            };
            assert!(scale('k') > 0.0 && scale('v') > 0.0 && scale('k') != scale('v'));
        }
        let scheme = &config["quantization_config"]["kv_cache_scheme"];
        assert_eq!((&scheme["num_bits"], &scheme["type"]), (&json!(8), &json!(kind)));
        let kl = kl(&outcome);
        assert!(kl > 0.0 && kl < 0.05, "{dtype}: what is kept was rounded: {kl}");
    }
}

#[test]
fn caches_combine_with_quantized_weights_and_are_refused_elsewhere() {
    let decoder = house("qwen3");
    let stages = json!([{"technique": "rtn", "options": {"group_size": 16}}, {"technique": "kv_cache"}]);
    let (_, out) = decoder.run(&stages, &json!({}));
    let (tensors, _) = of(&out, "compressed-tensors");
    assert!(tensors.contains_key("model.layers.0.self_attn.k_proj.weight_packed"));
    assert!(tensors.contains_key("model.layers.0.self_attn.k_scale"));
    let gptq = json!({"formats": ["gptq"]});
    let refused = decoder.plan(&stages, &gptq).expect_err("refuses");
    assert_eq!(
        (refused[0].pointer.as_str(), refused[0].code),
        ("/formats/0", "format_cannot_hold")
    );
    let alone = json!([{"technique": "kv_cache"}]);
    let refused = house("gpt2").plan(&alone, &json!({})).expect_err("refuses");
    assert_eq!(
        (refused[0].pointer.as_str(), refused[0].code),
        ("/stages/0/technique", "no_kv_cache")
    );
}

fn ints(tensors: &Tensors, name: &str) -> Vec<i32> {
    let (dtype, _, bytes) = &tensors[name];
    assert_eq!(dtype, "I32", "{name}");
    let numbers = bytes.as_chunks::<4>().0.iter();
    numbers.map(|b| i32::from_le_bytes(*b)).collect()
}

#[test]
fn act_order_stores_the_group_of_each_column() {
    let house = house("llama_mha");
    let with = |act_order: &str| {
        json!([{"technique": "gptq", "targets": ["re:.*self_attn.*_proj"],
            "options": {"group_size": 16, "act_order": act_order, "scale_dtype": "F16"}}])
    };
    let name = "model.layers.0.self_attn.o_proj";
    let only = |format: &str| json!({"formats": [format]});
    let (_, out) = house.run(&with("group"), &only("gptq"));
    let (gptq, config) = of(&out, "gptq");
    let g_idx = ints(&gptq, &format!("{name}.g_idx"));
    let mut sorted = g_idx.clone();
    sorted.sort_unstable();
    let lying: Vec<i32> = (0..g_idx.len() as i32).map(|i| i / 16).collect();
    assert!(
        sorted == lying && g_idx != lying,
        "whole groups, in another order"
    );
    assert_eq!(config["quantization_config"]["desc_act"], json!(true));

    let (_, out) = house.run(&with("static"), &only("gptq"));
    assert_eq!(ints(&of(&out, "gptq").0, &format!("{name}.g_idx")), lying);
    for format in ["awq", "compressed-tensors"] {
        let refused = house.plan(&with("group"), &only(format)).expect_err("refuses");
        assert!(refused[0].detail.contains("act_order"), "{}", refused[0].detail);
    }
}

/// With 16 experts of which each token visits two, some get few tokens: they are calibrated all the same.
#[test]
fn every_expert_is_calibrated_and_those_with_few_tokens_are_reported() {
    let house = house("mixtral");
    let stages = json!([{"technique": "gptq", "options": {"group_size": 16, "n_bits": 3}}]);
    let few = |all: bool| {
        json!({"calibration": {"dataset": "data", "num_samples": 2, "max_seq_length": 24,
            "moe_calibrate_all_experts": all}})
    };
    let warned = |all: bool| {
        let (outcome, _) = house.run(&stages, &few(all));
        let mut warnings = outcome.report.warnings.iter();
        let warning = warnings.find(|w| w.contains("routers sent fewer"));
        (warning.expect("a warning").clone(), kl(&outcome))
    };
    let (all, routed) = (warned(true), warned(false));
    assert!(all.0.contains("all of them are calibrated"), "{}", all.0);
    assert!(routed.0.contains("moe_calibrate_all_experts"), "{}", routed.0);
    assert_ne!(all.1, routed.1, "other inputs, other weights");
}
