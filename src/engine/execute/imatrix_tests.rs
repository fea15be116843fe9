//! Importance matrices from end to end: collected on a tiny model or imported, used, written, and what is refused.

use super::*;
use crate::checkpoint::inspect;
use crate::dataset::Dataset;
use crate::formats::gguf::build::header_bytes;
use crate::formats::gguf::imatrix::{ImportanceEntry, ImportanceFile};
use crate::formats::gguf::value::{Metadata, Value as Field};
use crate::observe::Silent;
use crate::recipe::{Recipe, Refusal};
use crate::tensor::GgmlType;
use serde_json::Value;
use std::collections::BTreeMap;
use tempfile::TempDir;

const HIDDEN: usize = 256;
const VOCAB: usize = 32;

/// Numbers without a pattern that a quantizer could follow.
fn noise(seed: usize, count: usize) -> Vec<f32> {
    let mut state = seed as u64 + 1;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// LLaMA of two blocks: 4 heads that share 2 keys, everything 256 wide, a head of its own.
pub(super) fn llama(folder: &Path) -> Checkpoint {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("lm_head.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for block in 0..2 {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.push((format!("model.layers.{block}.{name}.weight"), shape.to_vec()));
        };
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            add(norm, &[HIDDEN]);
        }
        for (name, rows) in [("q", HIDDEN), ("k", HIDDEN / 2), ("v", HIDDEN / 2), ("o", HIDDEN)] {
            add(&format!("self_attn.{name}_proj"), &[rows, HIDDEN]);
        }
        for name in ["gate", "up", "down"] {
            add(&format!("mlp.{name}_proj"), &[HIDDEN, HIDDEN]);
        }
    }
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (i, (name, shape)) in tensors.iter().enumerate() {
        let begin = data.len();
        let scale = if shape.len() == 1 { 1.0 } else { 0.1 };
        for value in noise(i, shape.iter().product()) {
            data.extend((value * scale).to_le_bytes());
        }
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let mut head = serde_json::to_vec(&header).unwrap();
    head.resize(head.len().next_multiple_of(8), b' ');
    let file = [&(head.len() as u64).to_le_bytes(), head.as_slice(), &data].concat();
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": HIDDEN,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": VOCAB,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": false,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    inspect(&SourceFile::from_path(folder).unwrap()).unwrap()
}

fn dataset(folder: &Path, name: &str, bytes: &[u8]) -> Dataset {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    let name = name.to_owned();
    Dataset::open(&[SourceFile::new(name, path)]).unwrap()
}

/// Three rows of token ids.
fn ids(folder: &Path) -> Dataset {
    let row = |r: usize| (0..12).map(|i| (i * 7 + r * 5) % VOCAB).collect::<Vec<_>>();
    let rows: Vec<String> = (0..3).map(|r| json!({"input_ids": row(r)}).to_string()).collect();
    dataset(folder, "ids.jsonl", rows.join("\n").as_bytes())
}

pub(super) fn planned(recipe: &Value, model: &Checkpoint, datasets: &Datasets) -> Result<Plan, Vec<Refusal>> {
    plan::plan(&Recipe::from_value(recipe).unwrap(), model, datasets)
}

/// Every file that a recipe makes with so many threads.
fn made(
    recipe: &Value,
    model: &Checkpoint,
    datasets: &Datasets,
    threads: usize,
) -> BTreeMap<String, Vec<u8>> {
    let folder = TempDir::new().unwrap();
    let plan = planned(recipe, model, datasets).unwrap();
    let (out, scratch) = (folder.path().join("out"), folder.path().join("scratch"));
    let site = Site::on_cpu(&out, &scratch);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    let outcome = pool
        .install(|| execute(&plan, model, datasets, &site, &Silent))
        .unwrap();
    let weights = outcome.artifacts.iter().flat_map(Artifact::planned);
    weights
        .map(|file| (file.name.clone(), std::fs::read(&file.path).unwrap()))
        .collect()
}

fn recipe(preset: &str, imatrix: &str, formats: &[&str]) -> Value {
    json!({
        "preset": preset, "options": {"imatrix": imatrix}, "formats": formats,
        "calibration": {"dataset": "ids", "num_samples": 3, "max_seq_length": 16},
    })
}

