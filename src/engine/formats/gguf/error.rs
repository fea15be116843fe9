//! Owns: [`GgufError`], everything that can be wrong with a GGUF file or with a checkpoint to be turned into one.
//!
//! Must not know: the engine's own error type, HTTP. The format seam maps these.
//! Invariant: each message names what was read (key, tensor, field), what was expected and what was found.

use std::io;

/// Why a GGUF could not be read, or a checkpoint could not become one.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The bytes could not be fetched.
    #[error("could not read {what} at byte {offset} of the gguf file: {source}")]
    Io {
        /// What was being read.
        what: String,
        /// Absolute byte offset of the read.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// Wrong magic.
    #[error("not a gguf file: expected the bytes \"GGUF\" first, got \"{got}\"")]
    NotGguf {
        /// The first four bytes, escaped.
        got: String,
    },
    /// Version is byte-swapped.
    #[error("big-endian gguf is not supported: convert the file to little-endian first")]
    BigEndian,
    /// A version we do not read.
    #[error("gguf version {got} is not supported: expected 2 or 3")]
    Version {
        /// The version in the file.
        got: u32,
    },
    /// Something is longer than what is left of the file.
    #[error("gguf file is truncated: {what} needs {need} bytes, {left} are left")]
    Truncated {
        /// What was being read.
        what: String,
        /// Bytes needed, at least.
        need: u64,
        /// Bytes left in the file.
        left: u64,
    },
    /// A count or a length above our limits.
    #[error("gguf {what} is {got}: the limit is {limit}")]
    Limit {
        /// What was counted.
        what: String,
        /// The value in the file.
        got: u64,
        /// The most we read.
        limit: u64,
    },
    /// A key or tensor name that is not UTF-8.
    #[error("gguf {what} is not utf-8: {got}")]
    NotUtf8 {
        /// Which name.
        what: String,
        /// The bytes, escaped.
        got: String,
    },
    /// A tensor name that other files, pages and logs could not show.
    #[error("gguf tensor number {index} has a name that is empty or holds control characters: {name:?}")]
    TensorName {
        /// Position in the table.
        index: u64,
        /// The name.
        name: String,
    },
    /// A key of no characters.
    #[error("gguf metadata key number {index} is empty")]
    EmptyKey {
        /// Position in the file.
        index: u64,
    },
    /// The same key twice.
    #[error("gguf metadata key {key} appears twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The same tensor twice.
    #[error("gguf tensor {name} appears twice")]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// An unknown value type id.
    #[error("gguf metadata key {key} has value type {got}: expected 0 to 12")]
    ValueType {
        /// The key.
        key: String,
        /// The id in the file.
        got: u32,
    },
    /// An array of arrays.
    #[error("gguf metadata key {key} is an array of arrays, which is not supported")]
    NestedArray {
        /// The key.
        key: String,
    },
    /// A known key with another type than the format demands.
    #[error("gguf metadata key {key} must be {expected}, got {got}")]
    KeyType {
        /// The key.
        key: String,
        /// The type the format demands.
        expected: &'static str,
        /// The type in the file.
        got: &'static str,
    },
    /// Alignment that is not a power of two.
    #[error("gguf alignment must be a power of two from 8 up to 1048576, got {got}")]
    Alignment {
        /// The value given.
        got: u64,
    },
    /// `general.alignment` contradicts the alignment asked for.
    #[error("gguf metadata key general.alignment is {got}, but the file is laid out with {expected}")]
    AlignmentMismatch {
        /// The layout.
        expected: u32,
        /// The key.
        got: u32,
    },
    /// Number of dimensions out of range.
    #[error("gguf tensor {name} has {got} dimensions: expected 1 to 4")]
    Dims {
        /// The tensor.
        name: String,
        /// Dimensions in the file.
        got: u64,
    },
    /// A dimension of zero.
    #[error("gguf tensor {name} has dimension {index} equal to zero")]
    ZeroDim {
        /// The tensor.
        name: String,
        /// Position, fastest first.
        index: usize,
    },
    /// More elements or bytes than 63 bits can count.
    #[error("gguf tensor {name} of dimensions {dims:?} is too large to count")]
    Overflow {
        /// The tensor.
        name: String,
        /// Dimensions, fastest first.
        dims: Vec<u64>,
    },
    /// An unknown ggml type.
    #[error("gguf tensor {name} has the unknown ggml type {id}")]
    TensorType {
        /// The tensor.
        name: String,
        /// The id in the file.
        id: u32,
    },
    /// A row that does not hold a whole number of blocks.
    #[error("gguf tensor {name} has rows of {cols} elements: type {ty} needs a multiple of {block}")]
    RowBlock {
        /// The tensor.
        name: String,
        /// Elements in a row.
        cols: u64,
        /// ggml type name.
        ty: &'static str,
        /// Elements in a block.
        block: usize,
    },
    /// Data that does not start on the alignment.
    #[error("gguf tensor {name} has offset {offset}, not a multiple of the alignment {alignment}")]
    OffsetAlignment {
        /// The tensor.
        name: String,
        /// Offset from the start of the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Data that ends after the file does.
    #[error("gguf tensor {name} ends at byte {end}, but the file has {file_len}")]
    OutOfBounds {
        /// The tensor.
        name: String,
        /// Absolute end of the tensor.
        end: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// Two tensors share bytes.
    #[error("gguf tensors {first} and {second} overlap")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The one that starts inside it.
        second: String,
    },
    /// A checkpoint tensor with no place in a GGUF of its architecture.
    #[error("tensor {name} has no gguf name in architecture {arch}")]
    UnknownTensor {
        /// The tensor.
        name: String,
        /// The GGUF architecture.
        arch: &'static str,
    },
    /// A field of `config.json` that must be there.
    #[error("config.json has no {key}, which a gguf needs")]
    MissingConfig {
        /// The field.
        key: String,
    },
    /// A field of `config.json` that has the wrong type or value.
    #[error("config.json field {key} must be {expected}, got {got}")]
    ConfigValue {
        /// The field.
        key: String,
        /// What was expected.
        expected: String,
        /// The JSON found.
        got: String,
    },
    /// A field of `config.json` that asks for something we do not convert.
    #[error("config.json field {key} = {got} cannot be converted to gguf: expected {expected}")]
    UnsupportedConfig {
        /// The field.
        key: String,
        /// What would be accepted.
        expected: String,
        /// The JSON found.
        got: String,
    },
    /// A tokenizer file that must be there.
    #[error("no {what} in the checkpoint, which a gguf needs for its tokenizer")]
    MissingTokenizer {
        /// The file, or the part of it.
        what: String,
    },
    /// A tokenizer field that has the wrong type or value.
    #[error("{path} must be {expected}, got {got}")]
    TokenizerValue {
        /// File and field.
        path: String,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A tokenizer of a kind we do not convert.
    #[error("{path} = {got} cannot be converted to gguf: expected {expected}")]
    UnsupportedTokenizer {
        /// File and field.
        path: String,
        /// What would be accepted.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A byte-level BPE whose text splitting llama.cpp has no name for.
    #[error(
        "the pre_tokenizer of tokenizer.json is not one llama.cpp has a name for: {got}; \
         if you know the name, give it as options.tokenizer_pre"
    )]
    UnknownPre {
        /// The `pre_tokenizer` JSON, shortened.
        got: String,
    },
}

/// The JSON found, shortened for a message.
pub(super) fn shown(got: &serde_json::Value) -> String {
    const MOST: usize = 200;
    let text = got.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl GgufError {
    /// Stable code for the API: which file is to be mended, or that this version cannot do it.
    pub fn code(&self) -> &'static str {
        match self {
            _ if self.is_unsupported() => "unsupported_model",
            Self::MissingConfig { .. } | Self::ConfigValue { .. } => "invalid_config",
            Self::TokenizerValue { .. } => "invalid_tokenizer",
            _ => "invalid_gguf",
        }
    }

    /// True when the input is valid but outside of what this version converts or reads; false when it is broken.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::BigEndian
                | Self::Version { .. }
                | Self::NestedArray { .. }
                | Self::TensorType { .. }
                | Self::UnknownTensor { .. }
                | Self::UnsupportedConfig { .. }
                | Self::MissingTokenizer { .. }
                | Self::UnsupportedTokenizer { .. }
                | Self::UnknownPre { .. }
        )
    }
}
