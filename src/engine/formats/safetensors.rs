//! Safetensors: 8-byte length, JSON header, data.
//!
//! Owns: parsing a hostile header, building one, plain and fake-quantized output.
//! Must not know: what tensors mean. Invariant: a parsed tensor lies inside its file, does not overlap another,
//! and its length is what its shape and dtype say.

use super::container::{Content, Entry, Layout, OutFile, Placed};
use super::hf_output::{self, Part};
use super::{Reader, Request, Writer};
use crate::checkpoint::{Checkpoint, SourceFile, SourceFormat};
use crate::error::{Error, Result};
use crate::recipe::Refusal;
use crate::tensor::{DType, TensorInfo, encode_rows};
use crate::weight::Weight;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The header of a 100 B-parameter shard is well under 1 MiB; the reference implementation stops at 100 MB.
const MAX_HEADER: u64 = 100_000_000;

/// Plain safetensors: read as they are, written with dequantized values.
pub struct Safetensors;

impl Reader for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn summary(&self) -> &'static str {
        "Safetensors files without a config.json"
    }

    fn sniff(&self, files: &[SourceFile]) -> bool {
        files.iter().any(|f| f.name.ends_with(".safetensors"))
    }

    fn open(&self, files: &[SourceFile]) -> Result<Checkpoint> {
        Checkpoint::new(SourceFormat::Safetensors, files, read_all(files)?, None, None)
    }
}

/// Tensors of every `*.safetensors` file; a name in two files is refused.
pub(super) fn read_all(files: &[SourceFile]) -> Result<Vec<TensorInfo>> {
    let mut tensors: Vec<TensorInfo> = Vec::new();
    let mut seen = std::collections::HashMap::new();
    for (index, file) in files
        .iter()
        .enumerate()
        .filter(|(_, f)| f.name.ends_with(".safetensors"))
    {
        for tensor in read_header(file, index)? {
            if let Some(first) = seen.insert(tensor.name.clone(), index) {
                return Err(invalid(
                    file,
                    format!("tensor {} is also in {}", tensor.name, files[first].name),
                ));
            }
            tensors.push(tensor);
        }
    }
    if tensors.is_empty() {
        return Err(Error::bad_input(
            "no_tensors",
            "the safetensors files hold no tensor",
        ));
    }
    Ok(tensors)
}

fn invalid(file: &SourceFile, what: impl std::fmt::Display) -> Error {
    Error::bad_input("invalid_safetensors", format!("{}: {what}", file.name))
}

/// Reads and checks one header.
pub fn read_header(file: &SourceFile, index: usize) -> Result<Vec<TensorInfo>> {
    let io = |e: std::io::Error| Error::io(&file.name, &e);
    let handle = File::open(&file.path).map_err(io)?;
    let length = handle.metadata().map_err(io)?.len();
    let mut prefix = [0; 8];
    if length < 8 {
        return Err(invalid(file, format!("{length} bytes are too few for a header")));
    }
    handle.read_exact_at(&mut prefix, 0).map_err(io)?;
    let size = u64::from_le_bytes(prefix);
    if size > MAX_HEADER || size > length - 8 {
        return Err(invalid(
            file,
            format!("the header claims {size} bytes; the file has {length}"),
        ));
    }
    let mut header = vec![0; size as usize];
    handle.read_exact_at(&mut header, 8).map_err(io)?;
    parse_header(&header, length - 8 - size)
        .map_err(|what| invalid(file, what))?
        .into_iter()
        .map(|mut tensor| {
            tensor.file = index;
            tensor.offset += 8 + size;
            Ok(tensor)
        })
        .collect()
}

/// Parses a header over `data_len` bytes of data; offsets stay relative to the data.
pub fn parse_header(header: &[u8], data_len: u64) -> std::result::Result<Vec<TensorInfo>, String> {
    let map = unique_map(header)?;
    let mut tensors = Vec::with_capacity(map.len());
    for (name, value) in map {
        if name == "__metadata__" {
            continue;
        }
        tensors.push(parse_tensor(name, &value, data_len)?);
    }
    tensors.sort_by_key(|t| (t.offset, t.bytes));
    let mut end = 0;
    for tensor in &tensors {
        if tensor.offset < end {
            return Err(format!("tensor {} overlaps the one before it", tensor.name));
        }
        end = tensor.offset + tensor.bytes;
    }
    Ok(tensors)
}

