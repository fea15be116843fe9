//! Owns: reading the header of a GGUF file: key-values, tensor table, where the data is.
//!
//! Must not know: tensor contents, what a key means (but `general.alignment`), how bytes are fetched.
//! Invariant: hostile bytes give an error, never a panic; nothing is allocated for a count or a length before it
//! was compared with what is left of the file and with the limits below.
//!
//! Source of the layout: ggml `docs/gguf.md` and `src/gguf.cpp`.

use std::collections::HashSet;

use super::error::GgufError;
use super::reader::{Reader, What};
use super::value::{ArrayValue, Metadata, Text, Value, type_id};
use crate::tensor::ggml_type::GgmlType;

/// Alignment of tensor data when `general.alignment` does not say, bytes.
pub const DEFAULT_ALIGNMENT: u32 = 32;
/// The key that sets the alignment, `uint32`.
pub const ALIGNMENT_KEY: &str = "general.alignment";
/// The first bytes of every GGUF file.
pub const MAGIC: &[u8; 4] = b"GGUF";
/// Most metadata keys. Real files have under 100.
pub const MAX_KEYS: u64 = 65_536;
/// Most tensors. Real files have under 20 000.
pub const MAX_TENSORS: u64 = 1 << 20;
/// Longest key, bytes (the format's own limit).
pub const MAX_KEY_BYTES: u64 = 65_535;
/// Longest tensor name we read, bytes. llama.cpp itself stops at 63.
pub const MAX_NAME_BYTES: u64 = 1024;
/// Largest alignment we read or write, bytes.
pub const MAX_ALIGNMENT: u32 = 1 << 20;

pub use super::reader::{MAX_HEADER_BYTES, ReadAt};

/// One row of the tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Name, unique in the file.
    pub name: String,
    /// Dimensions in ggml order: the fastest (columns) first, the reverse of a checkpoint's shape.
    pub dims: Vec<u64>,
    /// ggml type number; always one that [`GgmlType::from_id`] knows.
    pub ggml_type_id: u32,
    /// Absolute byte offset in the file.
    pub offset: u64,
    /// Length of the data, bytes, without padding.
    pub bytes: u64,
}

/// All of a GGUF file but the tensor data.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Key-values in file order.
    pub metadata: Metadata,
    /// Alignment of tensor data, bytes.
    pub alignment: u32,
    /// Absolute byte offset of the data section.
    pub data_start: u64,
    /// Tensors in file order.
    pub tensors: Vec<GgufTensor>,
}

