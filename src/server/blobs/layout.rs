//! Where things lie on disk, and the few ways in which files appear and vanish.
//!
//! Owns: paths, temp + fsync + rename, folder fsync.
//! Must not know: where bytes come from.
//! Invariant: a name under `blobs/` or a `state` file appears with its full, durable content or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

pub(super) use crate::domain::model::hex;
use crate::domain::ports::Hash;

/// How the folder of a body begins that comes in one request: it has no row and no identifier.
pub(super) const ONE_GO: &str = "put-";

/// Whether it is such a folder.
pub(super) fn is_one_go(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(ONE_GO))
}

/// The folders of one store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Creates the folders.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        for folder in ["blobs", "uploads"] {
            fs::create_dir_all(root.join(folder))?;
        }
        sync_folder(root)?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// The blob's own file.
    pub(super) fn blob(&self, hex: &str) -> PathBuf {
        self.root
            .join("blobs")
            .join(hex.get(..2).unwrap_or("xx"))
            .join(hex)
    }

    /// The note that says which file outside holds the blob.
    pub(super) fn reference(&self, hex: &str) -> PathBuf {
        self.blob(hex).with_extension("ref")
    }

    /// The folder of an upload.
    pub(super) fn upload(&self, key: &str) -> PathBuf {
        self.root.join("uploads").join(key)
    }

    /// Moves a durable file to its blob name.
    pub(super) fn publish(&self, from: &Path, hex: &str) -> io::Result<()> {
        let to = self.blob(hex);
        let folder = to.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.blobs())?;
        }
        fs::rename(from, &to)?;
        sync_folder(folder)
    }

    /// Writes a small file durably in one step.
    pub(super) fn write_whole(&self, to: &Path, content: &[u8]) -> io::Result<()> {
        let folder = to.parent().unwrap_or(&self.root);
        let temp = to.with_extension("new");
        let mut file = File::create(&temp)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temp, to)?;
        sync_folder(folder)
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The bytes of a hexadecimal text.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}

/// Whatever stands in a database, only a digest becomes a path or a key.
pub(super) fn is_digest(text: &str) -> bool {
    unhex(text).is_some_and(|bytes| bytes.len() == size_of::<Hash>())
}

/// Hashes a file in large reads.
pub(super) fn hash_file(path: &Path) -> io::Result<(Hash, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let n = io::Read::read(&mut file, &mut buffer)?;
        if n == 0 {
            return Ok((hasher.finalize().into(), total));
        }
        hasher.update(&buffer[..n]);
        total += n as u64;
    }
}

/// Removes a file or folder that may already be gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
