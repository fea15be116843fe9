//! Arrays whose first dimension counts records: `.npy` files and safetensors.
//!
//! Owns: rows of integers as token ids, rows of floats as values, labels beside them; which names safetensors use.
//! Must not know: what an id means.
//! Invariant: one row is in memory at a time; a row is at most [`MAX_RECORD_BYTES`].

use super::MAX_RECORD_BYTES;
use super::record::{Content, Label, Record};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::formats::safetensors::read_header;
use crate::tensor::{DType, TensorInfo, decode};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// One array of ids is one long text; it comes in pieces of as many ids as the longest sequence may have.
const IDS_A_PIECE: usize = 131_072;
/// Most labels: they are held in memory beside the rows.
const MAX_LABELS: u64 = 1 << 24;

/// Where an array lies in its file.
#[derive(Debug)]
pub(super) struct Array {
    /// Its name; empty where a file is one array.
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) offset: u64,
}

impl Array {
    /// Its length, or none where that is too large for a number.
    pub(super) fn bytes(&self) -> Option<u64> {
        let mut bytes = self.dtype.row_bytes(1)? as u64;
        for n in &self.shape {
            bytes = bytes.checked_mul(*n as u64)?;
        }
        Some(bytes)
    }
}

/// An opened array file.
#[derive(Debug)]
pub(super) struct Table {
    file: SourceFile,
    handle: File,
    array: Array,
    labels: Option<Vec<i64>>,
    /// Rows or pieces, and elements of each but the last.
    rows: usize,
    row: usize,
}

/// Opens a safetensors file: `input_ids` or `pixel_values`, and `labels` beside it.
pub(super) fn open(file: &SourceFile) -> Result<Table> {
    let mut found: [Option<TensorInfo>; 3] = [None, None, None];
    for tensor in read_header(file, 0)? {
        let names = ["input_ids", "pixel_values", "labels"];
        let Some(at) = names.iter().position(|name| *name == tensor.name) else {
            return Err(wrong(
                file,
                format!(
                    "an array is called {:?}; those that are read are {}",
                    tensor.name,
                    names.join(", ")
                ),
            ));
        };
        found[at] = Some(tensor);
    }
    let [ids, pixels, labels] = found;
    let tensor = match (ids, pixels) {
        (Some(ids), None) => ids,
        (None, Some(pixels)) => pixels,
        (None, None) => return Err(wrong(file, "there is no input_ids (or pixel_values)".to_owned())),
        (Some(_), Some(_)) => {
            return Err(wrong(
                file,
                "it has input_ids and pixel_values: make two datasets".to_owned(),
            ));
        }
    };
    let handle = File::open(&file.path).map_err(|e| Error::io(&file.name, &e))?;
    Table::new(file, handle, array_of(tensor), labels.map(array_of))
}

fn array_of(tensor: TensorInfo) -> Array {
    Array {
        name: tensor.name,
        dtype: tensor.dtype,
        shape: tensor.shape,
        offset: tensor.offset,
    }
}

fn wrong(file: &SourceFile, what: impl std::fmt::Display) -> Error {
    Error::bad_input("invalid_array", format!("{}: {what}", file.name))
}

impl Table {
    pub(super) fn new(file: &SourceFile, handle: File, array: Array, labels: Option<Array>) -> Result<Self> {
        let is_ids = !array.dtype.is_float();
        let (rows, row) = match (is_ids, &array.shape[..]) {
            (true, [all]) => (all.div_ceil(IDS_A_PIECE), IDS_A_PIECE.min(*all)),
            (true, [rows, row]) => (*rows, *row),
            (true, shape) => {
                return Err(wrong(
                    file,
                    format!("token ids have 1 or 2 dimensions, these have {}", shape.len()),
                ));
            }
            (false, [rows, rest @ ..]) if !rest.is_empty() => {
                (*rows, rest.iter().fold(1usize, |all, n| all.saturating_mul(*n)))
            }
            (false, _) => {
                return Err(wrong(
                    file,
                    "an array of floats has records in its first dimension and numbers in the others",
                ));
            }
        };
        let width = array
            .dtype
            .row_bytes(1)
            .filter(|_| !matches!(array.dtype, DType::Ggml(_) | DType::Bool));
        let Some(width) = width else {
            return Err(wrong(
                file,
                format!("numbers of type {} are no records", array.dtype),
            ));
        };
        if row.saturating_mul(width) > MAX_RECORD_BYTES {
            let what = format!(
                "a row has {} bytes; at most {MAX_RECORD_BYTES} are read",
                row.saturating_mul(width)
            );
            return Err(Error::bad_input(
                "record_too_long",
                format!("{}: {what}", file.name),
            ));
        }
        let rows = if row == 0 { 0 } else { rows };
        let mut table = Self {
            file: file.clone(),
            handle,
            array,
            labels: None,
            rows,
            row,
        };
        table.labels = labels.map(|labels| table.read_labels(&labels)).transpose()?;
        Ok(table)
    }