fn read(bytes: &[u8]) -> ImportanceFile {
    let read_at = |offset: u64, out: &mut [u8]| {
        out.copy_from_slice(&bytes[offset as usize..][..out.len()]);
        Ok(())
    };
    ImportanceFile::read(&read_at, bytes.len() as u64).unwrap()
}

#[test]
fn what_is_collected_weighs_the_blocks_and_comes_back_the_same_as_a_file() {
    let folder = TempDir::new().unwrap();
    let model = llama(folder.path());
    let mut datasets = Datasets::new();
    datasets.insert("ids", ids(folder.path()));
    let both = ["safetensors", "imatrix"];
    for preset in ["Q4_K_M", "IQ2_XS"] {
        let collected = made(&recipe(preset, "calibration", &both), &model, &datasets, 1);
        assert_eq!(
            collected,
            made(&recipe(preset, "calibration", &both), &model, &datasets, 3)
        );

        let written = &collected["imatrix.gguf"];
        let file = read(written);
        assert_eq!(
            (file.chunk_count, file.chunk_size, file.datasets.as_slice()),
            (3, 12, &["ids".to_owned()][..])
        );
        assert_eq!(file.entries.len(), 14);
        assert!(file.entries.iter().all(|entry| entry.counts == [36.0]));

        datasets.insert("matrix", dataset(folder.path(), "matrix.gguf", written));
        let imported = made(&recipe(preset, "matrix", &both), &model, &datasets, 2);
        assert!(collected == imported, "{preset}");
        if preset == "Q4_K_M" {
            let plain = made(&recipe(preset, "none", &["safetensors"]), &model, &datasets, 2);
            assert!(plain["model.safetensors"] != collected["model.safetensors"]);
        }
    }
}

/// The first layers read normed embeddings, which are computed here once more.
#[test]
fn what_is_collected_is_the_square_of_what_layers_read() {
    let folder = TempDir::new().unwrap();
    let model = llama(folder.path());
    let mut datasets = Datasets::new();
    datasets.insert("ids", ids(folder.path()));
    let files = made(&recipe("F16", "calibration", &["imatrix"]), &model, &datasets, 2);
    let file = read(&files["imatrix.gguf"]);
    let (embedding, norm) = (noise(0, VOCAB * HIDDEN), noise(3, HIDDEN));
    let mut sums = vec![0.0_f64; HIDDEN];
    for id in (0..3).flat_map(|r| (0..12).map(move |i| (i * 7 + r * 5) % VOCAB)) {
        let x: Vec<f64> = embedding[id * HIDDEN..][..HIDDEN]
            .iter()
            .map(|v| f64::from(v * 0.1))
            .collect();
        let mean: f64 = x.iter().map(|v| v * v).sum::<f64>() / HIDDEN as f64;
        for ((sum, x), weight) in sums.iter_mut().zip(&x).zip(&norm) {
            *sum += (x * f64::from(*weight)).powi(2) / (mean + 1e-5);
        }
    }
    for name in ["attn_q", "attn_k", "attn_v"] {
        let entry = file.entry(&format!("blk.0.{name}.weight")).unwrap();
        let near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= 1e-4 * b + 1e-6;
        assert!(entry.in_sum2.iter().zip(&sums).all(near), "{name}");
    }
}

fn refusal(recipe: &Value, model: &Checkpoint, datasets: &Datasets) -> (String, &'static str, String) {
    let first = planned(recipe, model, datasets).unwrap_err().remove(0);
    (first.pointer, first.code, first.detail)
}

