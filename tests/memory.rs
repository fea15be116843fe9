//! A job's peak memory is no more than planned, whatever the technique: each runs in a process of its own.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use modelpress_engine::observe::Silent;
use modelpress_engine::techniques::names;
use modelpress_engine::{Dataset, Datasets, Recipe, Site, SourceFile, execute, inspect, plan};
use serde_json::{Value, json};

const TECHNIQUE: &str = "MODELPRESS_TEST_TECHNIQUE";
const FOLDER: &str = "MODELPRESS_TEST_FOLDER";

/// What a plan counts for code, threads and the allocator, whatever the model; a tiny job needs a fraction of it.
const BASE: u64 = 192 << 20;

const VOCAB: usize = 4096;
const HIDDEN: usize = 512;
const INNER: usize = 1536;
const BLOCKS: usize = 2;
const EXPERTS: usize = 4;

/// Options with which a technique runs here, what must come before it, and the model that it runs on. One that is not known
/// here runs with its defaults.
fn specimen(technique: &str) -> (Value, Vec<Value>, &'static str) {
    let options = match technique {
        "autoround" => json!({"iters": 2}),
        "gqa" => json!({"num_key_value_heads": 1}),
        "ggml" => json!({"type": "Q4_K_M"}),
        "kmeans" => json!({"n_centroids": 16}),
        "magnitude" | "obd" => json!({"scope": "global"}),
        "moefication" => json!({"num_experts": 4, "num_experts_per_tok": 2}),
        "prune_blocks" | "prune_heads" | "share_blocks" => json!({"keep": 1}),
        "upcycle" => json!({"num_experts": 4}),
        _ => json!({}),
    };
    let before = if technique == "static_activations" {
        vec![json!({"technique": "rtn",
            "options": {"n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}})]
    } else {
        Vec::new()
    };
    let model = match technique {
        "prune_experts" => "experts",
        "cp" | "depthwise_separable" | "spatial_svd" | "tensor_train" | "tucker" => "convolutions",
        _ => "dense",
    };
    (options, before, model)
}

fn shapes(model: &str) -> Vec<(String, Vec<usize>)> {
    if model == "convolutions" {
        let at = |layer: usize| format!("resnet.encoder.stages.0.layers.0.layer.{layer}.convolution");
        return (0..2).map(|layer| (at(layer), vec![128, 128, 3, 3])).collect();
    }
    let of_experts = model == "experts";
    let mut all = vec![
        ("model.embed_tokens".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm".to_owned(), vec![HIDDEN]),
        ("lm_head".to_owned(), vec![VOCAB, HIDDEN]),
    ];
    for block in 0..BLOCKS {
        let mut add =
            |name: &str, shape: &[usize]| all.push((format!("model.layers.{block}.{name}"), shape.to_vec()));
        add("input_layernorm", &[HIDDEN]);
        add("post_attention_layernorm", &[HIDDEN]);
        add("self_attn.q_proj", &[HIDDEN, HIDDEN]);
        add("self_attn.k_proj", &[HIDDEN / 2, HIDDEN]);
        add("self_attn.v_proj", &[HIDDEN / 2, HIDDEN]);
        add("self_attn.o_proj", &[HIDDEN, HIDDEN]);
        if of_experts {
            add("block_sparse_moe.gate", &[EXPERTS, HIDDEN]);
            for expert in 0..EXPERTS {
                add(&format!("block_sparse_moe.experts.{expert}.w1"), &[INNER, HIDDEN]);
                add(&format!("block_sparse_moe.experts.{expert}.w2"), &[HIDDEN, INNER]);
                add(&format!("block_sparse_moe.experts.{expert}.w3"), &[INNER, HIDDEN]);
            }
        } else {
            add("mlp.gate_proj", &[INNER, HIDDEN]);
            add("mlp.up_proj", &[INNER, HIDDEN]);
            add("mlp.down_proj", &[HIDDEN, INNER]);
        }
    }
    all
}

fn config(model: &str) -> Value {
    if model == "convolutions" {
        return json!({"architectures": ["ResNetForImageClassification"], "model_type": "resnet"});
    }
    let mut config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": BLOCKS, "num_attention_heads": 8, "num_key_value_heads": 4,
        "vocab_size": VOCAB, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": false});
    if model == "experts" {
        config["architectures"] = json!(["MixtralForCausalLM"]);
        config["model_type"] = json!("mixtral");
        config["num_local_experts"] = json!(EXPERTS);
        config["num_experts_per_tok"] = json!(2);
    }
    config
}

/// A model of 26 MB, of 70 with experts, of 1 with convolutions.
fn write_model(folder: &Path, model: &str) {
    fs::create_dir_all(folder).expect("makes");
    fs::write(folder.join("config.json"), config(model).to_string()).expect("writes");
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    let mut state = 1u64;
    for (name, shape) in shapes(model) {
        let begin = data.len();
        let gain = 1.7 / (*shape.last().expect("a side") as f32).sqrt();
        for _ in 0..shape.iter().product::<usize>() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let v = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            let value = if shape.len() == 1 { 1.0 + 0.3 * v } else { v * gain };
            data.extend(&value.to_bits().to_le_bytes()[2..]);
        }
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(format!("{name}.weight"), entry);
    }
    let mut file = serde_json::to_vec(&header).expect("JSON");
    file.resize(file.len().next_multiple_of(8), b' ');
    let mut all = (file.len() as u64).to_le_bytes().to_vec();
    all.append(&mut file);
    all.append(&mut data);
    fs::write(folder.join("model.safetensors"), all).expect("writes");
    let row = |r: usize| {
        let ids: Vec<usize> = (0..100).map(|i| (r * 31 + i * i * 7 + i * r) % VOCAB).collect();
        json!({"input_ids": ids}).to_string()
    };
    fs::write(
        folder.with_extension("jsonl"),
        (0..8).map(row).collect::<Vec<_>>().join("\n"),
    )
    .expect("writes");
}

/// Planned and measured bytes of one technique's job, as the only one of a process.
#[test]
#[ignore = "what no_technique_takes_more_than_planned runs, once for each technique"]
fn one_technique() {
    let technique = std::env::var(TECHNIQUE).expect("a technique");
    let folder = std::env::var(FOLDER).expect("a folder");
    let (options, mut stages, model) = specimen(&technique);
    stages.push(json!({"technique": technique, "options": options}));
    let source = Path::new(&folder).join(model);
    let model = inspect(&SourceFile::from_path(&source).expect("files")).expect("opens");
    let mut datasets = Datasets::new();
    let data = SourceFile::from_path(&source.with_extension("jsonl")).expect("files");
    datasets.insert("ids", Dataset::open(&data).expect("a dataset"));
    let asked = |format: &str| json!({"stages": stages, "formats": [format], "calibration": {"dataset": "ids", "max_seq_length": 64}});
    let formats = ["safetensors", "compressed-tensors", "gguf"];
    let mut plans = formats.iter().map(|format| {
        plan(
            &Recipe::from_value(&asked(format)).expect("a recipe"),
            &model,
            &datasets,
        )
    });
    let mut refusals = Vec::new();
    let planned = plans.find_map(|plan| plan.map_err(|r| refusals.extend(r)).ok());
    let planned = planned.unwrap_or_else(|| panic!("{technique}: {refusals:?}"));
    let work = Path::new(&folder).join(&technique);
    let (out, scratch) = (work.join("out"), work.join("scratch"));
    execute(
        &planned,
        &model,
        &datasets,
        &Site::on_cpu(&out, &scratch),
        &Silent,
    )
    .expect("runs");
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("a peak");
    let peak: u64 = line
        .split_whitespace()
        .nth(1)
        .expect("kB")
        .parse()
        .expect("a number");
    println!("MEMORY {} {}", planned.peak_memory_bytes, peak << 10);
    fs::remove_dir_all(work).expect("removes");
}

#[cfg(target_os = "linux")]
#[test]
fn no_technique_takes_more_than_planned() {
    let folder = tempfile::tempdir().expect("a folder");
    for model in ["convolutions", "dense", "experts"] {
        write_model(&folder.path().join(model), model);
    }
    for technique in names() {
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "one_technique", "--ignored", "--nocapture"])
            .env(TECHNIQUE, technique)
            .env(FOLDER, folder.path())
            .output()
            .expect("starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = text
            .lines()
            .find_map(|l| l.split_once("MEMORY "))
            .unwrap_or_else(|| {
                panic!("{technique}: {text}{}", String::from_utf8_lossy(&output.stderr));
            });
        let mut figures = figures.1.split(' ').map(|n| n.parse::<u64>().expect("a number"));
        let (planned, peak) = (
            figures.next().expect("planned"),
            figures.next().expect("measured"),
        );
        println!("{technique}: {} of {} MiB", peak >> 20, planned >> 20);
        assert!(
            peak <= planned,
            "{technique} took {peak} bytes, {planned} were planned"
        );
        // What depends on the model is not hidden behind what does not.
        let own = planned.saturating_sub(BASE);
        assert!(
            peak <= own + BASE / 2,
            "{technique} took {peak} bytes, {own} of its own were planned"
        );
    }
}