/// The top-level object with its keys in order; a key given twice is refused, which `serde_json::Map` hides.
fn unique_map(header: &[u8]) -> std::result::Result<Vec<(String, Value)>, String> {
    struct Pairs;
    impl<'de> serde::de::Visitor<'de> for Pairs {
        type Value = Vec<(String, Value)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of tensors")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            let mut seen = std::collections::HashSet::new();
            while let Some((key, value)) = map.next_entry::<String, Value>()? {
                if !seen.insert(key.clone()) {
                    return Err(serde::de::Error::custom(format!("tensor {key} is listed twice")));
                }
                pairs.push((key, value));
            }
            Ok(pairs)
        }
    }
    let mut input = serde_json::Deserializer::from_slice(header);
    let pairs = serde::Deserializer::deserialize_map(&mut input, Pairs)
        .map_err(|e| format!("the header is not valid: {e}"))?;
    input.end().map_err(|e| format!("the header is not valid: {e}"))?;
    Ok(pairs)
}

fn parse_tensor(name: String, value: &Value, data_len: u64) -> std::result::Result<TensorInfo, String> {
    let text = value
        .get("dtype")
        .and_then(Value::as_str)
        .ok_or_else(|| format!("tensor {name} has no dtype"))?;
    let dtype = DType::from_name(text)
        .filter(|d| d.to_ggml().is_none_or(|g| !g.is_quantized()))
        .ok_or_else(|| format!("tensor {name} has the unknown dtype {text:?}"))?;
    let numbers =
        |key: &str| -> Option<Vec<u64>> { value.get(key)?.as_array()?.iter().map(Value::as_u64).collect() };
    let shape = numbers("shape").ok_or_else(|| format!("tensor {name} has no shape of whole numbers"))?;
    if shape.len() > 8 {
        return Err(format!(
            "tensor {name} has {} dimensions; at most 8 are read",
            shape.len()
        ));
    }
    let offsets = numbers("data_offsets").filter(|o| o.len() == 2);
    let offsets = offsets.ok_or_else(|| format!("tensor {name} has no data_offsets [begin, end]"))?;
    let (begin, end) = (offsets[0], offsets[1]);
    if begin > end || end > data_len {
        return Err(format!(
            "tensor {name} spans {begin}..{end} of {data_len} data bytes"
        ));
    }
    let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    let width = dtype.row_bytes(1).unwrap_or(1) as u64;
    let want = elements.and_then(|n| n.checked_mul(width));
    if want != Some(end - begin) {
        return Err(format!(
            "tensor {name}: {text} {shape:?} does not take {} bytes",
            end - begin
        ));
    }
    let shape = shape.into_iter().map(|d| d as usize).collect();
    Ok(TensorInfo {
        name,
        dtype,
        shape,
        file: 0,
        offset: begin,
        bytes: end - begin,
    })
}

/// The header of a file with these entries, padded to 8 bytes.
pub fn build_header(entries: &[Entry]) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for entry in entries {
        let row = json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [offset, offset + entry.bytes]});
        map.insert(entry.name.clone(), row);
        offset += entry.bytes;
    }
    let mut body = Value::Object(map).to_string().into_bytes();
    body.resize(body.len().next_multiple_of(8), b' ');
    let mut header = (body.len() as u64).to_le_bytes().to_vec();
    header.append(&mut body);
    header
}

/// One safetensors file of these tensors.
pub(super) fn file(name: String, placed: Vec<Placed>) -> OutFile {
    let entries: Vec<Entry> = placed.iter().flat_map(|p| p.entries.iter().cloned()).collect();
    let header = build_header(&entries);
    let bytes = header.len() as u64 + entries.iter().map(|e| e.bytes).sum::<u64>();
    OutFile {
        name,
        bytes,
        content: Content::Tensors {
            header,
            placed,
            alignment: 1,
        },
    }
}

