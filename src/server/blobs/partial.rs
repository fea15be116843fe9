//! An upload that is not complete: its data file and the durable note of how far it got.
//!
//! Owns: `uploads/<key>/{data,state}`, the saved hash state, truncation after a crash.
//! Must not know: the network; who may write.
//! Invariant: the offset in `state` is durable in `data`; bytes past it are dropped when it is opened again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};

use super::direct::{BLOCK, Direct};
use super::layout::{Layout, hex, remove, sync_folder, unhex};
use super::promised::Promise;
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
    past_cache: PastCache,
    /// The room that it has; where nobody asked, as much as there is.
    promise: Option<Promise>,
}

/// Whether large batches go past the page cache.
#[derive(Debug)]
enum PastCache {
    /// Not yet: what is small is read again soon, and the cache is the place for it.
    Later,
    Now(Direct),
    /// The file system cannot.
    Never,
}

/// Where writing past the cache begins.
const CACHED_BYTES: u64 = 64 << 20;

/// Batches from this size on are worth a thread of their own for the hash.
const PARALLEL_BYTES: usize = 256 << 10;

/// Written bytes after which writeback is started, so that the last fsync has little left to do.
const WRITEBACK_BYTES: u64 = 16 << 20;

impl Partial {
    /// A new, empty upload.
    pub(super) fn create(layout: &Layout, key: &str) -> io::Result<Self> {
        let partial = Self::create_transient(layout, key)?;
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
            past_cache: PastCache::Later,
            promise: None,
        })
    }

    /// An earlier upload, at its last durable offset.
    pub(super) fn resume(layout: &Layout, key: &str) -> io::Result<Self> {
        let folder = layout.upload(key);
        let note = read_note(layout, key)?;
        let file = OpenOptions::new().write(true).open(folder.join("data"))?;
        let length = file.metadata()?.len();
        if length < note.offset {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "data is shorter than its note says",
            ));
        }
        // One that is a blob by now is not touched: its time tells whose publication it is.
        if length > note.offset {
            file.set_len(note.offset)?;
        }
        let hasher = restore(&note.hash_state)?;
        Ok(Self {
            layout: layout.clone(),
            key: key.to_owned(),
            file,
            hasher,
            offset: note.offset,
            started: note.offset,
            past_cache: PastCache::Later,
            promise: None,
        })
    }

    /// The same, within room that was promised.
    pub(super) fn within(self, promise: Promise) -> Self {
        Self {
            promise: Some(promise),
            ..self
        }
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
        if let Some(promise) = &mut self.promise {
            promise.cover(bytes as u64)?;
        }
        if bytes < PARALLEL_BYTES {
            for chunk in chunks {
                self.hasher.update(chunk);
            }
            self.write_cached(chunks, 0)?;
        } else {
            let mut hasher = std::mem::take(&mut self.hasher);
            self.hasher = std::thread::scope(|scope| {
                let hashing = scope.spawn(move || {
                    for chunk in chunks {
                        hasher.update(chunk);
                    }
                    hasher
                });
                let done = self.write_past_cache(chunks, bytes)?;
                self.write_cached(chunks, done)?;
                hashing
                    .join()
                    .map_err(|_panic| io::Error::other("hashing panicked"))
            })?;
        }
        self.offset += bytes as u64;
        if let Some(promise) = &mut self.promise {
            promise.kept(bytes as u64);
        }
        self.start_writeback();
        Ok(())
    }

    /// Writes whole blocks past the cache where that is possible; gives how many bytes it wrote.
    fn write_past_cache(&mut self, chunks: &[Bytes], bytes: usize) -> io::Result<usize> {
        if matches!(self.past_cache, PastCache::Later) && self.offset >= CACHED_BYTES {
            let path = self.layout.upload(&self.key).join("data");
            self.past_cache = Direct::open(&path).map_or(PastCache::Never, PastCache::Now);
        }
        let PastCache::Now(direct) = &mut self.past_cache else {
            return Ok(0);
        };
        if !self.offset.is_multiple_of(BLOCK as u64) {
            return Ok(0);
        }
        let whole = bytes - bytes % BLOCK;
        match direct.write(chunks, whole, self.offset) {
            Ok(()) => Ok(whole),
            // Opened, but larger blocks are asked for, or none of this is.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.past_cache = PastCache::Never;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes all but the first `done` bytes of the chunks.
    fn write_cached(&self, chunks: &[Bytes], mut done: usize) -> io::Result<()> {
        let mut at = self.offset + done as u64;
        for chunk in chunks {
            let skipped = done.min(chunk.len());
            done -= skipped;
            self.file.write_all_at(&chunk[skipped..], at)?;
            at += (chunk.len() - skipped) as u64;
        }
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

    /// Whether these very bytes are a blob by now: then none may follow.
    pub(super) fn is_published(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(self.file.metadata()?.nlink() > 1)
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

impl Sealed {
    /// The same bytes by a second name, so that the upload keeps them when this one becomes a blob. Where a file has one
    /// name only, that one.
    pub(super) fn linked(self) -> io::Result<Self> {
        let path = self.path.with_extension("link");
        remove(&path)?;
        if let Err(error) = fs::hard_link(&self.path, &path) {
            tracing::debug!(%error, "no second name for an upload's bytes");
            return Ok(self);
        }
        Ok(Self { path, ..self })
    }
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

/// The hash as it was saved.
pub(super) fn restore(hash_state: &str) -> io::Result<Sha256> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "saved hash state is damaged");
    let raw = unhex(hash_state).ok_or_else(wrong)?;
    let state = raw.as_slice().try_into().map_err(|_e| wrong())?;
    Sha256::deserialize(state).map_err(|_e| wrong())
}