    pub(super) fn name(&self) -> &str {
        &self.file.name
    }

    /// Every row.
    pub(super) fn rows(&self) -> impl Iterator<Item = Result<Record>> + Send + '_ {
        (0..self.rows).map(|index| self.record(index))
    }

    fn record(&self, index: usize) -> Result<Record> {
        let begin = index * self.row;
        let is_text = self.array.shape.len() == 1;
        let elements = if is_text {
            self.row.min(self.array.shape[0] - begin)
        } else {
            self.row
        };
        let content = if self.array.dtype.is_float() {
            let mut values = vec![0.0; elements];
            decode(
                self.array.dtype,
                &self.bytes(&self.array, begin, elements)?,
                &mut values,
            );
            Content::Values {
                shape: self.array.shape[1..].to_vec(),
                values,
            }
        } else {
            let id = |(at, number): (usize, i128)| {
                u32::try_from(number).map_err(|_too_large| {
                    let place = if is_text { begin + at } else { at };
                    wrong(
                        &self.file,
                        format!("row {index}, place {place}: {number} is no token id"),
                    )
                })
            };
            let numbers = integers(self.array.dtype, &self.bytes(&self.array, begin, elements)?);
            Content::Ids(numbers.into_iter().enumerate().map(id).collect::<Result<_>>()?)
        };
        let label = self.labels.as_ref().and_then(|labels| labels.get(index));
        Ok(Record {
            content,
            label: label.map(|label| Label::Class(*label)),
            text_pair: None,
        })
    }

    fn read_labels(&self, labels: &Array) -> Result<Vec<i64>> {
        let count = labels.shape.iter().try_fold(1usize, |all, n| all.checked_mul(*n));
        let fits = self.array.shape.len() > 1 && count == Some(self.rows) && labels.shape.len() <= 2;
        if !fits || labels.dtype.is_float() || labels.dtype == DType::Bool {
            let what = format!(
                "labels has the type {} and the shape {:?}; one integer a row is read, for {} rows",
                labels.dtype, labels.shape, self.rows
            );
            return Err(wrong(&self.file, what));
        }
        if self.rows as u64 > MAX_LABELS {
            return Err(wrong(
                &self.file,
                format!("{} labels; at most {MAX_LABELS} are read", self.rows),
            ));
        }
        let numbers = integers(labels.dtype, &self.bytes(labels, 0, self.rows)?);
        let label =
            |number| i64::try_from(number).map_err(|_e| wrong(&self.file, format!("{number} is no label")));
        numbers.into_iter().map(label).collect()
    }

    fn bytes(&self, array: &Array, begin: usize, elements: usize) -> Result<Vec<u8>> {
        let width = array.dtype.row_bytes(1).unwrap_or(1);
        let mut bytes = vec![0; elements * width];
        let at = array.offset + (begin * width) as u64;
        let read = self.handle.read_exact_at(&mut bytes, at);
        read.map_err(|e| Error::io(format!("{} {}", self.file.name, array.name).trim(), &e))?;
        Ok(bytes)
    }
}

/// Little-endian integers of any width.
fn integers(dtype: DType, bytes: &[u8]) -> Vec<i128> {
    let width = dtype.row_bytes(1).unwrap_or(1);
    let is_signed = matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64);
    let number = |bytes: &[u8]| {
        let fill = if is_signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0) {
            0xff
        } else {
            0
        };
        let mut whole = [fill; 16];
        whole[..bytes.len()].copy_from_slice(bytes);
        i128::from_le_bytes(whole)
    };
    bytes.chunks_exact(width).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width_and_sign_are_what_they_are() {
        assert_eq!(integers(DType::I16, &[1, 0, 0xff, 0xff]), [1, -1]);
        assert_eq!(integers(DType::U16, &[0xff, 0xff]), [65_535]);
        assert_eq!(integers(DType::I64, &(-5i64).to_le_bytes()), [-5]);
        assert_eq!(
            integers(DType::U64, &u64::MAX.to_le_bytes()),
            [i128::from(u64::MAX)]
        );
        assert_eq!(integers(DType::U8, &[200]), [200]);
    }
}