#[test]
fn a_matrix_that_does_not_fit_is_refused_where_it_is_named() {
    let folder = TempDir::new().unwrap();
    let model = llama(folder.path());
    let entry = |name: &str, values: usize| ImportanceEntry {
        name: name.to_owned(),
        in_sum2: vec![1.0; values],
        counts: vec![1.0],
    };
    let file = |entries: Vec<ImportanceEntry>| {
        let file = ImportanceFile {
            entries,
            datasets: vec!["wiki".into()],
            chunk_count: 1,
            chunk_size: 512,
        };
        file.write().unwrap()
    };
    let good = entry("blk.0.attn_q.weight", HIDDEN);
    let mut datasets = Datasets::new();
    datasets.insert("ids", ids(folder.path()));
    for (name, entries) in [
        ("good", vec![good.clone()]),
        ("short", vec![good.clone(), entry("blk.1.attn_q.weight", 64)]),
        ("strange", vec![good, entry("blk.7.attn_q.weight", HIDDEN)]),
    ] {
        datasets.insert(name, dataset(folder.path(), name, &file(entries)));
    }
    let formats = ["safetensors"];
    for (preset, imatrix, code, says) in [
        ("IQ2_XS", "none", "needs_importance", "imatrix to \"calibration\""),
        ("IQ2_XS", "good", "needs_importance", "says nothing of it"),
        (
            "Q4_K_M",
            "short",
            "imatrix_does_not_fit",
            "64 numbers for blk.1.attn_q.weight",
        ),
        (
            "Q4_K_M",
            "strange",
            "imatrix_does_not_fit",
            "blk.7.attn_q.weight, and the model has no such tensor",
        ),
        ("Q4_K_M", "ids", "not_an_imatrix", "the dataset holds ids"),
        ("Q4_K_M", "builtin", "not_an_imatrix", "builtin is a text"),
        (
            "Q4_K_M",
            "nowhere",
            "unknown_dataset",
            "there are builtin, good, ids",
        ),
    ] {
        let (pointer, got, detail) = refusal(&recipe(preset, imatrix, &formats), &model, &datasets);
        assert_eq!(
            (pointer.as_str(), got),
            ("/options/imatrix", code),
            "{preset} {imatrix}: {detail}"
        );
        assert!(detail.contains(says), "{detail}");
    }
    // Written out, the option has another place.
    let stages = json!([{"technique": "ggml", "options": {"type": "IQ2_XS"}, "targets": ["re:.*"]}]);
    let (pointer, ..) = refusal(&json!({"stages": stages, "formats": formats}), &model, &datasets);
    assert_eq!(pointer, "/stages/0/options/imatrix");
    // Nothing to run over, and nothing to write.
    let swapped = json!({"preset": "IQ2_XS", "formats": formats, "calibration": "good"});
    let (pointer, code, _) = refusal(&swapped, &model, &datasets);
    assert_eq!(
        (pointer.as_str(), code),
        ("/calibration/dataset", "dataset_is_an_imatrix")
    );
    let (pointer, code, _) = refusal(&recipe("Q4_K_M", "none", &["imatrix"]), &model, &datasets);
    assert_eq!((pointer.as_str(), code), ("/formats/0", "no_importance"));
}

/// A GGUF cannot run here, but a matrix from elsewhere is of its tensors by name; experts lie in one tensor.
#[test]
fn a_gguf_says_which_matrix_it_was_made_with() {
    let folder = TempDir::new().unwrap();
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Field::text("llama"));
    metadata.set("quantize.imatrix.chunks_count", Field::U32(99));
    let tensors = [
        ("blk.0.attn_q.weight".to_owned(), vec![64, 8], GgmlType::F32),
        (
            "blk.0.ffn_up_exps.weight".to_owned(),
            vec![64, 4, 3],
            GgmlType::F32,
        ),
    ];
    let layout = header_bytes(&metadata, &tensors, 32).unwrap();
    let mut bytes = layout.header;
    bytes.extend(noise(1, 64 * 20).iter().flat_map(|v| v.to_le_bytes()));
    std::fs::write(folder.path().join("model.gguf"), bytes).unwrap();
    let model = inspect(&SourceFile::from_path(folder.path()).unwrap()).unwrap();
    let entry = |name: &str, sums: &[f32], counts: usize| ImportanceEntry {
        name: name.to_owned(),
        in_sum2: sums.iter().map(|v| v.abs()).collect(),
        counts: vec![2.0; counts],
    };
    let matrix = ImportanceFile {
        entries: vec![
            entry("blk.0.attn_q.weight", &noise(5, 64), 1),
            entry("blk.0.ffn_up_exps.weight", &noise(6, 192), 3),
        ],
        datasets: vec!["wiki.train".into()],
        chunk_count: 0,
        chunk_size: 512,
    };
    let elsewhere = TempDir::new().unwrap();
    let mut datasets = Datasets::new();
    datasets.insert(
        "mine",
        dataset(elsewhere.path(), "m.gguf", &matrix.write().unwrap()),
    );
    let recipe = json!({"preset": "Q4_0", "options": {"imatrix": "mine"}, "formats": ["gguf", "imatrix"]});
    let files = made(&recipe, &model, &datasets, 1);
    assert_eq!(files, made(&recipe, &model, &datasets, 3));
    assert_eq!(read(&files["imatrix.gguf"]), matrix);

    let out = elsewhere.path().join("model-Q4_0.gguf");
    std::fs::write(&out, &files["model-Q4_0.gguf"]).unwrap();
    let written = inspect(&SourceFile::from_path(&out).unwrap()).unwrap();
    let keys = written.gguf.unwrap();
    let of_matrix = keys.iter().filter(|(key, _)| key.starts_with("quantize."));
    let of_matrix: Vec<(&str, &Field)> = of_matrix.collect();
    assert_eq!(
        of_matrix,
        [
            ("quantize.imatrix.file", &Field::text("mine")),
            ("quantize.imatrix.dataset", &Field::text("wiki.train")),
            ("quantize.imatrix.entries_count", &Field::U32(2)),
        ]
    );
}

