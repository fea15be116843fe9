//! Owns: the GGUF format: container, names, and what becomes of a Hugging Face checkpoint's config and tokenizer.
//!
//! Must not know: quantization kernels, plans. Invariant: what is written loads in llama.cpp unchanged.

pub mod build;
pub mod container;
pub mod error;
mod fields;
pub mod imatrix;
pub mod metadata;
pub mod names;
mod reader;
mod reader_seam;
pub mod rope;
mod shapes;
pub mod tokenizer;
pub mod value;
mod writer_seam;

pub use error::GgufError;

/// The format, behind both seams.
pub struct Gguf;

#[cfg(test)]
#[path = "tests/real_model.rs"]
mod real_model;

#[cfg(test)]
#[path = "tests/mutate.rs"]
mod mutate;
