//! What kind of files these are.
//!
//! Owns: endings, magic bytes, the refusal of kinds that are not read. Must not know: how a kind is read.
//! Invariant: all files are of one kind; a few bytes of each are read at most.

use super::npy::MAGIC;
use super::{DatasetFormat, imatrix};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;

/// What is looked at of a file whose name says nothing.
const HEAD: u64 = 4096;

/// Endings of each kind.
const ENDINGS: &[(&str, DatasetFormat)] = &[
    ("jsonl", DatasetFormat::Jsonl),
    ("md", DatasetFormat::Txt),
    ("ndjson", DatasetFormat::Jsonl),
    ("npy", DatasetFormat::Npy),
    ("raw", DatasetFormat::Txt),
    ("safetensors", DatasetFormat::Safetensors),
    ("text", DatasetFormat::Txt),
    ("txt", DatasetFormat::Txt),
];

/// Endings that people will try, and what to do instead.
const OTHERS: &[(&str, &str)] = &[
    ("arrow", "write its rows as JSON, one object a line (.jsonl)"),
    ("bz2", "unpack it first"),
    ("csv", "write its rows as JSON, one object a line (.jsonl)"),
    ("gz", "unpack it first"),
    ("json", "write one JSON object a line and call the file .jsonl"),
    ("npz", "unpack it and upload the arrays as .npy or safetensors"),
    ("parquet", "write its rows as JSON, one object a line (.jsonl)"),
    ("tar", "unpack it first"),
    ("tsv", "write its rows as JSON, one object a line (.jsonl)"),
    ("xz", "unpack it first"),
    ("zip", "unpack it first"),
    ("zst", "unpack it first"),
];

/// The one kind that all files are of.
pub(super) fn format_of(files: &[SourceFile]) -> Result<DatasetFormat> {
    let mut first: Option<(&str, DatasetFormat)> = None;
    for file in files {
        let format = one(file)?;
        match first {
            None => first = Some((&file.name, format)),
            Some((_, same)) if same == format => {}
            Some((name, other)) => {
                return Err(Error::bad_input(
                    "mixed_dataset",
                    format!(
                        "{name} is {} and {} is {}: all files of a dataset are of one kind, make two datasets",
                        other.name(),
                        file.name,
                        format.name()
                    ),
                ));
            }
        }
    }
    first
        .map(|(_, format)| format)
        .ok_or_else(|| Error::bad_input("no_files", "the dataset has no files"))
}

fn one(file: &SourceFile) -> Result<DatasetFormat> {
    let ending = file
        .name
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_ascii_lowercase());
    let ending = ending.unwrap_or_default();
    if let Some((_, format)) = ENDINGS.iter().find(|(known, _)| *known == ending) {
        return Ok(*format);
    }
    if let Some((_, instead)) = OTHERS.iter().find(|(other, _)| *other == ending) {
        return Err(unknown(format!(
            "{}: .{ending} files are not read; {instead}",
            file.name
        )));
    }
    by_content(file)
}

fn by_content(file: &SourceFile) -> Result<DatasetFormat> {
    let io = |e: std::io::Error| Error::io(&file.name, &e);
    let mut head = Vec::new();
    File::open(&file.path)
        .map_err(io)?
        .take(HEAD)
        .read_to_end(&mut head)
        .map_err(io)?;
    if head.starts_with(MAGIC) {
        return Ok(DatasetFormat::Npy);
    }
    if imatrix::looks_like(&head) {
        return Ok(DatasetFormat::Imatrix);
    }
    if head.len() > 8 && head[8] == b'{' && head[7] == 0 {
        return Ok(DatasetFormat::Safetensors);
    }
    let is_text = match std::str::from_utf8(&head) {
        Ok(text) => !text.contains('\0'),
        // A character may be cut in two where the head ends.
        Err(e) => e.error_len().is_none() && head.len() as u64 == HEAD,
    };
    if !is_text {
        return Err(unknown(format!(
            "{}: neither text nor a known array file; a dataset is .txt, .jsonl, .npy, .safetensors or an importance \
             matrix",
            file.name
        )));
    }
    let begins = head.iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(match begins {
        Some(b'{') => DatasetFormat::Jsonl,
        _ => DatasetFormat::Txt,
    })
}

fn unknown(detail: String) -> Error {
    Error::unsupported("unknown_dataset_format", detail)
}
