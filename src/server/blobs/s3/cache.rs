//! Blobs as local files: a folder of this machine that holds what was needed lately.
//!
//! Owns: bringing blobs in, checked by digest; which of them go when room is needed.
//! Must not know: what they are needed for.
//! Invariant: a file under its digest is complete and has that digest; one that is in use is not removed (who uses it
//! holds a lock on it, in whichever process of this machine); of two who ask for one blob, one brings it in.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};

use super::S3Blobs;
use super::tee::Tee;
use crate::blobs::layout::{hex, remove};
use crate::blobs::local::blocking;
use crate::domain::ports::{BlobError, LocalFile};

/// How a blob is named that is on its way.
const PART: &str = "part";
/// How often is looked whether another process has brought a blob in.
const LOOK: Duration = Duration::from_millis(200);
/// Age at which half a blob is nobody's any more.
const FORGOTTEN: Duration = Duration::from_hours(24);

/// The folder.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    most: u64,
    reserve: u64,
    gates: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// One at a time makes room.
    room: Arc<Mutex<()>>,
}

impl Cache {
    pub(super) fn open(folder: &Path, most: u64, reserve: u64) -> Result<Self, BlobError> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            most,
            reserve,
            gates: Mutex::default(),
            room: Arc::default(),
        })
    }

    /// A copy of what comes in under this identifier, behind its first `length` bytes; nothing where there is no room for
    /// it, or the bytes before are elsewhere.
    pub(super) async fn tee(&self, id: &str, length: u64, announced: Option<u64>) -> Option<Tee> {
        let path = self.folder.join(id).with_extension(PART);
        let (folder, room, most, reserve) = (self.folder.clone(), self.room.clone(), self.most, self.reserve);
        let more = announced.unwrap_or(0);
        let opened = blocking(move || {
            if length.saturating_add(more) > most {
                return Ok(None);
            }
            let _alone = room.lock().unwrap_or_else(PoisonError::into_inner);
            make_room(&folder, most, reserve, length + more, more)?;
            Ok(Tee::open(&path, length, most, reserve)?)
        });
        opened.await.ok().flatten()
    }

    /// The blob as a file.
    pub(super) async fn bring(&self, store: &S3Blobs, digest: &str) -> Result<LocalFile, BlobError> {
        // Checks also that the digest is one.
        let bytes = store.shelf.find(digest).await?.bytes;
        let gate = self.gate(digest);
        let turn = gate.lock().await;
        let brought = self.bring_in_turn(store, digest, bytes).await;
        drop(turn);
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&gate) == 2 {
            gates.remove(digest);
        }
        brought
    }

    async fn bring_in_turn(&self, store: &S3Blobs, digest: &str, bytes: u64) -> Result<LocalFile, BlobError> {
        let path = self.folder.join(digest);
        loop {
            let there = path.clone();
            if let Some(file) = blocking(move || Ok(hold(&there)?)).await? {
                return Ok(file);
            }
            let (part, whole) = (path.with_extension(PART), path.clone());
            let Some(part) = blocking(move || Ok(Part::open(&part, &whole)?)).await? else {
                // Another process brings it in.
                tokio::time::sleep(LOOK).await;
                continue;
            };
            self.fetch(store, digest, bytes, part).await?;
        }
    }

    /// Downloads what is missing. What is there stays for the next try, unless it is not what it should be.
    async fn fetch(&self, store: &S3Blobs, digest: &str, bytes: u64, part: Part) -> Result<(), BlobError> {
        let (folder, room, most, reserve) = (self.folder.clone(), self.room.clone(), self.most, self.reserve);
        let mut part = blocking(move || {
            let _alone = room.lock().unwrap_or_else(PoisonError::into_inner);
            let part = part.read(bytes)?;
            make_room(&folder, most, reserve, bytes, bytes - part.length)?;
            Ok(part)
        })
        .await?;
        let went_on = part.length > 0;
        let mut body = store.open_range(digest, part.length, bytes - part.length).await?;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| BlobError::Unavailable(error.to_string()))?;
            part = blocking(move || {
                part.write(&chunk)?;
                Ok(part)
            })
            .await?;
        }
        let (path, expected) = (self.folder.join(digest), digest.to_owned());
        blocking(move || match part.finish(&path, &expected) {
            // Begun by a process that died, perhaps with the machine: once more from the start.
            Err(_) if went_on => Ok(()),
            other => other,
        })
        .await
    }

    fn gate(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.entry(digest.to_owned()).or_default().clone()
    }
}

/// A blob on its way in; locked against other processes.
struct Part {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
}

