//! GGUF as an uploaded model.
//!
//! Owns: from a parsed header to a checkpoint. Must not know: metadata's meaning.
//! Invariant: shapes are turned round to `PyTorch` order, once, here.

use super::Gguf;
use super::container::{Header, parse};
use super::value::Metadata;
use crate::checkpoint::{Checkpoint, SourceFile, SourceFormat};
use crate::error::{Class, Error, Result};
use crate::formats::Reader;
use crate::tensor::{DType, GgmlType, TensorInfo};
use std::fs::File;
use std::os::unix::fs::FileExt;

impl From<super::GgufError> for Error {
    fn from(error: super::GgufError) -> Self {
        let class = if error.is_unsupported() {
            Class::Unsupported
        } else {
            Class::BadInput
        };
        Error::new(class, error.code(), error.to_string())
    }
}

impl Reader for Gguf {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn summary(&self) -> &'static str {
        "One GGUF file, v2 or v3"
    }

    fn sniff(&self, files: &[SourceFile]) -> bool {
        files.iter().any(is_gguf)
    }

    fn open(&self, files: &[SourceFile]) -> Result<Checkpoint> {
        let (metadata, tensors) = read(files)?;
        Checkpoint::new(SourceFormat::Gguf, files, tensors, None, Some(metadata))
    }
}

/// Metadata and tensors of the one GGUF among the files.
pub(super) fn read(files: &[SourceFile]) -> Result<(Metadata, Vec<TensorInfo>)> {
    let found: Vec<_> = files.iter().enumerate().filter(|(_, f)| is_gguf(f)).collect();
    if found.len() > 1 {
        return Err(Error::unsupported(
            "several_gguf_files",
            format!(
                "{} GGUF files: upload one, or join a split model first",
                found.len()
            ),
        ));
    }
    let Some((index, file)) = found.first().copied() else {
        return Err(Error::internal("no GGUF file"));
    };
    let header = read_header(file)?;
    refuse_part(file, &header.metadata)?;
    let mut tensors = Vec::with_capacity(header.tensors.len());
    for tensor in &header.tensors {
        let ty = GgmlType::from_id(tensor.ggml_type_id)
            .ok_or_else(|| Error::internal(format!("tensor {} has no type", tensor.name)))?;
        tensors.push(TensorInfo {
            name: tensor.name.clone(),
            dtype: DType::from_ggml(ty),
            shape: tensor.dims.iter().rev().map(|d| *d as usize).collect(),
            file: index,
            offset: tensor.offset,
            bytes: tensor.bytes,
        });
    }
    if tensors.is_empty() {
        return Err(Error::bad_input(
            "no_tensors",
            format!("{} holds no tensor", file.name),
        ));
    }
    Ok((header.metadata, tensors))
}

/// One part of a split model has a header like a whole one.
fn refuse_part(file: &SourceFile, metadata: &Metadata) -> Result<()> {
    match metadata.get_u64("split.count") {
        Some(count) if count > 1 => Err(Error::unsupported(
            "split_gguf",
            format!(
                "{} is one of {count} parts: join them first (llama-gguf-split --merge) and upload the whole",
                file.name
            ),
        )),
        _ => Ok(()),
    }
}

fn is_gguf(file: &SourceFile) -> bool {
    let mut magic = [0; 4];
    let read = File::open(&file.path).and_then(|f| f.read_exact_at(&mut magic, 0));
    file.name.ends_with(".gguf") || (read.is_ok() && super::container::sniff(&magic))
}

/// Reads and checks the header of one file.
fn read_header(file: &SourceFile) -> Result<Header> {
    let io = |e: std::io::Error| Error::io(&file.name, &e);
    let handle = File::open(&file.path).map_err(io)?;
    let length = handle.metadata().map_err(io)?.len();
    let read_at = |offset: u64, out: &mut [u8]| handle.read_exact_at(out, offset);
    parse(&read_at, length).map_err(|e| {
        let inner = Error::from(e);
        Error::new(
            inner.class,
            inner.code,
            format!("{}: {}", file.name, inner.message),
        )
    })
}
