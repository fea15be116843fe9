//! Safetensors in several files, with the index that transformers reads.
//!
//! Owns: cutting a model into shards, the index, written and checked. Must not know: how a weight is encoded.
//! Invariant: shards hold the tensors in the order they are produced, none above `MAX_SHARD` unless one tensor alone
//! is; every tensor the index names is in the file it names.

use super::container::{Entry, Layout, Placed};
use super::{hf_output, safetensors};
use crate::checkpoint::{SourceFile, parse_json, read_side_file};
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;
use serde_json::{Map, Value, json};

/// transformers' own default.
const MAX_SHARD: u64 = 5_000_000_000;

const INDEX: &str = "model.safetensors.index.json";

/// Lays out `count` tensors, each with its own parts.
pub(super) fn push(layout: &mut Layout, count: usize, parts: &dyn Fn(usize) -> Vec<Entry>) {
    name(layout, cut(count, parts, MAX_SHARD));
}

fn cut(count: usize, parts: &dyn Fn(usize) -> Vec<Entry>, most: u64) -> Vec<Vec<Placed>> {
    let mut shards: Vec<Vec<Placed>> = vec![Vec::new()];
    let mut size = 0;
    for index in 0..count {
        let entries = parts(index);
        let bytes: u64 = entries.iter().map(|e| e.bytes).sum();
        if size > 0 && size + bytes > most {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(Placed {
                tensor: Some(index),
                literal: Vec::new(),
                entries,
            });
        }
    }
    shards
}

fn name(layout: &mut Layout, shards: Vec<Vec<Placed>>) {
    let count = shards.len();
    let mut map = Map::new();
    let mut total = 0;
    for (i, shard) in shards.into_iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        for entry in shard.iter().flat_map(|p| &p.entries) {
            map.insert(entry.name.clone(), json!(name));
            total += entry.bytes;
        }
        layout.files.push(safetensors::file(name, shard));
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        layout.push_bytes(INDEX, hf_output::pretty(&index));
    }
}

/// Tensors of every shard, checked against the index where there is one.
pub(super) fn read(files: &[SourceFile]) -> Result<Vec<TensorInfo>> {
    let tensors = safetensors::read_all(files)?;
    if let Some(file) = files.iter().find(|f| f.name == INDEX) {
        let index = parse_json(INDEX, &read_side_file(file)?)?;
        check_index(&index, files, &tensors)?;
    }
    Ok(tensors)
}

fn check_index(index: &Value, files: &[SourceFile], tensors: &[TensorInfo]) -> Result<()> {
    let bad = |what: String| Error::bad_input("invalid_index", format!("{INDEX}: {what}"));
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| bad("no weight_map object".into()))?;
    let found: std::collections::HashMap<&str, &str> = tensors
        .iter()
        .map(|t| (t.name.as_str(), files[t.file].name.as_str()))
        .collect();
    for (tensor, shard) in map {
        let shard = shard
            .as_str()
            .ok_or_else(|| bad(format!("tensor {tensor} names no file")))?;
        match found.get(tensor.as_str()) {
            Some(file) if *file == shard => {}
            Some(file) => {
                return Err(bad(format!(
                    "tensor {tensor} should be in {shard} but is in {file}"
                )));
            }
            None if files.iter().any(|f| f.name == shard) => {
                return Err(bad(format!("tensor {tensor} is not in {shard}")));
            }
            None => return Err(bad(format!("the shard {shard} is missing: upload it too"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::container::Content;

    #[test]
    fn the_index_names_the_shard_of_every_tensor() {
        let part = |index: usize| {
            vec![Entry {
                name: format!("t{index}"),
                dtype: "U8".into(),
                shape: vec![10 * index],
                bytes: 10 * index as u64,
            }]
        };
        let mut layout = Layout::default();
        name(&mut layout, cut(5, &part, 35));
        let names: Vec<&str> = layout.files.iter().map(|f| f.name.as_str()).collect();
        // 0 + 10 + 20, 30, and 40, which alone is above the limit.
        let shard = |n: usize| format!("model-0000{n}-of-00003.safetensors");
        assert_eq!(names, [&shard(1), &shard(2), &shard(3), INDEX]);
        let Content::Bytes(index) = &layout.files[3].content else {
            panic!("the index is no known bytes")
        };
        let index: Value = serde_json::from_slice(index).unwrap();
        assert_eq!(index["metadata"]["total_size"], 100);
        for (tensor, place) in [("t0", 1), ("t1", 1), ("t2", 1), ("t3", 2), ("t4", 3)] {
            assert_eq!(index["weight_map"][tensor], shard(place), "{tensor}");
        }
        let entries: Vec<&str> = layout.entries().map(|e| e.name.as_str()).collect();
        assert_eq!(entries, ["t0", "t1", "t2", "t3", "t4"]);
    }
}
