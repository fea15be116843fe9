//! A copy of what comes in, kept where it came through: it is inspected there next, and need not be brought back.
//!
//! Owns: the file beside the cache, and when it is given up.
//! Must not know: segments; what the bytes are.
//! Invariant: nothing depends on it: where it cannot be written it is dropped, and only whole copies reach the cache.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::cache::settle;
use crate::blobs::layout::remove;
use crate::blobs::local::blocking;

/// A copy that is being written.
#[derive(Debug)]
pub(super) struct Tee {
    path: PathBuf,
    file: File,
    length: u64,
    /// Larger than this it is given up.
    most: u64,
    /// Disk space that it leaves.
    reserve: u64,
}

impl Tee {
    /// Goes on behind the first `length` bytes, if they are there.
    pub(super) fn open(path: &Path, length: u64, most: u64, reserve: u64) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        if file.metadata()?.len() < length || length > most {
            remove(path)?;
            return Ok(None);
        }
        file.set_len(length)?;
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            length,
            most,
            reserve,
        }))
    }

    /// Adds bytes; nothing is left of it where that fails.
    pub(super) async fn write(mut self, bytes: Bytes) -> Option<Self> {
        let path = self.path.clone();
        let written = blocking(move || {
            self.length += bytes.len() as u64;
            let free = fs4::available_space(&self.path)?;
            if self.length > self.most || free < self.reserve.saturating_add(bytes.len() as u64) {
                return Err(io::Error::from(io::ErrorKind::StorageFull).into());
            }
            self.file.write_all(&bytes)?;
            Ok(self)
        });
        match written.await {
            Ok(tee) => Some(tee),
            Err(error) => {
                tracing::debug!(%error, "no copy of an upload kept here; it is brought back when it is needed");
                let _gone = blocking(move || Ok(remove(&path)?)).await;
                None
            }
        }
    }

    /// Becomes the cached file of its digest, if it is whole.
    pub(super) async fn keep(self, digest: &str, bytes: u64) {
        let to = self.path.with_file_name(digest);
        let kept = blocking(move || {
            if self.length != bytes {
                return Ok(remove(&self.path)?);
            }
            self.file.sync_data()?;
            Ok(settle(&self.path, &to)?)
        });
        if let Err(error) = kept.await {
            tracing::debug!(%error, "no copy of an upload kept here; it is brought back when it is needed");
        }
    }

    /// Goes.
    pub(super) async fn drop_it(self) {
        let _gone = blocking(move || Ok(remove(&self.path)?)).await;
    }
}
