//! Packed files that are read.
//!
//! Owns: the index and where records lie; writing what they hold as a checkpoint. Must not know: how streams are coded.
//! Invariant: what is read has the digest that the index has of it.

use super::record::{Index, Record, decoded_bytes, unpack};
use super::{FILE, FOOTER, MAGIC, MAX_INDEX, VERSION};
use crate::checkpoint::{SourceFile, read_side_file};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::formats::container::{Entry, Layout, Sink, Written};
use crate::formats::{hf_output, shards};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A packed file that is read.
pub struct PackedFile {
    name: String,
    file: File,
    pub(super) records: Vec<Record>,
}

fn damaged(name: &str, what: impl std::fmt::Display) -> Error {
    Error::bad_input("invalid_packed_file", format!("{name}: {what}"))
}

/// Bytes of a file that stand for no more than so many each, beside what any file may hold: a tensor of one value has a
/// record of some twenty bytes.
const MOST_FOR_EACH: u64 = 4096;
const ANY_FILE: u64 = 64 << 20;

/// Refuses tensors that are more than a file of this length can stand for.
fn check_sizes(name: &str, records: &[Record], length: u64) -> Result<()> {
    let most = length.saturating_mul(MOST_FOR_EACH).saturating_add(ANY_FILE);
    let mut sum = 0u64;
    for record in records {
        let bytes = decoded_bytes(record)
            .map_err(|e| damaged(name, format_args!("{}: {}", record.name, e.message)))?;
        sum = sum.saturating_add(bytes as u64);
        if sum > most {
            let detail = format_args!("its tensors are too large for it, up to {}", record.name);
            return Err(damaged(name, detail));
        }
    }
    Ok(())
}

impl PackedFile {
    /// Reads the index and checks that every record lies within the file.
    pub fn open(source: &SourceFile) -> Result<Self> {
        let io = |e: std::io::Error| Error::io(&source.name, &e);
        let mut file = File::open(&source.path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut head = [0; 16];
        let mut foot = [0; 16];
        if length < 32 {
            return Err(damaged(&source.name, "it is too short"));
        }
        file.read_exact(&mut head).map_err(io)?;
        file.seek(SeekFrom::End(-16)).map_err(io)?;
        file.read_exact(&mut foot).map_err(io)?;
        let (size, end) = foot.split_at(8);
        let version = u64::from_le_bytes(head[8..].try_into().unwrap_or_default());
        if &head[..8] != MAGIC || end != MAGIC || !(1..=VERSION).contains(&version) {
            let detail = format_args!("it is no packed file of a version up to {VERSION}");
            return Err(damaged(&source.name, detail));
        }
        let size = u64::from_le_bytes(size.try_into().unwrap_or_default());
        if size > MAX_INDEX || size + 32 > length {
            return Err(damaged(
                &source.name,
                format_args!("its index claims {size} bytes"),
            ));
        }
        file.seek(SeekFrom::Start(length - FOOTER - size)).map_err(io)?;
        let mut index = vec![0; size as usize];
        file.read_exact(&mut index).map_err(io)?;
        let index: Index = serde_json::from_slice(&index).map_err(|e| damaged(&source.name, e))?;
        let within = |r: &&Record| {
            r.offset >= 16
                && r.offset
                    .checked_add(r.bytes)
                    .is_some_and(|end| end <= length - FOOTER - size)
        };
        if let Some(record) = index.tensors.iter().find(|r| !within(r)) {
            let detail = format_args!("the record of {} lies outside of it", record.name);
            return Err(damaged(&source.name, detail));
        }
        check_sizes(&source.name, &index.tensors, length)?;
        Ok(Self {
            name: source.name.clone(),
            file,
            records: index.tensors,
        })
    }

    /// Names, types and shapes of the tensors, and bytes of their records.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |r: &Record| Entry {
            name: r.name.clone(),
            dtype: r.dtype.clone(),
            shape: r.shape.clone(),
            bytes: r.bytes,
        };
        self.records.iter().map(entry).collect()
    }

    /// The bytes of a tensor, as its type stores them.
    pub fn read(&mut self, at: usize) -> Result<Vec<u8>> {
        let record = self.records[at].clone();
        let io = |e: std::io::Error| Error::io(&self.name, &e);
        let mut bytes = vec![0; record.bytes as usize];
        self.file.seek(SeekFrom::Start(record.offset)).map_err(io)?;
        self.file.read_exact(&mut bytes).map_err(io)?;
        let wrong = |e: Error| damaged(&self.name, format_args!("{}: {}", record.name, e.message));
        let values = unpack(&record, &bytes).map_err(wrong)?;
        if sha256(&values) == record.sha256 {
            Ok(values)
        } else {
            Err(damaged(
                &self.name,
                format_args!("{} does not decode to what was packed", record.name),
            ))
        }
    }

    pub(super) fn check(&mut self, at: usize) -> Result<Entry> {
        self.read(at)?;
        Ok(self.entries().swap_remove(at))
    }
}

/// Writes the checkpoint that a packed artifact holds into `out`: side files as they are, weights as safetensors. `stop` is
/// asked between tensors.
///
/// Errors: `packed_file_missing`, `invalid_packed_file`, `cancelled`.
pub fn unpack_to(files: &[SourceFile], out: &Path, stop: &dyn Fn() -> bool) -> Result<Vec<Written>> {
    let file = files.iter().find(|f| f.name == FILE);
    let file = file.ok_or_else(|| Error::bad_input("packed_file_missing", format!("there is no {FILE}")))?;
    let mut packed = PackedFile::open(file)?;
    let mut layout = Layout::default();
    for side in files.iter().filter(|f| hf_output::is_side_file(&f.name)) {
        layout.push_bytes(&side.name, read_side_file(side)?);
    }
    let bytes: Vec<usize> = packed.records.iter().map(decoded_bytes).collect::<Result<_>>()?;
    let entries = packed.entries();
    let parts = |at: usize| {
        vec![Entry {
            bytes: bytes[at] as u64,
            ..entries[at].clone()
        }]
    };
    shards::push(&mut layout, entries.len(), &parts);
    let mut sink = Sink::new(out, layout)?;
    for at in 0..entries.len() {
        if stop() {
            return Err(Error::cancelled());
        }
        sink.put(at, &[packed.read(at)?])?;
    }
    sink.finish()
}
