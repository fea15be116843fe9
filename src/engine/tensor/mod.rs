//! Tensors as the engine sees them: element types, where their bytes lie, and rows of f32 on demand.
//!
//! Owns: dtypes, tensor descriptions, lazy row access. Must not know: techniques, recipes, containers' headers.
//! Invariant: nothing here holds more than the rows it was asked for.

mod decode;
mod dtype;
pub mod ggml_type;
mod info;
mod rows;

pub use decode::{decode, encode_dense, f8e4m3_to_f32, round_to};
pub use dtype::DType;
pub use ggml_type::GgmlType;
pub use info::TensorInfo;
pub use rows::{CHUNK_ELEMENTS, MemoryRows, Rows, SourceRows, chunk_rows, encode_rows, try_fold_chunks};
