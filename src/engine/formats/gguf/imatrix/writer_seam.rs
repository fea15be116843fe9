//! Owns: an importance matrix as an artifact, beside or instead of the weights that it weighed.
//!
//! Must not know: how importance was collected. Invariant: llama.cpp's quantizer and this engine read what is written,
//! and make of it the numbers that the artifact's weights were made with.

use super::{CHUNK_COUNT, CHUNK_SIZE, COUNTS, DATASETS, SUMS, gguf_names};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::formats::container::{Content, Entry, Layout, OutFile, Placed};
use crate::formats::gguf::build::header_bytes;
use crate::formats::gguf::container::DEFAULT_ALIGNMENT;
use crate::formats::gguf::reader_seam::read;
use crate::formats::gguf::value::{Metadata, Value as Field};
use crate::formats::{Loading, Request, Writer};
use crate::plan::{ImportancePlan, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::GgmlType;
use crate::weight::Weight;
use serde_json::{Value, json};

/// The file's name.
pub(super) const FILE: &str = "imatrix.gguf";

/// The format.
pub struct Imatrix;

impl Writer for Imatrix {
    fn name(&self) -> &'static str {
        "imatrix"
    }

    fn summary(&self) -> &'static str {
        "The importance matrix that a ggml stage worked with, as llama.cpp's GGUF form of it: beside gguf, or alone"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["llama-quantize"]
    }

    fn loading(&self) -> Loading {
        Loading {
            library: None,
            text: "With llama.cpp, on the unquantized model: `llama-quantize --imatrix {file} MODEL.gguf OUT.gguf Q4_K_M`.".to_owned(),
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let refuse = |e: Error| vec![Refusal::new(request.pointer, e.code, e.message)];
        let Some(importance) = request.importance else {
            return Err(refuse(Error::unsupported(
                "no_importance",
                "no stage of this recipe works with an importance matrix: use the technique ggml and set its option \
                 imatrix",
            )));
        };
        let names = gguf_names(request.model, request.tensors.iter().map(|t| t.name.as_str()));
        let names = names.map_err(refuse)?;
        let (mut table, mut placed) = (Vec::new(), Vec::new());
        for (index, (tensor, name)) in request.tensors.iter().zip(names).enumerate() {
            let name = name.filter(|_| importance.knows(index));
            let entries = name.map_or_else(Vec::new, |name| entries(&name, tensor));
            for entry in &entries {
                let dims = entry.shape.iter().rev().map(|d| *d as u64).collect();
                table.push((entry.name.clone(), dims, GgmlType::F32));
            }
            placed.push(Placed {
                tensor: Some(index),
                literal: Vec::new(),
                entries,
            });
        }
        let built = header_bytes(&metadata(importance), &table, DEFAULT_ALIGNMENT);
        let built = built.map_err(|e| refuse(Error::from(e)))?;
        let content = Content::Tensors {
            header: built.header,
            placed,
            alignment: u64::from(DEFAULT_ALIGNMENT),
        };
        Ok(Layout {
            files: vec![OutFile {
                name: FILE.to_owned(),
                bytes: built.file_len,
                content,
            }],
        })
    }

    fn encode(&self, request: &Request<'_>, index: usize, _weight: &Weight) -> Result<Vec<Vec<u8>>> {
        if !request.importance.is_some_and(|i| i.knows(index)) {
            return Ok(Vec::new());
        }
        let tensor = &request.tensors[index];
        let name = gguf_names(request.model, [tensor.name.as_str()])?;
        if name.first().is_none_or(Option::is_none) {
            return Ok(Vec::new());
        }
        let squares = request
            .squares
            .ok_or_else(|| Error::internal("importance without its numbers"))?;
        let mut squares = squares(index)?;
        // One count for all matrices of a tensor, as older files have it.
        let count = squares.counts.first().copied().unwrap_or_default();
        squares.counts.resize(tensor.matrices(), count);
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(vec![bytes(&squares.sums), bytes(&squares.counts)])
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        let (_, tensors) = read(files)?;
        Ok(tensors.into_iter().map(Entry::from).collect())
    }
}

/// Sums and counts of a tensor: of one matrix as vectors, of several as rows.
fn entries(name: &str, tensor: &TensorPlan) -> Vec<Entry> {
    let matrices = tensor.matrices();
    let entry = |(suffix, cols): (&str, usize)| Entry {
        name: format!("{name}{suffix}"),
        dtype: GgmlType::F32.name().to_owned(),
        shape: if matrices == 1 {
            vec![cols]
        } else {
            vec![matrices, cols]
        },
        bytes: 4 * (matrices * cols) as u64,
    };
    [(SUMS, tensor.cols()), (COUNTS, 1)].map(entry).into()
}

fn metadata(importance: &ImportancePlan) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.type", Field::text("imatrix"));
    metadata.set(DATASETS, Field::texts(&importance.texts));
    metadata.set(CHUNK_COUNT, Field::U32(importance.chunks));
    metadata.set(CHUNK_SIZE, Field::U32(importance.chunk_size));
    metadata
}
