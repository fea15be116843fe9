//! A byte-exact picture of an artifact before it is written, and the one loop that writes it.
//!
//! Owns: [`Layout`], [`Sink`], the checks of what was written. Must not know: any particular format.
//! Invariant: a file is written front to back, hashed on the way, and ends at exactly the planned length.

use crate::digest::{hex, sha256_of};
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

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

/// The entries one planned tensor becomes. They lie next to each other in one file.
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

struct Open {
    name: String,
    path: PathBuf,
    out: BufWriter<File>,
    hash: Sha256,
    written: u64,
    planned: u64,
    alignment: u64,
    /// Remaining tensors of this file, last first.
    placed: Vec<Placed>,
    /// Where records were written so far, and what is to be known of each; how the index is made of that.
    records: Option<(Indexer, Vec<Noted>)>,
}

impl Open {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.out
            .write_all(bytes)
            .map_err(|e| Error::io(format_args!("writing {}", self.name), &e))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes a record without its note, which the index gets.
    fn record(&mut self, part: &[u8]) -> Result<()> {
        let broken = || Error::internal("a record without its note");
        let (rest, length) = part.split_last_chunk::<8>().ok_or_else(broken)?;
        let at = rest.len().checked_sub(u64::from_le_bytes(*length) as usize);
        let (record, note) = rest.split_at(at.ok_or_else(broken)?);
        let offset = self.written;
        self.put(record)?;
        if let Some((_, records)) = &mut self.records {
            records.push((offset, note.to_vec()));
        }
        Ok(())
    }

    fn pad(&mut self) -> Result<()> {
        let short = self.written.next_multiple_of(self.alignment) - self.written;
        self.put(&vec![0; short as usize])
    }

    fn literals(&mut self) -> Result<()> {
        while self.placed.last().is_some_and(|p| p.tensor.is_none()) {
            if let Some(placed) = self.placed.pop() {
                self.put(&placed.literal)?;
                self.pad()?;
            }
        }
        Ok(())
    }
}

/// Writes the files of a layout as their tensors arrive.
pub struct Sink {
    dir: PathBuf,
    waiting: std::vec::IntoIter<OutFile>,
    open: Option<Open>,
    done: Vec<Written>,
}

impl Sink {
    /// Writes into `dir`, which is created.
    pub fn new(dir: &Path, layout: Layout) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir.display(), &e))?;
        Ok(Self {
            dir: dir.to_owned(),
            waiting: layout.files.into_iter(),
            open: None,
            done: Vec::new(),
        })
    }

    /// Writes the entries of tensor `index`.
    pub fn put(&mut self, index: usize, parts: &[Vec<u8>]) -> Result<()> {
        self.advance()?;
        let Some(open) = &mut self.open else {
            return Err(Error::internal(format!(
                "tensor {index} arrived after the last planned entry"
            )));
        };
        let placed = open
            .placed
            .pop()
            .ok_or_else(|| Error::internal("no entry is waiting"))?;
        if open.records.is_some()
            && placed.tensor == Some(index)
            && let [part] = parts
        {
            return open.record(part);
        }
        let lengths_match = placed.entries.len() == parts.len()
            && placed
                .entries
                .iter()
                .zip(parts)
                .all(|(entry, part)| entry.bytes == part.len() as u64);
        if placed.tensor != Some(index) || !lengths_match {
            let names: Vec<_> = placed.entries.iter().map(|e| (&e.name, e.bytes)).collect();
            let got: Vec<_> = parts.iter().map(Vec::len).collect();
            return Err(Error::internal(format!(
                "planned {names:?}, tensor {index} came with lengths {got:?}"
            )));
        }
        for part in parts {
            open.put(part)?;
            open.pad()?;
        }
        Ok(())
    }

    /// Makes `self.open` a file that still waits for a tensor, writing whatever needs none on the way.
    fn advance(&mut self) -> Result<()> {
        loop {
            if let Some(open) = &mut self.open {
                open.literals()?;
                if !open.placed.is_empty() {
                    return Ok(());
                }
                self.close()?;
            }
            let Some(file) = self.waiting.next() else {
                return Ok(());
            };
            self.begin(file)?;
        }
    }

    fn begin(&mut self, file: OutFile) -> Result<()> {
        let path = self.dir.join(&file.name);
        let io = |e: std::io::Error| Error::io(format_args!("creating {}", file.name), &e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let out = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(io)?);
        let (name, planned) = (file.name, file.bytes);
        let mut open = Open {
            name,
            path,
            out,
            hash: Sha256::new(),
            written: 0,
            planned,
            alignment: 1,
            placed: Vec::new(),
            records: None,
        };
        match file.content {
            Content::Bytes(bytes) => open.put(&bytes)?,
            Content::Copy(_) => return Err(Error::internal("a copied file must be read by its layout")),
            Content::Tensors {
                header,
                mut placed,
                alignment,
            } => {
                open.put(&header)?;
                placed.reverse();
                open.placed = placed;
                open.alignment = alignment;
            }
            Content::Records {
                header,
                mut placed,
                index,
            } => {
                open.put(&header)?;
                placed.reverse();
                open.placed = placed;
                open.records = Some((index, Vec::new()));
            }
        }
        self.open = Some(open);
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let is_bound = open.records.is_some();
        if let Some((index, records)) = open.records.take() {
            open.put(&index(&records)?)?;
        }
        open.out
            .flush()
            .map_err(|e| Error::io(format_args!("writing {}", open.name), &e))?;
        if open.written > open.planned || (open.written < open.planned && !is_bound) {
            return Err(Error::internal(format!(
                "{}: {} bytes written, {} planned",
                open.name, open.written, open.planned
            )));
        }
        let sha256 = hex(&open.hash.finalize());
        self.done.push(Written {
            name: open.name,
            path: open.path,
            bytes: open.written,
            sha256,
        });
        Ok(())
    }

    /// Ends the last file and returns all of them.
    pub fn finish(mut self) -> Result<Vec<Written>> {
        self.advance()?;
        if let Some(open) = &self.open {
            return Err(Error::internal(format!(
                "{}: {} tensors never came",
                open.name,
                open.placed.len()
            )));
        }
        Ok(self.done)
    }
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
