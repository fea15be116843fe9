//! Packed: weights as few bytes as entropy coding makes of them, without loss: plain floats split into planes, their zeros
//! left out where there are many, codes of codebooks.
//!
//! Owns: the container and its index. Must not know: how streams are coded.
//! Invariant: what is read back has the bytes, to the bit, that the index has the digest of.
//!
//! # The file `model.packed`
//!
//! All numbers are little-endian.
//!
//! | | bytes | |
//! |---|---|---|
//! | magic | 8 | `MPPACKED` |
//! | version | 8 | 2; files of version 1 have no coding `sparse`, and are read too |
//! | records | | one for each tensor, one after another |
//! | index | `I` | JSON, see below |
//! | index length | 8 | `I` |
//! | magic | 8 | `MPPACKED` |
//!
//! The index is an object with `tensors`, a list in the order of the records. Each has `name`, `dtype` and `shape` of the
//! tensor that it decodes to, `offset` and `bytes` of its record, `sha256` of the decoded bytes, and `coding`:
//! - `planes` (BF16, F16, F32): the record is the planes of `kernels::entropy`;
//! - `sparse` (BF16, F16, F32): `{mask, values}`. The record is one stream of `mask` bytes, then the planes of `values`
//!   weights, those other than +0 in their order. The stream is a mask of ⌈weights / 8⌉ bytes: bit `i mod 8` of byte
//!   `⌊i / 8⌋` is set where weight `i` is one of them; bits behind the last weight are 0. A mask that is entropy coded
//!   takes what the indices of n:m would (of 2:4 log₂ 6 bits for four weights, not four) and no more than those of CSR,
//!   so there is no other coding of places;
//! - `bytes` (any other type): the record is one stream of the tensor's bytes;
//! - `codebook`: `{centroids, vector_size, tables, streams: [bytes…]}`. The record is the tables, `[tables, centroids,
//!   vector_size]` values of the dtype, then as many streams: one of the codes, or two where there are more than 256
//!   centroids: low bytes, then high bytes. Codes are row-major, one for each `vector_size` consecutive weights of a row.
//!   With one table it serves all rows; otherwise tables are those of equally long runs of the weights, in order.

mod file;
mod record;
mod sparse;

use super::container::{Content, Entry, Layout, OutFile, Placed};
use super::{Loading, Request, Writer, hf_output};
use crate::checkpoint::SourceFile;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::kernels::entropy::{Coder, encode, split};
use crate::plan::TensorPlan;
use crate::recipe::Refusal;
use crate::tensor::DType;
use crate::weight::{Dense, Granularity, Kind, Weight};
use record::{Coding, Index, Record, decoded, pack};
use serde_json::{Value, json};

pub use file::{PackedFile, unpack_to};

/// The format.
pub(super) struct Packed;

const FILE: &str = "model.packed";
const MAGIC: &[u8; 8] = b"MPPACKED";
const VERSION: u64 = 2;
/// What comes behind the index.
const FOOTER: u64 = 16;
/// No index is longer: a hundred thousand tensors have less.
const MAX_INDEX: u64 = 256 << 20;
/// What streams may have beside their symbols: headers, tables, lengths of chunks.
const OVERHEAD: u64 = 1 << 10;

/// The type that a tensor decodes to.
fn dtype_of(tensor: &TensorPlan) -> DType {
    match tensor.kind {
        Kind::Codebook { dtype, .. } | Kind::Dense { dtype } => dtype,
        _ => tensor.source_dtype,
    }
}

fn coding_of(tensor: &TensorPlan) -> Coding {
    match (tensor.kind, dtype_of(tensor)) {
        (
            Kind::Codebook {
                centroids,
                vector_size,
                granularity,
                ..
            },
            _,
        ) => Coding::Codebook {
            centroids,
            vector_size,
            tables: tables(granularity, tensor),
            streams: vec![u64::MAX; if centroids > 256 { 2 } else { 1 }],
        },
        // The longest of what it may be.
        (_, DType::BF16 | DType::F16 | DType::F32) => Coding::Sparse {
            mask: u64::MAX,
            values: u64::MAX,
        },
        _ => Coding::Bytes,
    }
}

/// The record of plain weights: without their zeros, where that is smaller.
fn plain(dense: &Dense) -> Result<(Vec<u8>, Coding)> {
    if !matches!(dense.dtype, DType::BF16 | DType::F16 | DType::F32) {
        return Ok((encode(&dense.bytes, Coder::Rans), Coding::Bytes));
    }
    match sparse::pack(dense.dtype, &dense.bytes)? {
        Some(sparse::Packed { record, mask, values }) => Ok((record, Coding::Sparse { mask, values })),
        None => Ok((split::encode_weights(dense.dtype, &dense.bytes)?, Coding::Planes)),
    }
}

fn tables(granularity: Granularity, tensor: &TensorPlan) -> usize {
    match granularity {
        Granularity::Tensor => 1,
        other => other.scales(tensor.rows(), tensor.cols()),
    }
}

/// Bytes that a tensor's record has at most.
fn most(tensor: &TensorPlan) -> u64 {
    let dtype = dtype_of(tensor);
    let plain = dtype.bytes(tensor.rows(), tensor.cols()).unwrap_or(0) as u64;
    match coding_of(tensor) {
        Coding::Codebook {
            centroids,
            vector_size,
            tables,
            streams,
        } => {
            let codes = (tensor.elements() / vector_size.max(1)) as u64;
            let table = tables * centroids * vector_size * dtype.bytes(1, 1).unwrap_or(4);
            table as u64 + streams.len() as u64 * (codes + OVERHEAD)
        }
        Coding::Planes | Coding::Sparse { .. } | Coding::Bytes => plain + 8 * OVERHEAD,
    }
}

