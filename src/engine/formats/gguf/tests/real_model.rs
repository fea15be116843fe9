//! A real checkpoint against the GGUF that llama.cpp's own converter made of it.
//!
//! `MODELPRESS_TEST_MODEL` is the checkpoint folder; the GGUF is `MODELPRESS_TEST_GGUF`, or the folder's name with
//! `-f16.gguf`. Without them there is nothing to compare and the test passes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::container::{Header, parse};
use super::error::GgufError;
use super::metadata::{About, ModelConfig};
use super::names::permute_row;
use super::tokenizer::{Target, TokenizerFiles, convert};

fn json(path: &Path) -> Option<Json> {
    Some(serde_json::from_slice(&fs::read(path).ok()?).unwrap())
}

fn header(path: &Path) -> Header {
    let file = File::open(path).unwrap();
    parse(
        &|offset, out| file.read_exact_at(out, offset),
        file.metadata().unwrap().len(),
    )
    .unwrap()
}

fn paths() -> Option<(PathBuf, PathBuf)> {
    let folder = PathBuf::from(std::env::var_os("MODELPRESS_TEST_MODEL")?);
    let gguf = match std::env::var_os("MODELPRESS_TEST_GGUF") {
        Some(path) => PathBuf::from(path),
        None => folder.with_file_name(format!("{}-f16.gguf", folder.file_name()?.to_str()?)),
    };
    (folder.exists() && gguf.exists()).then_some((folder, gguf))
}

#[test]
fn every_key_is_the_one_llama_cpp_s_converter_wrote() {
    let Some((folder, gguf)) = paths() else { return };
    let theirs = header(&gguf);
    let config = json(&folder.join("config.json")).unwrap();
    let generation = json(&folder.join("generation_config.json"));
    let model = ModelConfig::from_json(&config).unwrap();
    let about = About {
        name: theirs.metadata.get_str("general.name").unwrap(),
        parameters: theirs
            .tensors
            .iter()
            .map(|tensor| tensor.dims.iter().product::<u64>())
            .sum(),
        file_type: theirs.metadata.get_u32("general.file_type").unwrap(),
        generation_config: generation.as_ref(),
    };
    let mut ours = model.metadata(&about);
    let get = |name: &str| Ok::<_, GgufError>(fs::read(folder.join(name)).ok());
    let files = TokenizerFiles::read(get).unwrap();
    let target = Target {
        vocab_size: model.vocab,
        config: &config,
        generation_config: generation.as_ref(),
        pre: None,
    };
    ours.extend(convert(&files, &target).unwrap());
    for (key, value) in theirs.metadata.iter() {
        assert_eq!(ours.get(key), Some(value), "{key}");
    }
    for (key, _) in ours.iter() {
        assert!(theirs.metadata.get(key).is_some(), "{key} is ours alone");
    }
    let names = model.names();
    for tensor in &theirs.tensors {
        let (hf, heads) = names.to_hf(&tensor.name).unwrap();
        let back = names.to_gguf(&hf).unwrap().unwrap();
        assert_eq!(
            (back.gguf.as_str(), back.permute_heads),
            (tensor.name.as_str(), heads)
        );
    }
}

/// The bytes of a tensor of `model.safetensors` and its rows.
fn safetensor(folder: &Path, name: &str) -> (Vec<u8>, usize) {
    let file = File::open(folder.join("model.safetensors")).unwrap();
    let mut len = [0; 8];
    file.read_exact_at(&mut len, 0).unwrap();
    let len = u64::from_le_bytes(len);
    let mut head = vec![0; len as usize];
    file.read_exact_at(&mut head, 8).unwrap();
    let info = &serde_json::from_slice::<Json>(&head).unwrap()[name];
    assert_eq!(info["dtype"], "BF16");
    let at = |i: usize| info["data_offsets"][i].as_u64().unwrap();
    let mut data = vec![0; (at(1) - at(0)) as usize];
    file.read_exact_at(&mut data, 8 + len + at(0)).unwrap();
    (data, info["shape"][0].as_u64().unwrap() as usize)
}

#[test]
fn q_and_k_rows_are_where_llama_cpp_s_converter_put_them() {
    let Some((folder, gguf)) = paths() else { return };
    let theirs = header(&gguf);
    let file = File::open(&gguf).unwrap();
    let names = ModelConfig::from_json(&json(&folder.join("config.json")).unwrap())
        .unwrap()
        .names();
    for hf in ["q_proj", "k_proj", "v_proj"].map(|part| format!("model.layers.3.self_attn.{part}.weight")) {
        let rename = names.to_gguf(&hf).unwrap().unwrap();
        let tensor = theirs.tensor(&rename.gguf).unwrap();
        assert_eq!(tensor.ggml_type_id, 1, "F16");
        let mut written = vec![0; tensor.bytes as usize];
        file.read_exact_at(&mut written, tensor.offset).unwrap();
        let (data, rows) = safetensor(&folder, &hf);
        let width = data.len() / rows;
        for (row, got) in written.chunks(width).enumerate() {
            let from = rename
                .permute_heads
                .map_or(row, |heads| permute_row(row, rows, heads));
            for (ours, got) in data[from * width..][..width].chunks(2).zip(got.chunks(2)) {
                let ours = half::bf16::from_le_bytes([ours[0], ours[1]]).to_f32();
                assert_eq!(
                    half::f16::from_f32(ours),
                    half::f16::from_le_bytes([got[0], got[1]]),
                    "{hf} row {row}"
                );
            }
        }
    }
}
