//! Owns: the bytes of a GGUF version 3 header, and where each tensor's data must be written.
//!
//! Must not know: tensor contents, files. The caller writes the header, then each tensor at its offset, zeros between.
//! Invariant: the same metadata and tensor list give the same bytes; what is built here is read back equal by
//! [`super::container::parse`].

use std::collections::HashSet;

use super::container::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, byte_len, check_alignment};
use super::error::GgufError;
use super::value::{ArrayValue, Metadata, Value};
use crate::tensor::ggml_type::GgmlType;

/// The version written.
pub const VERSION: u32 = 3;
/// Longest tensor name llama.cpp loads, bytes (`GGML_MAX_NAME` with its final NUL is 64).
pub const MAX_NAME_BYTES: u64 = 63;

/// A header ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The header, zero-padded up to the data section.
    pub header: Vec<u8>,
    /// Absolute byte offset of each tensor, in the order given.
    pub offsets: Vec<u64>,
    /// Length of the whole file, bytes; the last tensor is padded to the alignment too.
    pub file_len: u64,
}

/// Lays out a file: `tensors` are name, dimensions in ggml order (fastest first) and type.
///
/// `general.alignment` is added when `alignment` is not the default of 32 bytes.
pub fn header_bytes(
    metadata: &Metadata,
    tensors: &[(String, Vec<u64>, GgmlType)],
    alignment: u32,
) -> Result<Layout, GgufError> {
    check_alignment(alignment)?;
    let add_alignment = match metadata.get(ALIGNMENT_KEY) {
        None => alignment != DEFAULT_ALIGNMENT,
        Some(Value::U32(got)) if *got == alignment => false,
        Some(Value::U32(got)) => {
            return Err(GgufError::AlignmentMismatch {
                expected: alignment,
                got: *got,
            });
        }
        Some(other) => {
            let (expected, got) = ("uint32", other.type_name());
            return Err(GgufError::KeyType {
                key: ALIGNMENT_KEY.into(),
                expected,
                got,
            });
        }
    };
    let mut out = Vec::new();
    out.extend(MAGIC);
    put(&mut out, VERSION.to_le_bytes());
    put(&mut out, (tensors.len() as u64).to_le_bytes());
    put(
        &mut out,
        (metadata.len() as u64 + u64::from(add_alignment)).to_le_bytes(),
    );
    for (key, value) in metadata.iter() {
        put_entry(&mut out, key, value);
    }
    if add_alignment {
        put_entry(&mut out, ALIGNMENT_KEY, &Value::U32(alignment));
    }
    let alignment = u64::from(alignment);
    let (mut offsets, data_len) = put_table(&mut out, tensors, alignment)?;
    let data_start = (out.len() as u64).next_multiple_of(alignment);
    out.resize(data_start as usize, 0);
    for offset in &mut offsets {
        *offset += data_start;
    }
    Ok(Layout {
        header: out,
        offsets,
        file_len: data_start + data_len,
    })
}

/// Writes the tensor table; returns offsets from the data section and the section's length.
fn put_table(
    out: &mut Vec<u8>,
    tensors: &[(String, Vec<u64>, GgmlType)],
    alignment: u64,
) -> Result<(Vec<u64>, u64), GgufError> {
    let mut seen = HashSet::new();
    let mut offsets = Vec::with_capacity(tensors.len());
    let mut next = 0_u64;
    for (name, dims, ty) in tensors {
        let got = name.len() as u64;
        if got > MAX_NAME_BYTES {
            let what = format!("length of the name of tensor {name}");
            return Err(GgufError::Limit {
                what,
                got,
                limit: MAX_NAME_BYTES,
            });
        }
        if !seen.insert(name.as_str()) {
            return Err(GgufError::DuplicateTensor { name: name.clone() });
        }
        let bytes = byte_len(name, dims, *ty)?;
        put_text(out, name.as_bytes());
        put(out, (dims.len() as u32).to_le_bytes());
        for dim in dims {
            put(out, dim.to_le_bytes());
        }
        put(out, ty.id().to_le_bytes());
        put(out, next.to_le_bytes());
        offsets.push(next);
        next = bytes
            .checked_next_multiple_of(alignment)
            .and_then(|padded| next.checked_add(padded))
            .filter(|&total| i64::try_from(total).is_ok())
            .ok_or_else(|| GgufError::Overflow {
                name: name.clone(),
                dims: dims.clone(),
            })?;
    }
    Ok((offsets, next))
}

fn put<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend(bytes);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put(out, (text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn put_entry(out: &mut Vec<u8>, key: &str, value: &Value) {
    put_text(out, key.as_bytes());
    put(out, value.type_id().to_le_bytes());
    match value {
        Value::U8(v) => put(out, v.to_le_bytes()),
        Value::I8(v) => put(out, v.to_le_bytes()),
        Value::U16(v) => put(out, v.to_le_bytes()),
        Value::I16(v) => put(out, v.to_le_bytes()),
        Value::U32(v) => put(out, v.to_le_bytes()),
        Value::I32(v) => put(out, v.to_le_bytes()),
        Value::F32(v) => put(out, v.to_le_bytes()),
        Value::Bool(v) => put(out, [u8::from(*v)]),
        Value::Text(v) => put_text(out, v.as_bytes()),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => put(out, v.to_le_bytes()),
        Value::I64(v) => put(out, v.to_le_bytes()),
        Value::F64(v) => put(out, v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &ArrayValue) {
    put(out, array.type_id().to_le_bytes());
    put(out, (array.len() as u64).to_le_bytes());
    match array {
        ArrayValue::U8(list) => out.extend(list),
        ArrayValue::I8(list) => list.iter().for_each(|v| put(out, v.to_le_bytes())),
        ArrayValue::U16(list) => list.iter().for_each(|v| put(out, v.to_le_bytes())),
        ArrayValue::I16(list) => list.iter().for_each(|v| put(out, v.to_le_bytes())),
        ArrayValue::U32(list) => list.iter().for_each(|v| put(out, v.to_le_bytes())),
        ArrayValue::I32(list) => list.iter().for_each(|v| put(out, v.to_le_bytes())),
        ArrayValue::F32(list) => list.iter().for_each(|v| put(out, v.to_le_bytes())),
        ArrayValue::Bool(list) => out.extend(list.iter().map(|&v| u8::from(v))),
        ArrayValue::Text(list) => list.iter().for_each(|text| put_text(out, text)),
        ArrayValue::U64(list) => list.iter().for_each(|v| put(out, v.to_le_bytes())),
        ArrayValue::I64(list) => list.iter().for_each(|v| put(out, v.to_le_bytes())),
        ArrayValue::F64(list) => list.iter().for_each(|v| put(out, v.to_le_bytes())),
    }
}

#[cfg(test)]
#[path = "tests/build.rs"]
mod tests;
