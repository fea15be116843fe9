//! Targets that read files: models, datasets, recipes, by the engine's public face.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use modelpress_engine::recipe::Recipe;
use modelpress_engine::{Checkpoint, Dataset, Datasets, SourceFile, inspect, plan};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Records that a target looks at.
const RECORDS: usize = 1000;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(folder());
}

/// In memory, where there is such a place.
fn folder() -> TempDir {
    let shm = Path::new("/dev/shm");
    let made = if shm.is_dir() {
        TempDir::new_in(shm)
    } else {
        TempDir::new()
    };
    made.expect("a folder")
}

fn with(files: &[(&str, &[u8])], look: impl FnOnce(Vec<SourceFile>)) {
    FOLDER.with_borrow(|folder| {
        let sources = files.iter().map(|(name, bytes)| {
            let path: PathBuf = folder.path().join(name);
            std::fs::write(&path, bytes).expect("room");
            SourceFile::new((*name).to_owned(), path)
        });
        look(sources.collect());
        for (name, _) in files {
            let _there = std::fs::remove_file(folder.path().join(name));
        }
    });
}

/// Opens a model and plans what most formats ask of it.
fn model(files: &[(&str, &[u8])], recipes: &[&str]) {
    with(files, |sources| {
        let Ok(checkpoint) = inspect(&sources) else { return };
        let _summary = serde_json::to_value(checkpoint.summary()).expect("JSON");
        for recipe in recipes {
            planned(&checkpoint, &json!(recipe));
        }
    });
}

fn planned(checkpoint: &Checkpoint, recipe: &Value) {
    if let Ok(recipe) = Recipe::from_value(recipe) {
        let _planned_or_refused = plan(&recipe, checkpoint, &Datasets::new());
    }
}

pub(crate) fn safetensors(data: &[u8]) {
    model(&[("model.safetensors", data)], &["W8A16"]);
}

pub(crate) fn gguf(data: &[u8]) {
    model(&[("model.gguf", data)], &["Q8_0"]);
}

pub(crate) fn config(data: &[u8]) {
    model(
        &[("config.json", data), ("model.safetensors", &llama())],
        &["Q8_0", "W4A16_GPTQ"],
    );
}

pub(crate) fn index(data: &[u8]) {
    let weights = llama();
    model(
        &[
            ("config.json", CONFIG.as_bytes()),
            ("model.safetensors.index.json", data),
            ("model-00001-of-00001.safetensors", &weights),
        ],
        &["W8A16"],
    );
}

/// The tokenizer goes into a GGUF, and reads text for calibration.
pub(crate) fn tokenizer(data: &[u8]) {
    let weights = llama();
    model(
        &[
            ("config.json", CONFIG.as_bytes()),
            ("model.safetensors", &weights),
            ("tokenizer.json", data),
        ],
        &["Q8_0", "W4A16_GPTQ"],
    );
}

/// As YAML and as JSON.
pub(crate) fn recipe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _read_or_refused = Recipe::from_yaml(text);
    if let Ok(value) = serde_json::from_str::<Value>(text)
        && let Ok(recipe) = Recipe::from_value(&value)
    {
        let _hash = recipe.hash();
    }
}

/// A recipe's names and expressions meet a model.
pub(crate) fn recipe_plan(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let weights = llama();
    let files: [(&str, &[u8]); 2] = [
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &weights),
    ];
    with(&files, |sources| {
        let checkpoint = inspect(&sources).expect("a model");
        planned(&checkpoint, &value);
    });
}

fn dataset(name: &str, data: &[u8]) {
    with(&[(name, data)], |sources| {
        let Ok(dataset) = Dataset::open(&sources) else {
            return;
        };
        let _summary = dataset.summary();
        for record in dataset.records().take(RECORDS) {
            if record.is_err() {
                break;
            }
        }
    });
}

pub(crate) fn txt(data: &[u8]) {
    dataset("a.txt", data);
}

pub(crate) fn jsonl(data: &[u8]) {
    dataset("a.jsonl", data);
}

pub(crate) fn npy(data: &[u8]) {
    dataset("a.npy", data);
}

pub(crate) fn arrays(data: &[u8]) {
    dataset("a.safetensors", data);
}

fn importance(name: &str, data: &[u8]) {
    with(&[(name, data)], |sources| {
        if let Ok(dataset) = Dataset::open(&sources) {
            let _summary = dataset.summary();
            let _read_or_refused = dataset.importance();
        }
    });
}

pub(crate) fn imatrix(data: &[u8]) {
    importance("imatrix.gguf", data);
}

pub(crate) fn imatrix_dat(data: &[u8]) {
    importance("imatrix.dat", data);
}

const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,
"intermediate_size":64,"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":2,"vocab_size":32,
"rms_norm_eps":1e-5,"max_position_embeddings":64,"rope_theta":10000.0,"hidden_act":"silu","tie_word_embeddings":true,
"torch_dtype":"float32"}"#;

/// The weights of the smallest Llama that `CONFIG` describes.
fn llama() -> Vec<u8> {
    let shapes: [(&str, &[usize]); 11] = [
        ("model.embed_tokens.weight", &[32, 64]),
        ("model.layers.0.input_layernorm.weight", &[64]),
        ("model.layers.0.mlp.down_proj.weight", &[64, 64]),
        ("model.layers.0.mlp.gate_proj.weight", &[64, 64]),
        ("model.layers.0.mlp.up_proj.weight", &[64, 64]),
        ("model.layers.0.post_attention_layernorm.weight", &[64]),
        ("model.layers.0.self_attn.k_proj.weight", &[64, 64]),
        ("model.layers.0.self_attn.o_proj.weight", &[64, 64]),
        ("model.layers.0.self_attn.q_proj.weight", &[64, 64]),
        ("model.layers.0.self_attn.v_proj.weight", &[64, 64]),
        ("model.norm.weight", &[64]),
    ];
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(
            name.to_owned(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}),
        );
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend((0..end / 4).flat_map(|n| (((n * 37) % 201) as f32 / 100.0 - 1.0).to_le_bytes()));
    file
}
