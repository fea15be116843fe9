//! What the people who run a server do now and then: back it up, bring it back, look whether it is well.
//!
//! Owns: the order of the steps, and what a backup is.
//! Must not know: HTTP; how rows and blobs are kept.
//! Invariant: a running server is never disturbed.

pub mod backup;
mod bucket;
pub mod doctor;
pub mod restore;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::ports::{BlobError, StoreError};

/// Why upkeep failed.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// It cannot be done here; says what can.
    #[error("{0}")]
    Refused(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob.
    #[error("blob {0}: {1}")]
    Blob(String, BlobError),
    /// A file.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}

impl UpkeepError {
    fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |error| Self::Io(path.display().to_string(), error)
    }
}

/// The name of the file that says that a backup is complete.
const MANIFEST: &str = "modelpress-backup.json";
/// The database in a backup.
const DATABASE: &str = "modelpress.db";
/// The blobs in a backup.
const BLOBS: &str = "store";
/// What signs page cursors, in a backup and in a data folder.
const CURSOR_KEY: &str = "cursor.key";
/// What an installation made for itself and cannot make again, in a backup and in a data folder.
const KEYS: [&str; 2] = [CURSOR_KEY, crate::config::SIGNING_KEY];

/// What a backup holds. It is written last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub version: u32,
    /// The program that wrote it.
    pub modelpress: String,
    /// When the database was as it is in here, RFC 3339.
    pub created_at: String,
    /// Number of blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Blobs there are.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were copied this time.
    pub copied: u64,
    /// Blobs whose bytes lie outside the store.
    pub outside: u64,
}

/// Hears how far it is: bytes done, and all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// A copy that is durable.
fn copy(from: &Path, to: &Path) -> Result<(), UpkeepError> {
    let fail = UpkeepError::at(to);
    let done = || {
        std::fs::copy(from, to)?;
        std::fs::File::open(to)?.sync_all()
    };
    done().map_err(fail)
}
