//! Weights that calibrated stages made, and what others must know of inputs, on disk until they are used.
//!
//! Owns: their files. Must not know: techniques.
//! Invariant: a file is whole or not there; what is read is what was put, to the bit.

mod stored;

use crate::error::{Error, Result};
use crate::plan::ImportancePlan;
use crate::techniques::Factors;
use crate::tensor::{DType, encode_dense};
use crate::weight::{Fisher, InputSquares, Scale, Weight};
use rayon::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A folder of weights by stage and tensor.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    pub(super) fn at(scratch: &Path) -> Self {
        Self {
            folder: scratch.join(super::resume::WEIGHTS),
        }
    }

    fn path(&self, stage: usize, tensor: usize) -> PathBuf {
        self.folder.join(format!("{stage}-{tensor}"))
    }

    pub(super) fn put(&self, stage: usize, tensor: usize, weight: &Weight) -> Result<()> {
        let parts = stored::parts(weight)?;
        self.write(&self.path(stage, tensor), parts)
    }

    fn write(&self, path: &Path, parts: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
        let part = path.with_extension("part");
        let io = |e: std::io::Error| Error::io("writing to scratch", &e);
        std::fs::create_dir_all(&self.folder).map_err(io)?;
        let mut file = std::fs::File::create(&part).map_err(io)?;
        for bytes in parts {
            file.write_all(&bytes).map_err(io)?;
        }
        drop(file);
        std::fs::rename(&part, path).map_err(io)
    }

    fn squares_path(&self, stage: usize, tensor: usize) -> PathBuf {
        self.folder.join(format!("{stage}-{tensor}-squares"))
    }

    /// Puts what was seen of a tensor's inputs: how many counts, counts, sums.
    pub(super) fn put_squares(&self, stage: usize, tensor: usize, squares: &InputSquares) -> Result<()> {
        let counts = (squares.counts.len() as u64).to_le_bytes().to_vec();
        let parts = [counts, bytes_of(&squares.counts), bytes_of(&squares.sums)];
        self.write(&self.squares_path(stage, tensor), parts)
    }

    pub(super) fn squares(&self, stage: usize, tensor: usize) -> Result<InputSquares> {
        let bytes = std::fs::read(self.squares_path(stage, tensor))
            .map_err(|e| Error::io("importance in scratch", &e))?;
        let broken = || Error::internal("importance in scratch is broken");
        let (count, rest) = bytes.split_first_chunk().ok_or_else(broken)?;
        let count = u64::from_le_bytes(*count) as usize;
        let mut counts = floats_of(rest);
        if count > counts.len() || rest.len() % 4 != 0 {
            return Err(broken());
        }
        let sums = counts.split_off(count);
        Ok(InputSquares { sums, counts })
    }

    /// Where a file of that name is.
    pub(super) fn named(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Names of the whole files of a stage, without its number.
    pub(super) fn names_of(&self, stage: usize) -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match std::fs::read_dir(&self.folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(names),
            entries => entries?,
        };
        let first = format!("{stage}-");
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let own = name.strip_prefix(&first).filter(|_| !name.ends_with(".part"));
            names.extend(own.map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Copies a file from elsewhere onto the shelf.
    pub(super) fn bring(&self, name: &str, from: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let part = self.folder.join(name).with_extension("part");
        let _old = std::fs::remove_file(&part);
        linked(from, &part)?;
        std::fs::rename(part, self.folder.join(name))
    }

    fn fisher_path(&self, stage: usize, tensor: usize) -> PathBuf {
        self.folder.join(format!("{stage}-{tensor}-fisher"))
    }

    /// Puts how much the output depends on a tensor's weights, and what its columns count by that.
    pub(super) fn put_fisher(&self, stage: usize, tensor: usize, fisher: &Fisher) -> Result<()> {
        let rows = (fisher.rows.len() as u64).to_le_bytes().to_vec();
        let parts = [rows, bytes_of(&fisher.rows), bytes_of(&fisher.cols)];
        self.write(&self.fisher_path(stage, tensor), parts)?;
        if let Some(each) = &fisher.each {
            let mut bytes = Vec::new();
            if !encode_dense(DType::BF16, each, &mut bytes) {
                return Err(Error::internal("bf16 is no plain type"));
            }
            self.write(&self.diagonal_path(stage, tensor), [bytes])?;
        }
        let squares = InputSquares {
            sums: fisher.importance(),
            counts: vec![1.0],
        };
        self.put_squares(stage, tensor, &squares)
    }

    pub(super) fn fisher(&self, stage: usize, tensor: usize) -> Result<Fisher> {
        let path = self.fisher_path(stage, tensor);
        let bytes = std::fs::read(path).map_err(|e| Error::io("gradients in scratch", &e))?;
        let broken = || Error::internal("gradients in scratch are broken");
        let (count, rest) = bytes.split_first_chunk().ok_or_else(broken)?;
        let count = u64::from_le_bytes(*count) as usize;
        let mut rows = floats_of(rest);
        if count > rows.len() || rest.len() % 4 != 0 {
            return Err(broken());
        }
        let cols = rows.split_off(count);
        Ok(Fisher {
            rows,
            cols,
            each: None,
        })
    }

    fn diagonal_path(&self, stage: usize, tensor: usize) -> PathBuf {
        self.folder.join(format!("{stage}-{tensor}-diagonal"))
    }

    /// How much the output depends on each weight of a tensor, rounded to bf16: it only ranks them.
    pub(super) fn diagonal(&self, stage: usize, tensor: usize) -> Result<Vec<f32>> {
        let path = self.diagonal_path(stage, tensor);
        let bytes = std::fs::read(path).map_err(|e| Error::io("gradients in scratch", &e))?;
        let halves = bytes.as_chunks::<2>().0.par_iter();
        Ok(halves
            .map(|half| f32::from_bits(u32::from(u16::from_le_bytes(*half)) << 16))
            .collect())
    }

    /// True where that of every tensor is there.
    pub(super) fn has_diagonals(&self, stage: usize, importance: &ImportancePlan) -> bool {
        let there = |tensor: &usize| self.diagonal_path(stage, *tensor).is_file();
        importance.tensors.iter().all(there)
    }

    /// True where what was seen of inputs is there, of all tensors that it is known of.
    pub(super) fn has_squares(&self, stage: usize, importance: &ImportancePlan) -> bool {
        let there = |tensor: &usize| self.squares_path(stage, *tensor).is_file();
        importance.tensors.iter().all(there)
    }

    fn list_path(&self, stage: usize, name: &str) -> PathBuf {
        self.folder.join(format!("{stage}-list-{name}"))
    }

    /// Puts a list that a stage found.
    pub(super) fn put_list(&self, stage: usize, name: &str, list: &[u32]) -> Result<()> {
        let bytes = list.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.write(&self.list_path(stage, name), [bytes])
    }

    pub(super) fn list(&self, stage: usize, name: &str) -> Result<Vec<u32>> {
        let path = self.list_path(stage, name);
        let bytes = std::fs::read(path).map_err(|e| Error::io("lists in scratch", &e))?;
        Ok(bytes
            .as_chunks()
            .0
            .iter()
            .map(|n| u32::from_le_bytes(*n))
            .collect())
    }

    fn share_path(&self, stage: usize, tensor: usize) -> PathBuf {
        self.folder.join(format!("{stage}-{tensor}-share"))
    }

    /// Puts the share of a tensor's weights that becomes zeros.
    pub(super) fn put_share(&self, stage: usize, tensor: usize, share: f64) -> Result<()> {
        self.write(&self.share_path(stage, tensor), [share.to_le_bytes().to_vec()])
    }

    pub(super) fn share(&self, stage: usize, tensor: usize) -> Result<f64> {
        let path = self.share_path(stage, tensor);
        let bytes = std::fs::read(path).map_err(|e| Error::io("shares in scratch", &e))?;
        let bytes = bytes
            .try_into()
            .map_err(|_short| Error::internal("a share in scratch is broken"))?;
        Ok(f64::from_le_bytes(bytes))
    }

    fn routed_path(&self, stage: usize, block: usize) -> PathBuf {
        self.folder.join(format!("{stage}-routed-{block}"))
    }

    /// Puts how many tokens went to each expert of a block; nothing for a block without experts.
    pub(super) fn put_routed(&self, stage: usize, block: usize, tokens: &[u64]) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let bytes = tokens.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.write(&self.routed_path(stage, block), [bytes])
    }

    pub(super) fn routed(&self, stage: usize, block: usize) -> Result<Vec<u64>> {
        match std::fs::read(self.routed_path(stage, block)) {
            Ok(bytes) => Ok(bytes
                .as_chunks()
                .0
                .iter()
                .map(|n| u64::from_le_bytes(*n))
                .collect()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(Error::io("tokens of experts in scratch", &e)),
        }
    }

    fn scale_path(&self, stage: usize, tensor: usize, which: Scale) -> PathBuf {
        let name = match which {
            Scale::Input => "input",
            Scale::Cache => "cache",
        };
        self.folder.join(format!("{stage}-{tensor}-{name}-scale"))
    }

    /// A number that a stage found beside a tensor.
    pub(super) fn put_scale(&self, stage: usize, tensor: usize, which: Scale, scale: f32) -> Result<()> {
        let bytes = scale.to_le_bytes().to_vec();
        self.write(&self.scale_path(stage, tensor, which), [bytes])
    }

    pub(super) fn scale(&self, stage: usize, tensor: usize, which: Scale) -> Result<f32> {
        let bytes = std::fs::read(self.scale_path(stage, tensor, which))
            .map_err(|e| Error::io("a scale in scratch", &e))?;
        let bytes = bytes
            .as_array()
            .ok_or_else(|| Error::internal("a scale in scratch is broken"))?;
        Ok(f32::from_le_bytes(*bytes))
    }

    /// How a stage scaled a tensor.
    pub(super) fn put_factors(&self, stage: usize, tensor: usize, factors: &Factors) -> Result<()> {
        let io = |e: std::io::Error| Error::io("writing scales to scratch", &e);
        let path = self.path(stage, tensor).with_extension("factors");
        let part = path.with_extension("part");
        std::fs::create_dir_all(&self.folder).map_err(io)?;
        let mut bytes = (factors.rows.len() as u64).to_le_bytes().to_vec();
        bytes.extend(bytes_of(&factors.rows));
        bytes.extend(bytes_of(&factors.cols));
        std::fs::write(&part, bytes).map_err(io)?;
        std::fs::rename(&part, &path).map_err(io)
    }

    /// How a stage scaled a tensor, if it did.
    pub(super) fn factors(&self, stage: usize, tensor: usize) -> Result<Option<Factors>> {
        let bytes = match std::fs::read(self.path(stage, tensor).with_extension("factors")) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("scales in scratch", &e)),
        };
        let broken = || Error::internal("scales in scratch are broken");
        let (length, values) = bytes.split_first_chunk::<8>().ok_or_else(broken)?;
        let values: Vec<f32> = values
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        let rows = u64::from_le_bytes(*length) as usize;
        if rows > values.len() {
            return Err(broken());
        }
        let (rows, cols) = values.split_at(rows);
        Ok(Some(Factors {
            rows: rows.to_vec(),
            cols: cols.to_vec(),
        }))
    }

    pub(super) fn get(&self, stage: usize, tensor: usize) -> Result<Weight> {
        let bytes =
            std::fs::read(self.path(stage, tensor)).map_err(|e| Error::io("a weight in scratch", &e))?;
        stored::weight(&bytes)
    }
}

/// The same bytes under another name, where the file system can; a copy elsewhere. Neither is ever changed.
pub(super) fn linked(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(drop))
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    let numbers = bytes.as_chunks::<4>().0.iter();
    numbers.map(|b| f32::from_le_bytes(*b)).collect()
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
