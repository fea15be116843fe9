//! Blobs at rest: publishing, finding, standing in for files outside, removing.
//!
//! Owns: the rules of the `blobs/` folder.
//! Must not know: uploads, async.
//! Invariant: a blob published within [`GRACE`] is never removed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::layout::{Layout, hash_file, hex, is_digest, remove};
use super::partial::{Partial, Sealed};
use crate::domain::ports::{BlobError, Hash, Origin, Stored};

/// How long after its publication a blob is safe although no row refers to it:
/// longer than any request takes between publishing and writing its row.
pub(super) const GRACE: Duration = Duration::from_mins(15);

/// A file outside the store that stands for a blob.
#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    path: PathBuf,
    bytes: u64,
    modified_nanos: u128,
}

/// Verifies sealed bytes and gives them their name.
pub(super) fn publish(layout: &Layout, sealed: &Sealed, expected: Option<Hash>) -> Result<Stored, BlobError> {
    let digest = hex(&sealed.hash);
    if expected.is_some_and(|expected| expected != sealed.hash) {
        return Err(BlobError::DigestMismatch { actual: digest });
    }
    // The grace counts from now, whenever the bytes were written.
    File::open(&sealed.path)?.set_modified(SystemTime::now())?;
    let was_there = layout.blob(&digest).is_file();
    let origin = if was_there {
        None
    } else {
        Some(origin(&sealed.path)?)
    };
    layout.publish(&sealed.path, &digest)?;
    Ok(Stored {
        digest,
        bytes: sealed.bytes,
        origin,
    })
}

/// Takes a publication back if the file is still the one it made.
pub(super) fn revoke(layout: &Layout, stored: &Stored) -> Result<(), BlobError> {
    for path in [layout.reference(&stored.digest), layout.blob(&stored.digest)] {
        if stored.origin.is_some() && origin(&path).ok() == stored.origin {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Inode and modification time: another publication of the same bytes has others.
fn origin(path: &Path) -> io::Result<Origin> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata(path)?;
    let nanos = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    Ok(Origin(meta.ino(), nanos.unsigned_abs()))
}

/// Takes a finished file in: moved on the same disk, copied otherwise.
pub(super) fn take_file(layout: &Layout, path: &Path) -> Result<Stored, BlobError> {
    let (hash, bytes) = hash_file(path)?;
    File::open(path)?.sync_all()?;
    match publish(
        layout,
        &Sealed {
            path: path.to_owned(),
            hash,
            bytes,
        },
        None,
    ) {
        Err(BlobError::Io(error)) if error.kind() == io::ErrorKind::CrossesDevices => copy_in(layout, path),
        other => other,
    }
}

fn copy_in(layout: &Layout, from: &Path) -> Result<Stored, BlobError> {
    let key = format!("copy-{}", uuid::Uuid::now_v7().simple());
    let copied = copy_as(layout, &key, from, None);
    remove(&layout.upload(&key))?;
    let stored = copied?;
    remove(from)?;
    Ok(stored)
}

/// Copies bytes in and publishes them, if they are those that are expected.
pub(super) fn copy_as(
    layout: &Layout,
    key: &str,
    from: &Path,
    expected: Option<Hash>,
) -> Result<Stored, BlobError> {
    let mut partial = Partial::create_transient(layout, key)?;
    let mut file = File::open(from)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return publish(layout, &partial.seal()?, expected);
        }
        partial.write(&[Bytes::copy_from_slice(&buffer[..n])])?;
    }
}

/// Hashes a file outside and notes that it stands for the blob.
pub(super) fn adopt(layout: &Layout, path: PathBuf) -> Result<Stored, BlobError> {
    let before = fingerprint(&path)?;
    let (hash, bytes) = hash_file(&path)?;
    if fingerprint(&path)? != before {
        return Err(BlobError::SourceChanged(path));
    }
    let digest = hex(&hash);
    let note = layout.reference(&digest);
    let was_there = note.is_file() || layout.blob(&digest).is_file();
    if !layout.blob(&digest).is_file() {
        fs::create_dir_all(note.parent().unwrap_or(layout.root()))?;
        let reference = Reference {
            path,
            bytes: before.0,
            modified_nanos: before.1,
        };
        layout.write_whole(&note, &serde_json::to_vec(&reference).map_err(io::Error::from)?)?;
    }
    let origin = if was_there { None } else { Some(origin(&note)?) };
    Ok(Stored {
        digest,
        bytes,
        origin,
    })
}

/// The file that holds a blob.
pub(super) fn locate(layout: &Layout, digest: &str) -> Result<PathBuf, BlobError> {
    if !is_digest(digest) {
        return Err(BlobError::NotFound);
    }
    let own = layout.blob(digest);
    if own.is_file() {
        return Ok(own);
    }
    let text = fs::read(layout.reference(digest))?;
    let reference: Reference = serde_json::from_slice(&text).map_err(io::Error::from)?;
    match fingerprint(&reference.path) {
        Ok(now) if now == (reference.bytes, reference.modified_nanos) => Ok(reference.path),
        _ => Err(BlobError::SourceChanged(reference.path)),
    }
}

fn fingerprint(path: &Path) -> Result<(u64, u128), BlobError> {
    let meta = fs::metadata(path)?;
    let modified = meta
        .modified()?
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Ok((meta.len(), modified.as_nanos()))
}

/// Removes a blob, or the note that stands for it, unless it was published within `grace`.
pub(super) fn discard(layout: &Layout, digest: &str, grace: Duration) -> Result<(), BlobError> {
    for path in [layout.reference(digest), layout.blob(digest)] {
        if path.is_file() && is_older(&path, grace) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Digests of blobs published longer than `grace` ago.
pub(super) fn settled(layout: &Layout, grace: Duration) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(layout.blobs())? {
        for entry in fs::read_dir(folder?.path())? {
            let path = entry?.path();
            if is_older(&path, grace)
                && let Some(digest) = path.file_stem().and_then(|stem| stem.to_str())
            {
                found.push(digest.to_owned());
            }
        }
    }
    Ok(found)
}

/// Whether something was last modified longer than `age` ago; what is not there counts as old.
pub(super) fn is_older(path: &Path, age: Duration) -> bool {
    match fs::metadata(path).and_then(|meta| meta.modified()) {
        Ok(at) => at.elapsed().is_ok_and(|elapsed| elapsed > age),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
