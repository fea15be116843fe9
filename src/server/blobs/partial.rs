//! An upload that is not complete: its data file and the durable note of how far it got.
//!
//! Owns: `uploads/<key>/{data,state}`, the saved hash state, truncation after a crash.
//! Must not know: the network; who may write.
//! Invariant: the offset in `state` is durable in `data`; bytes past it are dropped when it is opened again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};

use super::layout::{Layout, hex, sync_folder, unhex};
use crate::domain::ports::Hash;

/// The note: how far, and the hash up to there.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    offset: u64,
    hash_state: String,
}

/// An open partial upload. One exists per upload at a time: the caller holds its gate.
#[derive(Debug)]
pub(super) struct Partial {
    layout: Layout,
    key: String,
    file: File,
    hasher: Sha256,
    offset: u64,
    /// Writeback was started up to here.
    started: u64,
}

/// Batches from this size on are worth a thread of their own for the hash.
const PARALLEL_BYTES: usize = 256 << 10;

/// Written bytes after which writeback is started, so that the last fsync has little left to do.
const WRITEBACK_BYTES: u64 = 16 << 20;

impl Partial {
    /// A new, empty upload.
    pub(super) fn create(layout: &Layout, key: &str) -> io::Result<Self> {
        let folder = layout.upload(key);
        fs::create_dir(&folder)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(folder.join("data"))?;
        let partial = Self {
            layout: layout.clone(),
            key: key.to_owned(),
            file,
            hasher: Sha256::new(),
            offset: 0,
            started: 0,
        };
        partial.mark()?.write()?;
        sync_folder(&layout.uploads())?;
        Ok(partial)
    }

    /// An upload that never leaves this request: no note, nothing to resume.
    pub(super) fn create_transient(layout: &Layout, key: &str) -> io::Result<Self> {
        let folder = layout.upload(key);
        fs::create_dir(&folder)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(folder.join("data"))?;
        Ok(Self {
            layout: layout.clone(),
            key: key.to_owned(),
            file,
            hasher: Sha256::new(),
            offset: 0,
            started: 0,
        })
    }

    /// An earlier upload, at its last durable offset.
    pub(super) fn resume(layout: &Layout, key: &str) -> io::Result<Self> {
        let folder = layout.upload(key);
        let note = read_note(layout, key)?;
        let mut file = OpenOptions::new().write(true).open(folder.join("data"))?;
        if file.metadata()?.len() < note.offset {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "data is shorter than its note says",
            ));
        }
        file.set_len(note.offset)?;
        file.seek(SeekFrom::End(0))?;
        let hasher = restore(&note.hash_state)?;
        Ok(Self {
            layout: layout.clone(),
            key: key.to_owned(),
            file,
            hasher,
            offset: note.offset,
            started: note.offset,
        })
    }

    /// How many bytes are written.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends chunks. After an error the upload must be opened again.
    ///
    /// Hashing costs about as much as copying into the page cache, so large batches do both at once.
    pub(super) fn write(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        let (file, hasher) = (&mut self.file, &mut self.hasher);
        let mut write = || chunks.iter().try_for_each(|chunk| file.write_all(chunk));
        let mut hash = || chunks.iter().for_each(|chunk| hasher.update(chunk));
        if bytes < PARALLEL_BYTES {
            hash();
            write()?;
        } else {
            std::thread::scope(|scope| {
                scope.spawn(hash);
                write()
            })?;
        }
        self.offset += bytes as u64;
        self.start_writeback();
        Ok(())
    }

    /// Lets the kernel begin to write what is still only in memory, without waiting for it. (This advice is how
    /// Linux says it: pages that are dirty are queued for the disk, and being dirty they also stay cached.)
    fn start_writeback(&mut self) {
        use rustix::fs::{Advice, fadvise};
        let Some(length) = NonZeroU64::new(self.offset - self.started) else {
            return;
        };
        if length.get() >= WRITEBACK_BYTES {
            if let Err(error) = fadvise(&self.file, self.started, Some(length), Advice::DontNeed) {
                tracing::debug!(%error, "writeback not started early");
            }
            self.started = self.offset;
        }
    }

    /// The present position, to be made durable while writing goes on.
    pub(super) fn mark(&self) -> io::Result<Mark> {
        Ok(Mark {
            layout: self.layout.clone(),
            key: self.key.clone(),
            file: self.file.try_clone()?,
            note: Note {
                offset: self.offset,
                hash_state: hex(&self.hasher.serialize()),
            },
        })
    }

    /// Makes everything durable, note included.
    pub(super) fn save(&self) -> io::Result<()> {
        self.mark()?.write()
    }

    /// Makes the data durable and says what it is. The file still has its upload name.
    pub(super) fn seal(self) -> io::Result<Sealed> {
        self.file.sync_all()?;
        Ok(Sealed {
            path: self.layout.upload(&self.key).join("data"),
            hash: self.hasher.finalize().into(),
            bytes: self.offset,
        })
    }
}

/// Complete, durable bytes that wait for their final name.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) path: PathBuf,
    pub(super) hash: Hash,
    pub(super) bytes: u64,
}

/// A position on its way to being durable.
#[derive(Debug)]
pub(super) struct Mark {
    layout: Layout,
    key: String,
    file: File,
    note: Note,
}

impl Mark {
    /// Refuses to go on when the disk is down to its reserve.
    pub(super) fn check_space(&self, reserve_bytes: u64) -> io::Result<()> {
        check_space(&self.layout, reserve_bytes)
    }

    /// Data first, then the note that speaks of it.
    pub(super) fn write(&self) -> io::Result<()> {
        self.file.sync_data()?;
        let text = serde_json::to_vec(&self.note)?;
        self.layout
            .write_whole(&self.layout.upload(&self.key).join("state"), &text)
    }
}

/// Fails with `StorageFull` when fewer than `needed` bytes are free.
pub(super) fn check_space(layout: &Layout, needed: u64) -> io::Result<()> {
    let free = fs4::available_space(layout.root())?;
    if free < needed {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("{free} bytes are free where {needed} are needed"),
        ));
    }
    Ok(())
}

/// The last durable offset of an upload.
pub(super) fn durable_offset(layout: &Layout, key: &str) -> io::Result<u64> {
    Ok(read_note(layout, key)?.offset)
}

fn read_note(layout: &Layout, key: &str) -> io::Result<Note> {
    let text = fs::read(layout.upload(key).join("state"))?;
    Ok(serde_json::from_slice(&text)?)
}

fn restore(hash_state: &str) -> io::Result<Sha256> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "saved hash state is damaged");
    let raw = unhex(hash_state).ok_or_else(wrong)?;
    let state = raw.as_slice().try_into().map_err(|_e| wrong())?;
    Sha256::deserialize(state).map_err(|_e| wrong())
}
