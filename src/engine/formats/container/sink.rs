//! The one loop that writes an artifact.
//!
//! Owns: [`Sink`]. Must not know: any particular format.
//! Invariant: a file is written front to back, hashed on the way, and ends at exactly the planned length.

use super::{Content, Entry, Indexer, Layout, Noted, OutFile, Placed, Written};
use crate::digest::hex;
use crate::error::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

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

    fn begin(dir: &Path, file: OutFile) -> Result<Self> {
        let path = dir.join(&file.name);
        let io = |e: std::io::Error| Error::io(format_args!("creating {}", file.name), &e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let out = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(io)?);
        let (name, planned) = (file.name, file.bytes);
        let mut open = Self {
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
        Ok(open)
    }

    fn close(mut self) -> Result<Written> {
        let is_bound = self.records.is_some();
        if let Some((index, records)) = self.records.take() {
            self.put(&index(&records)?)?;
        }
        self.out
            .flush()
            .map_err(|e| Error::io(format_args!("writing {}", self.name), &e))?;
        if self.written > self.planned || (self.written < self.planned && !is_bound) {
            return Err(Error::internal(format!(
                "{}: {} bytes written, {} planned",
                self.name, self.written, self.planned
            )));
        }
        Ok(Written {
            name: self.name,
            path: self.path,
            bytes: self.written,
            sha256: hex(&self.hash.finalize()),
        })
    }
}

/// Files that are written one after the other.
#[derive(Default)]
struct Lane {
    /// Each with its place in the layout.
    waiting: VecDeque<(usize, OutFile)>,
    open: Option<(usize, Open)>,
    /// The last tensor that it is to get.
    last: Option<usize>,
}

impl Lane {
    /// Makes `self.open` a file that still waits for a tensor, writing whatever needs none on the way.
    fn advance(&mut self, dir: &Path, done: &mut Vec<(usize, Written)>) -> Result<()> {
        loop {
            if let Some((place, mut open)) = self.open.take() {
                open.literals()?;
                if !open.placed.is_empty() {
                    self.open = Some((place, open));
                    return Ok(());
                }
                done.push((place, open.close()?));
            }
            let Some((place, file)) = self.waiting.pop_front() else {
                return Ok(());
            };
            self.open = Some((place, Open::begin(dir, file)?));
        }
    }

    /// Writes the entries that are next, if they are this tensor's, and hands back what is left of its parts.
    fn put<'a>(&mut self, index: usize, parts: &'a [Vec<u8>]) -> Result<Option<&'a [Vec<u8>]>> {
        let Some((_, open)) = &mut self.open else {
            return Ok(None);
        };
        let Some(placed) = open.placed.pop_if(|placed| placed.tensor == Some(index)) else {
            return Ok(None);
        };
        if open.records.is_some()
            && let [part] = parts
        {
            open.record(part)?;
            return Ok(Some(&[]));
        }
        let (own, rest) = parts.split_at(placed.entries.len().min(parts.len()));
        let fits = |(entry, part): (&Entry, &Vec<u8>)| entry.bytes == part.len() as u64;
        if own.len() < placed.entries.len() || !placed.entries.iter().zip(own).all(fits) {
            return Err(unfit(index, &placed.entries, parts));
        }
        for part in own {
            open.put(part)?;
            open.pad()?;
        }
        Ok(Some(rest))
    }
}

fn unfit(index: usize, planned: &[Entry], parts: &[Vec<u8>]) -> Error {
    let names: Vec<_> = planned.iter().map(|e| (&e.name, e.bytes)).collect();
    let got: Vec<_> = parts.iter().map(Vec::len).collect();
    Error::internal(format!(
        "planned {names:?}, tensor {index} came with lengths {got:?}"
    ))
}

/// Writes the files of a layout as their tensors arrive: one after the other where they hold different tensors, beside each
/// other where they share some.
pub struct Sink {
    dir: PathBuf,
    lanes: Vec<Lane>,
    done: Vec<(usize, Written)>,
}

impl Sink {
    /// Writes into `dir`, which is created.
    pub fn new(dir: &Path, layout: Layout) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir.display(), &e))?;
        let mut lanes = vec![Lane::default()];
        for (place, file) in layout.files.into_iter().enumerate() {
            let own = || file.placed().iter().filter_map(|placed| placed.tensor);
            let (first, last) = (own().next(), own().next_back());
            let goes_behind = |lane: &Lane| first.is_none() || lane.last < first;
            let at = lanes.iter().position(goes_behind).unwrap_or(lanes.len());
            if at == lanes.len() {
                lanes.push(Lane::default());
            }
            lanes[at].last = last.or(lanes[at].last);
            lanes[at].waiting.push_back((place, file));
        }
        Ok(Self {
            dir: dir.to_owned(),
            lanes,
            done: Vec::new(),
        })
    }

    /// Writes the entries of tensor `index`.
    pub fn put(&mut self, index: usize, parts: &[Vec<u8>]) -> Result<()> {
        let (mut rest, mut is_wanted) = (parts, false);
        for lane in &mut self.lanes {
            lane.advance(&self.dir, &mut self.done)?;
            if let Some(left) = lane.put(index, rest)? {
                (rest, is_wanted) = (left, true);
            }
        }
        if is_wanted && rest.is_empty() {
            return Ok(());
        }
        let waiting = self.lanes.iter().filter_map(|lane| lane.open.as_ref());
        let next = waiting.filter_map(|(_, open)| open.placed.last());
        let next: Vec<Entry> = next.flat_map(|placed| placed.entries.clone()).collect();
        Err(unfit(index, &next, rest))
    }

    /// Ends the last files and returns all of them, as they are laid out.
    pub fn finish(mut self) -> Result<Vec<Written>> {
        for lane in &mut self.lanes {
            lane.advance(&self.dir, &mut self.done)?;
            if let Some((_, open)) = &lane.open {
                return Err(Error::internal(format!(
                    "{}: {} tensors never came",
                    open.name,
                    open.placed.len()
                )));
            }
        }
        self.done.sort_unstable_by_key(|(place, _)| *place);
        Ok(self.done.into_iter().map(|(_, written)| written).collect())
    }
}

#[cfg(test)]
mod tests;
