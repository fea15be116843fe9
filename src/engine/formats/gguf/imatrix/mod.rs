//! Owns: llama.cpp's importance matrices as files: the GGUF form, read and written, and the older one, read.
//!
//! Must not know: how the sums were collected, what is done with them.
//! Invariant: hostile bytes give an error, never a panic, and nothing is allocated for a length before it was compared
//! with the file's; what was read holds finite sums that are not negative, and each entry whole rows of them.
//!
//! Source: llama.cpp `tools/imatrix`, `common/imatrix-loader.cpp`, `tools/quantize`.

mod legacy;
mod note;
mod writer_seam;

pub use note::ImatrixNote;
pub(super) use note::KEYS;
pub use writer_seam::Imatrix;

use super::build::header_bytes;
use super::container::{Header, parse, sniff};
use super::metadata::ModelConfig;
use super::reader::ReadAt;
use super::value::{Metadata, Value};
use crate::checkpoint::{Checkpoint, SourceFormat};
use crate::error::{Error, Result};
use crate::tensor::GgmlType;
use crate::weight::InputSquares;
use std::collections::HashMap;

/// Largest file read. The matrix of a model with 256 experts in each of 61 blocks takes about 2 GB.
pub const MAX_FILE_BYTES: u64 = 4 << 30;

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";

/// What was seen of one tensor's inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportanceEntry {
    /// The tensor's GGUF name: `blk.0.attn_q.weight`.
    pub name: String,
    /// Sum of the squares of each column's inputs, matrix after matrix where a tensor holds several (experts).
    pub in_sum2: Vec<f32>,
    /// Number of inputs summed, for each matrix.
    pub counts: Vec<f32>,
}

impl ImportanceEntry {
    /// The numbers without the name.
    pub fn squares(self) -> InputSquares {
        InputSquares {
            sums: self.in_sum2,
            counts: self.counts,
        }
    }
}

/// An importance matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportanceFile {
    /// In the file's order; names are unique.
    pub entries: Vec<ImportanceEntry>,
    /// Names of the texts it was computed on.
    pub datasets: Vec<String>,
    /// Chunks of text it was computed on.
    pub chunk_count: u32,
    /// Tokens in a chunk; 0 where the file does not say.
    pub chunk_size: u32,
}

impl ImportanceFile {
    /// Reads either form from a file of `file_len` bytes.
    pub fn read(read_at: &ReadAt<'_>, file_len: u64) -> Result<Self> {
        if file_len > MAX_FILE_BYTES {
            return Err(invalid(format!(
                "the file has {file_len} bytes: the most is {MAX_FILE_BYTES}"
            )));
        }
        let mut magic = [0; 4];
        if file_len >= 4 {
            read_at(0, &mut magic).map_err(|e| Error::io("importance matrix", &e))?;
        }
        let file = if sniff(&magic) {
            from_gguf(read_at, &parse(read_at, file_len)?)?
        } else {
            legacy::read(read_at, file_len)?
        };
        if file.entries.is_empty() {
            return Err(invalid("the file has no entries"));
        }
        file.entries.iter().try_for_each(check)?;
        Ok(file)
    }

