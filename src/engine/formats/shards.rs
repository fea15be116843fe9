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
use std::collections::{HashMap, HashSet};

/// transformers' own default.
const MAX_SHARD: u64 = 5_000_000_000;

/// The file of a model that is in one piece.
const SINGLE: &str = "model.safetensors";

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
            1 => SINGLE.to_owned(),
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

/// Tensors of the files that transformers would load: those the index names, or the one of the usual name, or all.
/// What else lies in the folder (`consolidated.safetensors`, adapters) holds the same weights again or others.
pub(super) fn read(files: &[SourceFile]) -> Result<Vec<TensorInfo>> {
    if let Some(file) = files.iter().find(|f| f.name == INDEX) {
        let index = parse_json(INDEX, &read_side_file(file)?)?;
        let shards = shards_of(&index, files)?;
        let tensors = safetensors::read_all(files, &|name| shards.contains(name))?;
        check_index(&index, files, &tensors)?;
        return Ok(tensors);
    }
    let single = files.iter().any(|f| f.name == SINGLE);
    safetensors::read_all(files, &|name| !single || name == SINGLE)
}

fn bad_index(what: impl std::fmt::Display) -> Error {
    Error::bad_input("invalid_index", format!("{INDEX}: {what}"))
}

fn weight_map(index: &Value) -> Result<&Map<String, Value>> {
    let map = index.get("weight_map").and_then(Value::as_object);
    map.ok_or_else(|| bad_index("no weight_map object"))
}

/// The files that the index names; all of them must be there.
fn shards_of<'a>(index: &'a Value, files: &[SourceFile]) -> Result<HashSet<&'a str>> {
    let mut shards = HashSet::new();
    for (tensor, shard) in weight_map(index)? {
        let Some(shard) = shard.as_str() else {
            return Err(bad_index(format_args!("tensor {} names no file", shown(tensor))));
        };
        shards.insert(shard);
    }
    if let Some(gone) = shards
        .iter()
        .find(|shard| !files.iter().any(|f| f.name == **shard))
    {
        let gone = shown(gone);
        return Err(bad_index(format_args!(
            "the shard {gone} is missing: upload it too"
        )));
    }
    if shards.is_empty() {
        return Err(bad_index("it names no shard"));
    }
    Ok(shards)
}

/// Enough of a name to find it.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn check_index(index: &Value, files: &[SourceFile], tensors: &[TensorInfo]) -> Result<()> {
    let found: HashMap<&str, &str> = tensors
        .iter()
        .map(|t| (t.name.as_str(), files[t.file].name.as_str()))
        .collect();
    for (tensor, shard) in weight_map(index)? {
        match found.get(tensor.as_str()) {
            Some(file) if shard == file => {}
            Some(file) => {
                return Err(bad_index(format_args!(
                    "tensor {tensor} should be in {} but is in {file}",
                    shown(shard.as_str().unwrap_or_default())
                )));
            }
            None => {
                return Err(bad_index(format_args!(
                    "tensor {} is not in {}",
                    shown(tensor),
                    shown(shard.as_str().unwrap_or_default())
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::container::Content;
    use proptest::prelude::*;

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

    const PARTS: [&str; 2] = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"];

    /// Files of these names; a safetensors file holds one byte as the tensor that `tensor` says.
    fn files(dir: &std::path::Path, content: &[(&str, &str)]) -> Vec<SourceFile> {
        let file = |(name, content): &(&str, &str)| {
            let path = dir.join(name);
            let bytes = if name.ends_with(".safetensors") {
                let entry = Entry {
                    name: (*content).into(),
                    dtype: "U8".into(),
                    shape: vec![1],
                    bytes: 1,
                };
                [safetensors::build_header(&[entry]), vec![7]].concat()
            } else {
                content.as_bytes().to_vec()
            };
            std::fs::write(&path, bytes).unwrap();
            SourceFile::new(*name, path)
        };
        content.iter().map(file).collect()
    }

    fn read_these(content: &[(&str, &str)]) -> std::result::Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let found = read(&files(dir.path(), content)).map_err(|e| format!("{}: {e}", e.code))?;
        Ok(found.into_iter().map(|t| t.name).collect())
    }

    #[test]
    fn only_what_transformers_would_load_is_read() {
        let index = json!({"weight_map": {"a": PARTS[0], "b": PARTS[1]}}).to_string();
        let whole = [
            (PARTS[0], "a"),
            (PARTS[1], "b"),
            ("consolidated.safetensors", "c"),
        ];
        let indexed = [whole.as_slice(), &[(INDEX, index.as_str())]].concat();
        assert_eq!(read_these(&indexed).unwrap(), ["a", "b"]);
        assert_eq!(read_these(&whole).unwrap(), ["a", "b", "c"], "nobody says which");
        assert_eq!(
            read_these(&[("adapter.safetensors", "x"), (SINGLE, "a")]).unwrap(),
            ["a"]
        );
    }

    #[test]
    fn a_set_with_a_gap_is_refused() {
        let index = |map: Value| json!({"weight_map": map}).to_string();
        for (map, says) in [
            (
                json!({"a": PARTS[0], "b": PARTS[1]}),
                "the shard m-00002-of-00002.safetensors is missing",
            ),
            (json!({"a": "../up"}), "the shard ../up is missing"),
            (json!({"a": "x".repeat(5000)}), "is missing"),
            (json!({"a": 5}), "tensor a names no file"),
            (json!({"b": SINGLE}), "tensor b is not in model.safetensors"),
            (json!({}), "names no shard"),
        ] {
            let error = read_these(&[(PARTS[0], "a"), (SINGLE, "c"), (INDEX, &index(map))]).unwrap_err();
            assert!(error.contains(says) && error.len() < 400, "{error}");
        }
        let error = read_these(&[(PARTS[1], "b")]).unwrap_err();
        assert!(
            error.starts_with("missing_shard: ") && error.contains("number 1"),
            "{error}"
        );
        let endless = read_these(&[("m-00001-of-4294967295.safetensors", "b")]).unwrap_err();
        assert!(endless.contains("number 2"), "{endless}");
    }

    /// An index of the names that occur and some that do not.
    fn any_index() -> impl Strategy<Value = Value> {
        let shard = prop_oneof![
            prop::sample::select(vec![
                json!(PARTS[0]),
                json!(PARTS[1]),
                json!(SINGLE),
                json!(7),
                json!(null)
            ]),
            "\\PC{0,9}".prop_map(Value::from),
        ];
        let map = prop::collection::btree_map("[a-c]", shard, 0..3);
        prop_oneof![
            5 => map.prop_map(|map| json!({"weight_map": map})),
            1 => Just(json!({"weight_map": []})),
            1 => Just(json!([])),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_index_is_true_or_refused(index in any_index()) {
            let text = index.to_string();
            let content = [(PARTS[0], "a"), (PARTS[1], "b"), (INDEX, text.as_str())];
            if let Ok(names) = read_these(&content) {
                for (tensor, shard) in index["weight_map"].as_object().unwrap() {
                    prop_assert!(names.contains(tensor));
                    prop_assert_eq!(shard, if tensor == "a" { PARTS[0] } else { PARTS[1] });
                }
            }
        }
    }
}
