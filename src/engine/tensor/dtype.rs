//! Element types of stored tensors.
//!
//! Owns: names, widths and safetensors spellings. Must not know: files.
//! Invariant: `from_name(name()) == self`.

use super::GgmlType;
use serde::{Deserialize, Serialize};

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum DType {
    /// IEEE double.
    F64,
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 8-bit float, 4 exponent bits, no infinities (OCP "FN").
    F8E4M3,
    /// 8-bit float, 5 exponent bits.
    F8E5M2,
    /// Signed integers.
    I64,
    /// Signed 32-bit.
    I32,
    /// Signed 16-bit.
    I16,
    /// Signed 8-bit.
    I8,
    /// Unsigned 64-bit.
    U64,
    /// Unsigned 32-bit.
    U32,
    /// Unsigned 16-bit.
    U16,
    /// Unsigned 8-bit.
    U8,
    /// One byte per boolean.
    Bool,
    /// A ggml block type: several elements share a block.
    Ggml(GgmlType),
}

impl DType {
    const PLAIN: [(DType, &'static str, usize); 15] = [
        (DType::F64, "F64", 8),
        (DType::F32, "F32", 4),
        (DType::F16, "F16", 2),
        (DType::BF16, "BF16", 2),
        (DType::F8E4M3, "F8_E4M3", 1),
        (DType::F8E5M2, "F8_E5M2", 1),
        (DType::I64, "I64", 8),
        (DType::I32, "I32", 4),
        (DType::I16, "I16", 2),
        (DType::I8, "I8", 1),
        (DType::U64, "U64", 8),
        (DType::U32, "U32", 4),
        (DType::U16, "U16", 2),
        (DType::U8, "U8", 1),
        (DType::Bool, "BOOL", 1),
    ];

    /// The name used in safetensors headers, in the API and in reports (`BF16`, `Q4_K`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Ggml(ty) => ty.name(),
            plain => Self::PLAIN
                .iter()
                .find(|row| row.0 == plain)
                .map_or("?", |row| row.1),
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain = Self::PLAIN.iter().find(|row| row.1 == name).map(|row| row.0);
        plain.or_else(|| GgmlType::from_name(name).map(Self::from_ggml))
    }

    /// Plain ggml types become the plain dtype, block types stay.
    pub fn from_ggml(ty: GgmlType) -> Self {
        match ty {
            GgmlType::F64 => Self::F64,
            GgmlType::F32 => Self::F32,
            GgmlType::F16 => Self::F16,
            GgmlType::BF16 => Self::BF16,
            GgmlType::I64 => Self::I64,
            GgmlType::I32 => Self::I32,
            GgmlType::I16 => Self::I16,
            GgmlType::I8 => Self::I8,
            block => Self::Ggml(block),
        }
    }

    /// The ggml type with the same layout, if ggml has one.
    pub fn to_ggml(self) -> Option<GgmlType> {
        Some(match self {
            Self::F64 => GgmlType::F64,
            Self::F32 => GgmlType::F32,
            Self::F16 => GgmlType::F16,
            Self::BF16 => GgmlType::BF16,
            Self::I64 => GgmlType::I64,
            Self::I32 => GgmlType::I32,
            Self::I16 => GgmlType::I16,
            Self::I8 => GgmlType::I8,
            Self::Ggml(block) => block,
            _ => return None,
        })
    }

    /// Bytes of `elements` in rows of `cols`; `None` on overflow or where a row is no whole number of blocks.
    pub fn bytes(self, rows: usize, cols: usize) -> Option<usize> {
        self.row_bytes(cols)?.checked_mul(rows)
    }

    /// Bytes of one row.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        match self {
            Self::Ggml(ty) => ty.row_bytes(cols),
            plain => cols.checked_mul(
                Self::PLAIN
                    .iter()
                    .find(|row| row.0 == plain)
                    .map_or(1, |row| row.2),
            ),
        }
    }

    /// True for types that hold real numbers (weights), false for integer side data.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F64 | Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3 | Self::F8E5M2 | Self::Ggml(_)
        )
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl From<DType> for String {
    fn from(dtype: DType) -> Self {
        dtype.name().to_owned()
    }
}

impl TryFrom<String> for DType {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::from_name(&name).ok_or_else(|| format!("unknown dtype {name:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plain_type_is_found_by_its_name() {
        for (dtype, name, width) in DType::PLAIN {
            assert_eq!(DType::from_name(name), Some(dtype));
            assert_eq!(dtype.row_bytes(3), Some(3 * width));
        }
        assert_eq!(DType::from_name("complex64"), None);
    }

    #[test]
    fn sizes_that_overflow_are_none() {
        assert_eq!(DType::F32.bytes(usize::MAX, 2), None);
    }
}