/// Embedding and head are known too, which no importance matrix of inputs knows, and the matrix that is written says so.
#[test]
fn gradients_weigh_the_columns_of_every_matrix() {
    let folder = TempDir::new().unwrap();
    let model = llama(folder.path());
    let mut datasets = Datasets::new();
    datasets.insert("ids", ids(folder.path()));
    let both = ["safetensors", "imatrix"];
    let of =
        |imatrix: &str, threads: usize| made(&recipe("Q4_K_M", imatrix, &both), &model, &datasets, threads);
    let weighed = of("fisher", 1);
    assert!(
        weighed == of("fisher", 3),
        "the number of threads changes nothing"
    );
    assert_ne!(
        weighed["model.safetensors"],
        of("calibration", 2)["model.safetensors"]
    );
    let file = read(&weighed["imatrix.gguf"]);
    assert_eq!(file.entries.len(), 16);
    for entry in &file.entries {
        let mean = entry.in_sum2.iter().sum::<f32>() / entry.in_sum2.len() as f32;
        assert!((mean - 1.0).abs() < 1e-3, "{}: {mean}", entry.name);
    }
}

#[test]
fn single_modules_get_types_of_their_own() {
    let folder = TempDir::new().unwrap();
    let model = llama(folder.path());
    let with = |types: Value| {
        let recipe =
            json!({"preset": "Q4_K_M", "options": {"tensor_types": types}, "formats": ["safetensors"]});
        planned(&recipe, &model, &Datasets::new())
    };
    let plan = with(json!({"Q8_0": ["re:.*down_proj"], "F16": ["lm_head"]})).unwrap();
    let kind = |name: &str| plan.tensors.iter().find(|t| t.name == name).unwrap().kind.label();
    assert_eq!(kind("model.layers.0.mlp.down_proj.weight"), "Q8_0");
    assert_eq!(kind("model.layers.0.mlp.up_proj.weight"), "Q4_K");
    assert_eq!(kind("lm_head.weight"), "F16");
    for (types, pointer, code) in [
        (json!(["Q8_0"]), "/options/tensor_types", "invalid_option"),
        (
            json!({"Q9": ["lm_head"]}),
            "/options/tensor_types/Q9",
            "invalid_option",
        ),
        (
            json!({"Q8_0": "lm_head"}),
            "/options/tensor_types/Q8_0",
            "invalid_option",
        ),
        (
            json!({"Q8_0": ["nothing"]}),
            "/options/tensor_types/Q8_0",
            "no_targets",
        ),
        (
            json!({"Q8_0": ["lm_head"], "F16": ["lm_head"]}),
            "/options/tensor_types/F16",
            "conflicting_options",
        ),
        (
            json!({"IQ2_XS": ["lm_head"]}),
            "/options/imatrix",
            "needs_importance",
        ),
    ] {
        let refusal = with(types.clone()).unwrap_err().remove(0);
        assert_eq!(
            (refusal.pointer.as_str(), refusal.code),
            (pointer, code),
            "{types}: {}",
            refusal.detail
        );
    }
}