/// The index with numbers as long as they may be.
fn longest_index(request: &Request<'_>) -> u64 {
    let record = |tensor: &TensorPlan| Record {
        name: tensor.name.clone(),
        dtype: dtype_of(tensor).name().to_owned(),
        shape: tensor.shape.clone(),
        offset: u64::MAX,
        bytes: u64::MAX,
        sha256: "0".repeat(64),
        coding: coding_of(tensor),
    };
    let index = Index {
        tensors: request.tensors.iter().map(record).collect(),
    };
    serde_json::to_vec(&index).map_or(0, |bytes| bytes.len() as u64)
}

impl Writer for Packed {
    fn name(&self) -> &'static str {
        "packed"
    }

    fn summary(&self) -> &'static str {
        "Entropy coded without loss: plain weights (BF16, F16, F32) split into exponents and mantissas, zeros of pruned \
         ones as a mask, and codes of codebooks; read by modelpress and its Python package"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["modelpress"]
    }

    fn loading(&self) -> Loading {
        Loading {
            library: None,
            text: "`modelpress unpack . --out model` writes a checkpoint that transformers and vLLM load; or in \
                   Python:\n\n```python\nfrom modelpress import packed  # pip install modelpress[packed]\n\ntensors = \
                   packed.load(\"model.packed\")  # names to numpy arrays\n```"
                .to_owned(),
        }
    }

    /// What is read is unpacked first.
    fn memory_bytes(&self, request: &Request<'_>, _layout: &Layout) -> u64 {
        let plain = |t: &TensorPlan| dtype_of(t).bytes(t.rows(), t.cols()).unwrap_or(0) as u64;
        request.tensors.iter().map(plain).sum()
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "coder": {"type": "string", "enum": ["rans", "huffman"], "default": "rans", "examples": ["rans"],
                "description": "How codes of codebooks are coded: rANS is nearest to their entropy; Huffman's codes of groups of them are read faster and take up to 1 % more."}}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let holds = |t: &&TensorPlan| matches!(t.kind, Kind::Dense { .. } | Kind::Codebook { .. });
        if let Some(other) = request.tensors.iter().find(|t| !holds(t)) {
            let detail = format!(
                "{} is {}: packed holds plain numbers and codebooks; leave the quantization out, or ask for its own format",
                other.name,
                other.kind.label()
            );
            return Err(vec![Refusal::new(request.pointer, "format_cannot_hold", detail)]);
        }
        let mut layout = hf_output::side_files(request, request.model.config.clone())?;
        let placed = |(index, tensor): (usize, &TensorPlan)| Placed {
            tensor: Some(index),
            literal: Vec::new(),
            entries: vec![Entry {
                name: tensor.name.clone(),
                dtype: dtype_of(tensor).name().to_owned(),
                shape: tensor.shape.clone(),
                bytes: most(tensor),
            }],
        };
        let placed: Vec<Placed> = request.tensors.iter().enumerate().map(placed).collect();
        let records: u64 = request.tensors.iter().map(most).sum();
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        layout.files.push(OutFile {
            name: FILE.to_owned(),
            bytes: header.len() as u64 + records + longest_index(request) + FOOTER,
            content: Content::Records {
                header,
                placed,
                index,
            },
        });
        Ok(layout)
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        let tensor = &request.tensors[index];
        let coder = match request.options.get("coder").and_then(Value::as_str) {
            Some("huffman") => Coder::Huffman,
            _ => Coder::Rans,
        };
        let (record, coding, digest) = match weight {
            Weight::Dense(dense) => {
                let (record, coding) = plain(dense)?;
                (record, coding, sha256(&dense.bytes))
            }
            Weight::Codebook(book) => {
                let (record, coding) = pack(book, coder)?;
                (record, coding, sha256(&decoded(book)?))
            }
            other => return Err(Error::internal(format!("packed was given {other:?}"))),
        };
        let note = Record {
            name: tensor.name.clone(),
            dtype: dtype_of(tensor).name().to_owned(),
            shape: tensor.shape.clone(),
            offset: 0,
            bytes: record.len() as u64,
            sha256: digest,
            coding,
        };
        let mut noted = serde_json::to_vec(&note).map_err(|e| Error::internal(e.to_string()))?;
        let length = (noted.len() as u64).to_le_bytes();
        // The record, and what the index will say of it.
        let mut part = record;
        part.append(&mut noted);
        part.extend(length);
        Ok(vec![part])
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        let file = files.iter().find(|f| f.name == FILE);
        let file =
            file.ok_or_else(|| Error::bad_input("packed_file_missing", format!("there is no {FILE}")))?;
        let mut reader = PackedFile::open(file)?;
        (0..reader.records.len()).map(|at| reader.check(at)).collect()
    }
}

/// Takes a part of [`Packed::encode`] apart: the record's length, and what is noted of it.
fn index(parts: &[(u64, Vec<u8>)]) -> Result<Vec<u8>> {
    let broken = || Error::internal("a record without its note");
    let mut tensors = Vec::new();
    for (offset, note) in parts {
        let mut record: Record = serde_json::from_slice(note).map_err(|_not_json| broken())?;
        record.offset = *offset;
        tensors.push(record);
    }
    let mut bytes = serde_json::to_vec(&Index { tensors }).map_err(|e| Error::internal(e.to_string()))?;
    let length = (bytes.len() as u64).to_le_bytes();
    bytes.extend(length);
    bytes.extend(MAGIC);
    Ok(bytes)
}
