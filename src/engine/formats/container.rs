//! A byte-exact picture of an artifact before it is written.
//!
//! Owns: [`Layout`], the checks of what was written. Must not know: any particular format.
//! Invariant: what reads back is what was laid out, or that is an error.

mod sink;

pub use sink::Sink;

use crate::digest::sha256_of;
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;

/// One run of bytes of a tensor file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name in the file.
    pub name: String,
    /// Type as the file's header spells it.
    pub dtype: String,
    /// Shape as the file's header gives it.
    pub shape: Vec<usize>,
    /// Length in bytes, without padding.
    pub bytes: u64,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            dtype,
            shape,
            bytes,
        } = self;
        write!(f, "{name} ({dtype} {shape:?}, {bytes} bytes)")
    }
}

impl From<TensorInfo> for Entry {
    fn from(tensor: TensorInfo) -> Self {
        Self {
            name: tensor.name,
            dtype: tensor.dtype.name().to_owned(),
            shape: tensor.shape,
            bytes: tensor.bytes,
        }
    }
}

/// The entries one planned tensor becomes in one file, next to each other. Where it is in several files, its parts are shared
/// out in the order of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// Index of the planned tensor; `None` for literal bytes.
    pub tensor: Option<usize>,
    /// The bytes themselves, for entries that come from no tensor.
    pub literal: Vec<u8>,
    /// What is written, in order.
    pub entries: Vec<Entry>,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// Known bytes: configuration, tokenizer.
    Bytes(Vec<u8>),
    /// Copied from the source's file of that index.
    Copy(usize),
    /// Header, then entries, each padded to `alignment`.
    Tensors {
        /// Everything before the first entry.
        header: Vec<u8>,
        /// Tensors in order.
        placed: Vec<Placed>,
        /// Padding of each entry, a power of two.
        alignment: u64,
    },
    /// Records whose lengths only their making tells, and behind them an index of where each is. All lengths are the most
    /// that they can be. A tensor comes as one part: its record, what the index is to know of it, and the length of that in
    /// eight bytes.
    Records {
        /// Everything before the first record.
        header: Vec<u8>,
        /// Tensors in order, one entry each.
        placed: Vec<Placed>,
        /// Makes everything behind the records, of the offset and the note of each.
        index: Indexer,
    },
}

/// Where a record begins, and what the index is to know of it.
pub type Noted = (u64, Vec<u8>);

/// Writes what comes behind records.
pub type Indexer = fn(&[Noted]) -> Result<Vec<u8>>;

/// One output file.
#[derive(Clone, Debug)]
pub struct OutFile {
    /// Relative name.
    pub name: String,
    /// Exact length; of records the most that it can be.
    pub bytes: u64,
    /// What it holds.
    pub content: Content,
}

impl OutFile {
    fn placed(&self) -> &[Placed] {
        match &self.content {
            Content::Tensors { placed, .. } | Content::Records { placed, .. } => placed,
            Content::Bytes(_) | Content::Copy(_) => &[],
        }
    }
}

/// All files of an artifact.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Files; those with tensors come in the order of the tensors.
    pub files: Vec<OutFile>,
}

impl Layout {
    /// True where lengths are the most that they can be.
    pub fn is_bound(&self) -> bool {
        let is_bound = |file: &OutFile| matches!(file.content, Content::Records { .. });
        self.files.iter().any(is_bound)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// Every tensor entry, file by file, in the order of the bytes.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.files
            .iter()
            .flat_map(OutFile::placed)
            .flat_map(|p| &p.entries)
    }

    /// Bytes of tensor entries.
    pub fn weight_bytes(&self) -> u64 {
        self.entries().map(|e| e.bytes).sum()
    }

    /// Bytes that each of `count` planned tensors becomes.
    pub fn tensor_bytes(&self, count: usize) -> Vec<u64> {
        let mut bytes = vec![0; count];
        for placed in self.files.iter().flat_map(OutFile::placed) {
            if let Some(index) = placed.tensor {
                bytes[index] += placed.entries.iter().map(|e| e.bytes).sum::<u64>();
            }
        }
        bytes
    }

    /// Compares what a reader found in the written files with what was laid out.
    pub fn check(&self, found: &[Entry]) -> Result<()> {
        let is_meant = |there: &Entry, meant: &Entry| {
            let alike =
                (&there.name, &there.dtype, &there.shape) == (&meant.name, &meant.dtype, &meant.shape);
            there == meant || (self.is_bound() && alike && there.bytes <= meant.bytes)
        };
        for (place, meant) in self.entries().enumerate() {
            match found.get(place) {
                Some(there) if is_meant(there, meant) => {}
                Some(there) => {
                    return Err(Error::internal(format!(
                        "entry {place} reads back as {there}, written was {meant}"
                    )));
                }
                None => return Err(Error::internal(format!("{meant} does not read back"))),
            }
        }
        match found.get(self.entries().count()) {
            Some(more) => Err(Error::internal(format!("{more} reads back, but was not written"))),
            None => Ok(()),
        }
    }

    /// A file of known bytes.
    pub fn push_bytes(&mut self, name: impl Into<String>, bytes: Vec<u8>) {
        let file = OutFile {
            name: name.into(),
            bytes: bytes.len() as u64,
            content: Content::Bytes(bytes),
        };
        self.files.push(file);
    }
}

/// A written file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Relative name.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Length.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// Reads a written file back and compares its length and SHA-256 with what was meant.
pub fn reread(file: &Written) -> Result<()> {
    let io = |e: std::io::Error| Error::io(format_args!("checking {}", file.name), &e);
    let mut input = File::open(&file.path).map_err(io)?;
    let length = input.metadata().map_err(io)?.len();
    let found = sha256_of(&mut input, &|| true).map_err(io)?;
    if length != file.bytes || found.as_ref() != Some(&file.sha256) {
        return Err(Error::new(
            crate::error::Class::Resources,
            "artifact_corrupt",
            format!(
                "{}: what was read back differs from what was written; check the disk",
                file.name
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