impl Safetensors {
    /// Values go out in the source's float type, or in `dtype`.
    fn dtype(request: &Request<'_>, index: usize) -> DType {
        let tensor = &request.tensors[index];
        let asked = request
            .options
            .get("dtype")
            .and_then(Value::as_str)
            .and_then(DType::from_name);
        let own = |d: DType| {
            if matches!(d, DType::F16 | DType::BF16 | DType::F32) {
                d
            } else {
                DType::F32
            }
        };
        if tensor.kind.is_compressed() || tensor.source_dtype.is_float() {
            asked.unwrap_or_else(|| own(tensor.source_dtype))
        } else {
            tensor.source_dtype
        }
    }
}

impl Writer for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn summary(&self) -> &'static str {
        "Plain safetensors with the dequantized (fake-quantized) values: full size, for looking at the error"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["transformers", "vLLM"]
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {"dtype": {
            "type": "string", "enum": ["F32", "F16", "BF16"],
            "description": "Stored type of the values; by default the source's own. Block types need F32 to be exact.",
            "examples": ["F32"]}}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let parts = |index: usize| {
            let tensor = &request.tensors[index];
            let dtype = Self::dtype(request, index);
            let bytes = dtype.row_bytes(tensor.elements()).unwrap_or(0) as u64;
            vec![Part {
                name: tensor.name.clone(),
                dtype: dtype.name().into(),
                shape: tensor.shape.clone(),
                bytes,
            }]
        };
        let mut config = request.model.config.clone();
        if let (Some(Value::Object(config)), Some(dtype)) = (&mut config, request.options.get("dtype")) {
            let torch = match dtype.as_str() {
                Some("F32") => "float32",
                Some("F16") => "float16",
                _ => "bfloat16",
            };
            config.insert("torch_dtype".into(), json!(torch));
        }
        hf_output::layout(request, config, &parts)
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        let dtype = Self::dtype(request, index);
        if let Weight::Dense(dense) = weight
            && dense.dtype == dtype
        {
            return Ok(vec![dense.bytes.clone()]);
        }
        Ok(vec![encode_rows(weight.as_rows(), dtype)?])
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        hf_output::reopen(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, len: u64) -> std::result::Result<Vec<TensorInfo>, String> {
        parse_header(json.as_bytes(), len)
    }

    #[test]
    fn a_header_round_trips() {
        let entry = |name: &str, bytes| Entry {
            name: name.into(),
            dtype: "U8".into(),
            shape: vec![bytes as usize],
            bytes,
        };
        let header = build_header(&[entry("a", 3), entry("b", 5)]);
        assert_eq!(header.len() % 8, 0);
        let tensors = parse_header(&header[8..], 8).unwrap();
        assert_eq!(
            (tensors[1].name.as_str(), tensors[1].offset, tensors[1].bytes),
            ("b", 3, 5)
        );
    }

    #[test]
    fn hostile_headers_are_refused_by_name() {
        for (json, len, want) in [
            (
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
                8,
                "does not take",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
                4,
                "spans 0..8 of 4",
            ),
            (
                r#"{"a":{"dtype":"X9","shape":[2],"data_offsets":[0,8]}}"#,
                8,
                "unknown dtype",
            ),
            (
                r#"{"a":{"dtype":"Q4_K","shape":[256],"data_offsets":[0,144]}}"#,
                144,
                "unknown dtype",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
                8,
                "does not take",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
                8,
                "no shape",
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
                2,
                "listed twice",
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                3,
                "overlaps",
            ),
            ("[]", 0, "not valid"),
            ("{} x", 0, "not valid"),
        ] {
            let error = parse(json, len).unwrap_err();
            assert!(error.contains(want), "{json}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, len: u64) {
            let _ = parse_header(&bytes, len);
        }
    }
}