impl Part {
    /// Nothing where another process has it, or has just finished it.
    fn open(path: &Path, whole: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        match file.try_lock() {
            Ok(()) if !whole.exists() && is_at(&file, path) => Ok(Some(Self {
                path: path.to_owned(),
                file,
                hasher: Sha256::new(),
                length: 0,
            })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Goes through what an earlier try left.
    fn read(mut self, most: u64) -> io::Result<Self> {
        if self.file.metadata()?.len() > most {
            self.file.set_len(0)?;
        }
        let mut file = &self.file;
        self.length = io::copy(&mut file, &mut Hashing(&mut self.hasher))?;
        Ok(self)
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.hasher.update(chunk);
        self.length += chunk.len() as u64;
        self.file.write_all(chunk)
    }

    fn finish(self, to: &Path, expected: &str) -> Result<(), BlobError> {
        let actual = hex(&self.hasher.finalize());
        if actual != expected {
            remove(&self.path)?;
            return Err(BlobError::DigestMismatch { actual });
        }
        self.file.sync_data()?;
        Ok(settle(&self.path, to)?)
    }
}

/// Gives a whole blob its name, unless it has one: who holds that file holds its name too.
pub(super) fn settle(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => remove(from),
    }
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file, kept from being removed; nothing if it is not there.
fn hold(path: &Path) -> io::Result<Option<LocalFile>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    file.lock_shared()?;
    // Removed between the two?
    if !is_at(&file, path) {
        return Ok(None);
    }
    // When it was needed last.
    file.set_modified(SystemTime::now())?;
    Ok(Some(LocalFile::held(path.to_owned(), file)))
}

fn is_at(file: &File, path: &Path) -> bool {
    let inode = |meta: io::Result<fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
    inode(fs::metadata(path)).is_some_and(|there| inode(file.metadata()) == Some(there))
}

/// Removes what was not needed for longest until a blob of `bytes`, of which `missing` are still to come, has room. Where
/// everything is in use, the bound gives way: a job that has begun needs its files.
fn make_room(folder: &Path, most: u64, reserve: u64, bytes: u64, missing: u64) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Ok(meta) = fs::metadata(&path) else { continue };
        entries.push((meta.modified()?, meta.len(), path));
    }
    entries.sort();
    let is_part = |path: &Path| path.extension().is_some_and(|end| end == PART);
    let mut kept: u64 = entries
        .iter()
        .filter(|entry| !is_part(&entry.2))
        .map(|entry| entry.1)
        .sum();
    let is_full = |kept: u64| -> io::Result<bool> {
        let free = fs4::available_space(folder)?;
        Ok(kept.saturating_add(bytes) > most || free < reserve.saturating_add(missing))
    };
    for (at, size, path) in entries {
        let is_forgotten = is_part(&path) && at.elapsed().is_ok_and(|age| age > FORGOTTEN);
        let goes = is_forgotten || (!is_part(&path) && is_full(kept)?);
        if goes && remove_unused(&path)? && !is_part(&path) {
            kept -= size;
        }
    }
    let free = fs4::available_space(folder)?;
    if free < reserve.saturating_add(missing) {
        let text = format!(
            "{free} bytes are free in {} where {missing} are needed",
            folder.display()
        );
        return Err(io::Error::new(io::ErrorKind::StorageFull, text));
    }
    Ok(())
}

/// Removes a file unless somebody holds it.
fn remove_unused(path: &Path) -> io::Result<bool> {
    let Ok(file) = File::open(path) else {
        return Ok(false);
    };
    match file.try_lock() {
        Ok(()) => remove(path).map(|()| true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_needed_for_longest_goes_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().expect("temp folder");
        let at = |name: &str| folder.path().join(name);
        for (age, name) in [(30, "old"), (20, "held"), (10, "new")] {
            fs::write(at(name), [0; 100]).expect("written");
            let file = File::open(at(name)).expect("opens");
            file.set_modified(SystemTime::now() - Duration::from_mins(age))
                .expect("ages");
        }
        fs::write(at("x.part"), [0; 100]).expect("written");
        let held = hold(&at("held")).expect("works").expect("is there");
        File::open(&*held)
            .expect("opens")
            .set_modified(SystemTime::now() - Duration::from_hours(9))
            .expect("ages");
        make_room(folder.path(), 300, 0, 100, 100).expect("room");
        assert!(!at("old").exists() && held.exists() && at("new").exists() && at("x.part").exists());
        make_room(folder.path(), 150, 0, 100, 100).expect("room, past the bound");
        assert!(held.exists() && !at("new").exists());
        drop(held);
        make_room(folder.path(), 100, 0, 100, 100).expect("room");
        assert!(!at("held").exists());
        let full = make_room(folder.path(), 100, u64::MAX, 100, 100).expect_err("no disk has that");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }
}
