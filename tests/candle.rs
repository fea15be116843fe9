//! candle's own GGUF code beside ours: it loads what we write and reads the same numbers, and we load what it writes.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use modelpress_engine::observe::Silent;
use modelpress_engine::{Datasets, Recipe, Site, SourceFile, execute, inspect, plan};
use serde_json::json;

const ROWS: usize = 16;
const COLS: usize = 512;
const NAMES: [&str; 3] = [
    "token_embd.weight",
    "blk.0.attn_q.weight",
    "blk.0.ffn_down.weight",
];

/// A llama-shaped file that candle wrote, with weights of type `dtype`.
fn by_candle(folder: &Path, dtype: GgmlDType) -> PathBuf {
    let values: Vec<f32> = (0..ROWS * COLS)
        .map(|i| ((i as f32 * 0.618).sin() + (i as f32 * 0.1).cos().powi(3)) * 0.05)
        .collect();
    let tensor = Tensor::from_vec(values, (ROWS, COLS), &Device::Cpu).expect("tensor");
    let quantized = QTensor::quantize(&tensor, dtype).expect("quantizes");
    let path = folder.join("source.gguf");
    let metadata = [
        ("general.architecture", Value::String("llama".to_owned())),
        ("llama.block_count", Value::U32(1)),
    ];
    let metadata: Vec<_> = metadata.iter().map(|(name, value)| (*name, value)).collect();
    let tensors: Vec<_> = NAMES.iter().map(|name| (*name, &quantized)).collect();
    gguf_file::write(&mut File::create(&path).expect("file"), &metadata, &tensors).expect("writes");
    path
}

fn by_candle_read(path: &Path, name: &str) -> Vec<f32> {
    let mut file = File::open(path).expect("opens");
    let content = gguf_file::Content::read(&mut file).expect("reads");
    let tensor = content
        .tensor(&mut file, name, &Device::Cpu)
        .expect("is there")
        .dequantize(&Device::Cpu)
        .expect("dequantizes");
    tensor
        .flatten_all()
        .and_then(|t| t.to_vec1())
        .expect("flat values")
}

/// The tensors of a safetensors file of ours, as f32.
fn dense(path: &Path, name: &str) -> Vec<f32> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).expect("loads");
    tensors[name]
        .flatten_all()
        .and_then(|t| t.to_vec1())
        .expect("flat values")
}

/// Our GGUF and the dense weights it stands for.
fn by_us(source: &Path, out: &Path, mix: &str) -> (PathBuf, PathBuf) {
    let recipe = Recipe::from_value(&json!({
        "stages": [{"technique": "ggml", "options": {"type": mix, "pure": true}, "targets": ["re:.*"]}],
        "formats": ["gguf", {"format": "safetensors", "options": {"dtype": "F32"}}],
    }))
    .expect("recipe");
    let model = inspect(&SourceFile::from_path(source).expect("files")).expect("model");
    let plan = plan(&recipe, &model, &Datasets::new()).expect("plan");
    let outcome = execute(&plan, &model, &Datasets::new(), &Site::on_cpu(out, out), &Silent).expect("runs");
    let file = |format: &str, end: &str| {
        let artifact = outcome
            .artifacts
            .iter()
            .find(|a| a.format == format)
            .expect("format");
        let found = artifact
            .files
            .iter()
            .find(|f| f.name.ends_with(end))
            .expect("file");
        found.path.clone()
    };
    (file("gguf", ".gguf"), file("safetensors", ".safetensors"))
}

#[test]
fn candle_reads_the_numbers_that_we_report() {
    for mix in [
        "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q4_K_S", "Q5_K_S", "Q6_K", "F16",
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let source = by_candle(folder.path(), GgmlDType::F32);
        let (gguf, safetensors) = by_us(&source, &folder.path().join("out"), mix);
        for name in NAMES {
            let (theirs, ours) = (by_candle_read(&gguf, name), dense(&safetensors, name));
            assert_eq!(theirs.len(), ROWS * COLS);
            // candle may add step · code and minimum in another order: one rounding apart, no more.
            let largest = ours.iter().fold(0f32, |m, v| m.max(v.abs()));
            for (a, b) in theirs.iter().zip(&ours) {
                assert!((a - b).abs() <= largest * f32::EPSILON, "{mix} {name}: {a} {b}");
            }
        }
    }
}

#[test]
fn we_read_the_numbers_that_candle_wrote() {
    let types = [
        GgmlDType::F32,
        GgmlDType::F16,
        GgmlDType::Q4_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];
    for dtype in types {
        let folder = tempfile::tempdir().expect("folder");
        let source = by_candle(folder.path(), dtype);
        let recipe = json!({"stages": [{"technique": "ggml", "options": {"type": "F16"}, "targets": ["re:nothing|token_embd"]}],
            "formats": [{"format": "safetensors", "options": {"dtype": "F32"}}]});
        let recipe = Recipe::from_value(&recipe).expect("recipe");
        let model = inspect(&SourceFile::from_path(&source).expect("files")).expect("model");
        let plan = plan(&recipe, &model, &Datasets::new()).expect("plan");
        let out = folder.path().join("out");
        let site = Site::on_cpu(&out, folder.path());
        let outcome = execute(&plan, &model, &Datasets::new(), &site, &Silent).expect("runs");
        let files = &outcome.artifacts[0].files;
        let path = &files
            .iter()
            .find(|f| f.name.ends_with(".safetensors"))
            .expect("file")
            .path;
        let name = "blk.0.ffn_down.weight";
        let largest_error = by_candle_read(&source, name)
            .iter()
            .zip(dense(path, name))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        // Untargeted matrices become F16: half a unit in the last place of values below 0.125.
        assert!(largest_error <= 0.125 / 2048.0, "{dtype:?}: {largest_error}");
    }
}