impl Header {
    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// True when the file begins like a GGUF.
pub fn sniff(first: &[u8]) -> bool {
    first.starts_with(MAGIC)
}

/// Reads and checks the header of a file of `file_len` bytes.
pub fn parse(read_at: &ReadAt<'_>, file_len: u64) -> Result<Header, GgufError> {
    let mut reader = Reader::new(read_at, file_len);
    let magic: [u8; 4] = reader.array(&|| "the magic".into())?;
    if &magic != MAGIC {
        return Err(GgufError::NotGguf {
            got: magic.escape_ascii().to_string(),
        });
    }
    let version = read_version(&mut reader)?;
    let n_tensors = reader.count("tensor count", MAX_TENSORS)?;
    let n_keys = reader.count("metadata key count", MAX_KEYS)?;
    let mut metadata = Metadata::new();
    for index in 0..n_keys {
        let (key, value) = read_entry(&mut reader, index)?;
        metadata.insert(key, value)?;
    }
    let alignment = alignment_of(&metadata)?;
    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    for index in 0..n_tensors {
        let tensor = read_tensor(&mut reader, index, alignment)?;
        if !seen.insert(tensor.name.clone()) {
            return Err(GgufError::DuplicateTensor { name: tensor.name });
        }
        tensors.push(tensor);
    }
    let data_start = reader.pos.next_multiple_of(u64::from(alignment));
    place(&mut tensors, data_start, file_len)?;
    Ok(Header {
        version,
        metadata,
        alignment,
        data_start,
        tensors,
    })
}

/// Length in bytes of a tensor, after checking its dimensions against its type.
pub(super) fn byte_len(name: &str, dims: &[u64], ty: GgmlType) -> Result<u64, GgufError> {
    if dims.is_empty() || dims.len() > 4 {
        return Err(GgufError::Dims {
            name: name.into(),
            got: dims.len() as u64,
        });
    }
    if let Some(index) = dims.iter().position(|&dim| dim == 0) {
        return Err(GgufError::ZeroDim {
            name: name.into(),
            index,
        });
    }
    let overflow = || GgufError::Overflow {
        name: name.into(),
        dims: dims.to_vec(),
    };
    let elements = dims.iter().try_fold(1_i64, |product, &dim| {
        product.checked_mul(i64::try_from(dim).ok()?)
    });
    elements.ok_or_else(overflow)?;
    let block = ty.block_size();
    if !dims[0].is_multiple_of(block as u64) {
        return Err(GgufError::RowBlock {
            name: name.into(),
            cols: dims[0],
            ty: ty.name(),
            block,
        });
    }
    let row = usize::try_from(dims[0])
        .ok()
        .and_then(|cols| ty.row_bytes(cols))
        .ok_or_else(overflow)?;
    let bytes = dims[1..]
        .iter()
        .try_fold(row as u64, |product, &dim| product.checked_mul(dim));
    bytes
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or_else(overflow)
}

/// Refuses an alignment that is not a power of two in `8..=MAX_ALIGNMENT`.
pub(super) fn check_alignment(alignment: u32) -> Result<(), GgufError> {
    if alignment.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&alignment) {
        Ok(())
    } else {
        Err(GgufError::Alignment {
            got: alignment.into(),
        })
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<u32, GgufError> {
    let version = reader.u32(&|| "the version".into())?;
    match version {
        2 | 3 => Ok(version),
        _ if matches!(version.swap_bytes(), 1..=3) => Err(GgufError::BigEndian),
        _ => Err(GgufError::Version { got: version }),
    }
}

fn alignment_of(metadata: &Metadata) -> Result<u32, GgufError> {
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => DEFAULT_ALIGNMENT,
        Some(Value::U32(alignment)) => *alignment,
        Some(other) => {
            let (expected, got) = ("uint32", other.type_name());
            return Err(GgufError::KeyType {
                key: ALIGNMENT_KEY.into(),
                expected,
                got,
            });
        }
    };
    check_alignment(alignment)?;
    Ok(alignment)
}

fn read_entry(reader: &mut Reader<'_>, index: u64) -> Result<(String, Value), GgufError> {
    let key = reader.name(&|| format!("metadata key number {index}"), MAX_KEY_BYTES)?;
    if key.is_empty() {
        return Err(GgufError::EmptyKey { index });
    }
    let what = || format!("the value of metadata key {key}");
    let value = match reader.u32(&what)? {
        type_id::U8 => Value::U8(reader.scalar(&what)?),
        type_id::I8 => Value::I8(reader.scalar(&what)?),
        type_id::U16 => Value::U16(reader.scalar(&what)?),
        type_id::I16 => Value::I16(reader.scalar(&what)?),
        type_id::U32 => Value::U32(reader.scalar(&what)?),
        type_id::I32 => Value::I32(reader.scalar(&what)?),
        type_id::F32 => Value::F32(reader.scalar(&what)?),
        type_id::BOOL => Value::Bool(reader.scalar::<u8, 1>(&what)? != 0),
        type_id::TEXT => Value::Text(Text::from(reader.text(&what)?)),
        type_id::ARRAY => Value::Array(read_array(reader, &key, &what)?),
        type_id::U64 => Value::U64(reader.scalar(&what)?),
        type_id::I64 => Value::I64(reader.scalar(&what)?),
        type_id::F64 => Value::F64(reader.scalar(&what)?),
        got => return Err(GgufError::ValueType { key, got }),
    };
    Ok((key, value))
}

fn read_array(reader: &mut Reader<'_>, key: &str, what: What<'_>) -> Result<ArrayValue, GgufError> {
    let element = reader.u32(what)?;
    let n = reader.u64(what)?;
    Ok(match element {
        type_id::U8 => ArrayValue::U8(reader.scalars(n, what)?),
        type_id::I8 => ArrayValue::I8(reader.scalars(n, what)?),
        type_id::U16 => ArrayValue::U16(reader.scalars(n, what)?),
        type_id::I16 => ArrayValue::I16(reader.scalars(n, what)?),
        type_id::U32 => ArrayValue::U32(reader.scalars(n, what)?),
        type_id::I32 => ArrayValue::I32(reader.scalars(n, what)?),
        type_id::F32 => ArrayValue::F32(reader.scalars(n, what)?),
        type_id::BOOL => ArrayValue::Bool(
            reader
                .scalars::<u8, 1>(n, what)?
                .into_iter()
                .map(|byte| byte != 0)
                .collect(),
        ),
        type_id::TEXT => ArrayValue::Text(reader.texts(n, what)?),
        type_id::U64 => ArrayValue::U64(reader.scalars(n, what)?),
        type_id::I64 => ArrayValue::I64(reader.scalars(n, what)?),
        type_id::F64 => ArrayValue::F64(reader.scalars(n, what)?),
        type_id::ARRAY => return Err(GgufError::NestedArray { key: key.into() }),
        got => return Err(GgufError::ValueType { key: key.into(), got }),
    })
}

/// Reads one row of the table. The offset is still relative to the data section.
fn read_tensor(reader: &mut Reader<'_>, index: u64, alignment: u32) -> Result<GgufTensor, GgufError> {
    let name = reader.name(&|| format!("name of tensor number {index}"), MAX_NAME_BYTES)?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(GgufError::TensorName { index, name });
    }
    let what = || format!("the table entry of tensor {name}");
    let n_dims = reader.u32(&what)?;
    if !(1..=4).contains(&n_dims) {
        return Err(GgufError::Dims {
            name,
            got: n_dims.into(),
        });
    }
    let dims = reader.scalars::<u64, 8>(n_dims.into(), &what)?;
    let id = reader.u32(&what)?;
    let offset = reader.u64(&what)?;
    let Some(ty) = GgmlType::from_id(id) else {
        return Err(GgufError::TensorType { name, id });
    };
    let bytes = byte_len(&name, &dims, ty)?;
    let alignment = u64::from(alignment);
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::OffsetAlignment {
            name,
            offset,
            alignment,
        });
    }
    Ok(GgufTensor {
        name,
        dims,
        ggml_type_id: id,
        offset,
        bytes,
    })
}

/// Makes offsets absolute; refuses tensors that leave the file or share bytes.
fn place(tensors: &mut [GgufTensor], data_start: u64, file_len: u64) -> Result<(), GgufError> {
    for tensor in tensors.iter_mut() {
        let start = data_start.saturating_add(tensor.offset);
        let end = start.saturating_add(tensor.bytes);
        if end > file_len {
            return Err(GgufError::OutOfBounds {
                name: tensor.name.clone(),
                end,
                file_len,
            });
        }
        tensor.offset = start;
    }
    let mut order: Vec<&GgufTensor> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    for pair in order.windows(2) {
        if pair[0].offset + pair[0].bytes > pair[1].offset {
            return Err(GgufError::Overlap {
                first: pair[0].name.clone(),
                second: pair[1].name.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests/container.rs"]
mod tests;
