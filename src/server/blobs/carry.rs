//! Blobs from one folder to another, as backups need them.
//!
//! Owns: copying a blob and checking what was copied; removing what a copy does not need any more.
//! Must not know: why one is wanted.
//! Invariant: a blob that arrives has the digest that is its name, whatever the disk gave for it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use super::layout::{Layout, remove, unhex};
use super::shelf::{copy_as, locate};
use crate::domain::ports::{BlobError, Hash};

/// How a blob came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// So many bytes were copied.
    Copied(u64),
    /// It was there already.
    Known,
    /// The bytes are in a file outside the store: only the note of where came over.
    Outside,
}

/// Two folders of blobs.
#[derive(Debug)]
pub struct Carrier {
    from: Layout,
    to: Layout,
}

impl Carrier {
    /// From one to the other, which is created.
    pub fn open(from: &Path, to: &Path) -> io::Result<Self> {
        Ok(Self {
            from: Layout::open(from)?,
            to: Layout::open(to)?,
        })
    }

    /// Brings a blob over.
    pub fn carry(&self, digest: &str) -> Result<Carried, BlobError> {
        // First of all: whatever stands in a database, only a digest becomes a path.
        let hash: Option<Hash> = unhex(digest).and_then(|bytes| bytes.try_into().ok());
        let hash = hash.ok_or(BlobError::NotFound)?;
        if self.to.blob(digest).is_file() {
            return Ok(Carried::Known);
        }
        let source = self.from.blob(digest);
        if !source.is_file() {
            return self.note(digest);
        }
        let key = format!("carry-{}", uuid::Uuid::now_v7().simple());
        let copied = copy_as(&self.to, &key, &source, Some(hash));
        remove(&self.to.upload(&key))?;
        Ok(Carried::Copied(copied?.bytes))
    }

    fn note(&self, digest: &str) -> Result<Carried, BlobError> {
        let note = fs::read(self.from.reference(digest))?;
        let to = self.to.reference(digest);
        fs::create_dir_all(to.parent().unwrap_or(self.to.root()))?;
        self.to.write_whole(&to, &note)?;
        Ok(Carried::Outside)
    }

    /// Removes from the target what is not among these; says how many.
    pub fn drop_others(&self, wanted: &HashSet<&str>) -> io::Result<usize> {
        let mut dropped = 0;
        for folder in fs::read_dir(self.to.blobs())? {
            for file in fs::read_dir(folder?.path())? {
                let path = file?.path();
                let digest = path.file_stem().and_then(|name| name.to_str());
                if !digest.is_some_and(|digest| wanted.contains(digest)) {
                    remove(&path)?;
                    dropped += 1;
                }
            }
        }
        Ok(dropped)
    }
}

/// The blobs of these that are not there, or not of their size, or stood for by a file that has changed.
pub fn missing(root: &Path, wanted: &[(String, u64)]) -> io::Result<Vec<String>> {
    let layout = Layout::open(root)?;
    let there = |digest: &str, bytes: u64| {
        let path = locate(&layout, digest).ok()?;
        (fs::metadata(path).ok()?.len() == bytes).then_some(())
    };
    let lost = wanted
        .iter()
        .filter(|(digest, bytes)| there(digest, *bytes).is_none());
    Ok(lost.map(|(digest, _)| digest.clone()).collect())
}
