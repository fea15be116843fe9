//! Safetensors: 8-byte length, JSON header, data.
//!
//! Owns: parsing a hostile header, building one, plain and fake-quantized output.
//! Must not know: what tensors mean. Invariant: a parsed tensor lies inside its file, does not overlap another,
//! and its length is what its shape and dtype say.

mod header;

pub use header::parse_header;

use super::container::{Content, Entry, Layout, OutFile, Placed};
use super::hf_output::{self, Part};
use super::{Loading, Reader, Request, Writer};
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
        let tensors = read_all(files, &|_| true)?;
        Checkpoint::new(SourceFormat::Safetensors, files, tensors, None, None)
    }
}

/// Tensors of every `*.safetensors` file that is wanted; a name in two files is refused.
pub(super) fn read_all(files: &[SourceFile], wanted: &dyn Fn(&str) -> bool) -> Result<Vec<TensorInfo>> {
    let wanted = |name: &str| name.ends_with(".safetensors") && wanted(name);
    let names: Vec<&str> = files
        .iter()
        .map(|f| f.name.as_str())
        .filter(|n| wanted(n))
        .collect();
    refuse_gaps(&names)?;
    let mut tensors: Vec<TensorInfo> = Vec::new();
    let mut seen = std::collections::HashMap::new();
    for (index, file) in files.iter().enumerate().filter(|(_, f)| wanted(&f.name)) {
        for tensor in read_header(file, index)? {
            if let Some(first) = seen.insert(tensor.name.clone(), index) {
                return Err(invalid(
                    file,
                    format!("tensor {} is also in {}", tensor.name, files[first].name),
                ));
            }
            tensors.push(tensor);
        }
        if tensors.len() > header::MAX_TENSORS {
            return Err(invalid(file, header::too_many()));
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

/// Refuses `model-00001-of-00002.safetensors` without its sisters.
fn refuse_gaps(names: &[&str]) -> Result<()> {
    let numbered = |name: &str| -> Option<(String, u32, u32)> {
        let (rest, of) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        Some((stem.to_owned(), of.parse().ok()?, number.parse().ok()?))
    };
    let there: std::collections::BTreeSet<_> = names.iter().filter_map(|n| numbered(n)).collect();
    for (stem, of, _) in &there {
        let there = |number: &u32| there.contains(&(stem.clone(), *of, *number));
        if let Some(gap) = (1..=*of).find(|number| !there(number)) {
            return Err(Error::bad_input(
                "missing_shard",
                format!("{stem} is in {of} files and number {gap} is missing: upload it too"),
            ));
        }
    }
    Ok(())
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
    if size > length - 8 {
        return Err(invalid(
            file,
            format!("the header claims {size} bytes; the file has {length}"),
        ));
    }
    if size > MAX_HEADER {
        return Err(invalid(
            file,
            format!("the header has {size} bytes; at most {MAX_HEADER} are read"),
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

    fn loading(&self) -> Loading {
        Loading::with_transformers(
            "`vllm serve .`, or in Python, with the class that `config.json` names:",
            None,
        )
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
    fn a_header_that_cannot_be_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        let read = |claimed: u64, length: u64| {
            std::fs::write(&path, claimed.to_le_bytes()).unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(length)
                .unwrap();
            let file = SourceFile::new("m.safetensors", path.clone());
            read_header(&file, 0).unwrap_err().message
        };
        assert!(read(100, 50).contains("claims 100 bytes; the file has 50"));
        assert!(read(u64::MAX, 50).contains("claims 18446744073709551615 bytes"));
        // A file of holes: it takes no disk space, and its header would be all of it.
        assert!(read(MAX_HEADER + 1, 1 << 30).contains("at most 100000000 are read"));
        assert!(read(0, 7).contains("7 bytes are too few"));
    }
}