    /// The bytes of the GGUF form, entries in order of their names as llama.cpp's tool writes them.
    pub fn write(&self) -> Result<Vec<u8>> {
        self.entries.iter().try_for_each(check)?;
        let mut metadata = Metadata::new();
        metadata.set("general.type", Value::text("imatrix"));
        metadata.set(DATASETS, Value::texts(&self.datasets));
        metadata.set(CHUNK_COUNT, Value::U32(self.chunk_count));
        metadata.set(CHUNK_SIZE, Value::U32(self.chunk_size));
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let (mut table, mut data) = (Vec::new(), Vec::new());
        for entry in entries {
            let matrices = entry.counts.len() as u64;
            let cols = entry.in_sum2.len() as u64 / matrices;
            for (suffix, cols, values) in [(SUMS, cols, &entry.in_sum2), (COUNTS, 1, &entry.counts)] {
                let dims = if matrices == 1 {
                    vec![cols]
                } else {
                    vec![cols, matrices]
                };
                table.push((format!("{}{suffix}", entry.name), dims, GgmlType::F32));
                data.push(values);
            }
        }
        let layout = header_bytes(&metadata, &table, super::container::DEFAULT_ALIGNMENT)?;
        let mut out = layout.header;
        for (values, offset) in data.into_iter().zip(layout.offsets) {
            out.resize(offset as usize, 0);
            out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        out.resize(layout.file_len as usize, 0);
        Ok(out)
    }

    /// The entry of a tensor, by its GGUF name.
    pub fn entry(&self, name: &str) -> Option<&ImportanceEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// The names that an importance matrix has for a checkpoint's tensors; `None` for one that a GGUF leaves out.
pub fn gguf_names<'a>(
    model: &Checkpoint,
    tensors: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Option<String>>> {
    let names = match &model.config {
        _ if model.format == SourceFormat::Gguf => {
            return Ok(tensors.into_iter().map(|name| Some(name.to_owned())).collect());
        }
        Some(config) => ModelConfig::from_json(config)?.names(),
        None => {
            return Err(Error::unsupported(
                "needs_config_json",
                "an importance matrix names tensors as GGUF does: without config.json the names are not known",
            ));
        }
    };
    let name = |hf: &str| Ok(names.to_gguf(hf)?.map(|rename| rename.gguf));
    tensors.into_iter().map(name).collect()
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::bad_input("invalid_imatrix", format!("importance matrix: {why}"))
}

fn check(entry: &ImportanceEntry) -> Result<()> {
    let (name, sums, counts) = (&entry.name, entry.in_sum2.len(), entry.counts.len());
    if sums == 0 || counts == 0 || !sums.is_multiple_of(counts) {
        return Err(invalid(format!("{name} has {sums} sums for {counts} counts")));
    }
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(invalid(format!(
            "a name is empty or holds control characters: {name:?}"
        )));
    }
    let numbers = entry.in_sum2.iter().chain(&entry.counts);
    match numbers.copied().find(|v| !v.is_finite() || *v < 0.0) {
        Some(v) => Err(invalid(format!(
            "{name} holds {v}: sums of squares and counts are finite and not negative"
        ))),
        None => Ok(()),
    }
}

fn from_gguf(read_at: &ReadAt<'_>, header: &Header) -> Result<ImportanceFile> {
    let metadata = &header.metadata;
    let kind = metadata.get_str("general.type");
    if kind.is_some_and(|kind| kind != "imatrix") {
        return Err(invalid(format!(
            "general.type is {}, not imatrix",
            kind.unwrap_or_default()
        )));
    }
    let missing = |key: &str| invalid(format!("the file has no {key}"));
    let texts = metadata.get_texts(DATASETS).ok_or_else(|| missing(DATASETS))?;
    let mut file = ImportanceFile {
        entries: Vec::new(),
        datasets: texts
            .iter()
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect(),
        chunk_count: metadata
            .get_u32(CHUNK_COUNT)
            .ok_or_else(|| missing(CHUNK_COUNT))?,
        chunk_size: metadata.get_u32(CHUNK_SIZE).ok_or_else(|| missing(CHUNK_SIZE))?,
    };
    // Other tensors are left out: some versions store the plain sums too.
    let tensors: HashMap<_, _> = header.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    for sums in &header.tensors {
        if let Some(orphan) = sums.name.strip_suffix(COUNTS)
            && !tensors.contains_key(format!("{orphan}{SUMS}").as_str())
        {
            return Err(invalid(format!("{orphan} has counts and no sums")));
        }
        let Some(name) = sums.name.strip_suffix(SUMS) else {
            continue;
        };
        let counts = tensors
            .get(format!("{name}{COUNTS}").as_str())
            .ok_or_else(|| invalid(format!("{name} has sums and no counts")))?;
        file.entries.push(ImportanceEntry {
            name: name.to_owned(),
            in_sum2: floats(read_at, sums)?,
            counts: floats(read_at, counts)?,
        });
    }
    Ok(file)
}

fn floats(read_at: &ReadAt<'_>, tensor: &super::container::GgufTensor) -> Result<Vec<f32>> {
    if tensor.ggml_type_id != GgmlType::F32.id() {
        return Err(invalid(format!("{} is not F32", tensor.name)));
    }
    // The header's reader has checked that the tensor lies inside the file.
    let mut bytes = vec![0; tensor.bytes as usize];
    read_at(tensor.offset, &mut bytes).map_err(|e| Error::io(&tensor.name, &e))?;
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

#[cfg(test)]
#[path = "../tests/imatrix.rs"]
mod tests;
