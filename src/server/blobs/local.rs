//! The blob store on a local folder.
//!
//! Owns: uploads by offset, publication by digest, references to files outside, range reads, deletion.
//! Must not know: which object a blob belongs to.
//! Invariant: one writer an upload: a newer request ends the older one before it reads the offset.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::intake::{self, Bounds, Cut, Keep};
use super::layout::{Hash, Layout, hash_file, hex, remove};
use super::partial::{Partial, Sealed, check_space, durable_offset};

/// A body on its way in.
pub type Body = BoxStream<'static, Result<Bytes, io::Error>>;

/// A complete blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256, lower-case hexadecimal.
    pub digest: String,
    /// Size.
    pub bytes: u64,
}

/// What the store refuses.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No such blob or upload.
    #[error("blob or upload not found")]
    NotFound,
    /// The bytes do not start where the upload stands.
    #[error("upload is at offset {actual}")]
    OffsetMismatch {
        /// Where it stands.
        actual: u64,
    },
    /// A newer request took the upload over.
    #[error("a newer request took the upload over")]
    Superseded,
    /// Larger than allowed.
    #[error("larger than {max_bytes} bytes")]
    TooLarge {
        /// The bound.
        max_bytes: u64,
    },
    /// The disk is full or down to its reserve.
    #[error("no disk space: {0}")]
    Full(io::Error),
    /// The client was silent.
    #[error("the client was silent for {0:?}")]
    Idle(Duration),
    /// The body broke off.
    #[error("the body broke off: {0}")]
    Truncated(String),
    /// Other bytes than promised.
    #[error("the bytes have the digest {actual}")]
    DigestMismatch {
        /// What they have.
        actual: String,
    },
    /// A file outside that was registered has changed since.
    #[error("{0} changed after it was registered")]
    SourceChanged(PathBuf),
    /// The disk failed.
    #[error("blob store: {0}")]
    Io(io::Error),
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            _ => Self::Io(error),
        }
    }
}

/// The store.
#[derive(Debug, Clone)]
pub struct LocalBlobs {
    layout: Layout,
    slots: Arc<Mutex<HashMap<String, Arc<Slot>>>>,
}

/// Who may write an upload.
#[derive(Debug, Default)]
struct Slot {
    current: Mutex<CancellationToken>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// The right to write an upload, until a newer request takes it.
struct Turn {
    stop: CancellationToken,
    _gate: OwnedMutexGuard<()>,
}

/// A file outside the store that stands for a blob.
#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    path: PathBuf,
    bytes: u64,
    modified_nanos: u128,
}

impl LocalBlobs {
    /// Opens (and if needed creates) the store.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self {
            layout: Layout::open(root)?,
            slots: Arc::default(),
        })
    }

    /// Takes a whole body in and publishes it. Whatever goes wrong, nothing of it stays.
    pub async fn put(
        &self,
        body: Body,
        announced: Option<u64>,
        bounds: Bounds,
        expected: Option<Hash>,
    ) -> Result<Stored, BlobError> {
        let this = self.clone();
        // A task of its own: it ends in order even when the client goes away and the handler is dropped.
        on_task(async move {
            let key = format!("put-{}", uuid::Uuid::now_v7().simple());
            let result = this.put_as(&key, body, announced, bounds, expected).await;
            let layout = this.layout.clone();
            blocking(move || Ok(remove(&layout.upload(&key))?)).await?;
            result
        })
        .await
    }

    async fn put_as(
        &self,
        key: &str,
        body: Body,
        announced: Option<u64>,
        bounds: Bounds,
        expected: Option<Hash>,
    ) -> Result<Stored, BlobError> {
        let (layout, key) = (self.layout.clone(), key.to_owned());
        let partial = blocking(move || {
            admit(&layout, announced, 0, &bounds)?;
            Ok(Partial::create_transient(&layout, &key)?)
        })
        .await?;
        let stop = CancellationToken::new();
        let (partial, end) = intake::take(partial, body, bounds, Keep::Transient, &stop).await;
        end.map_err(|cut| refusal(cut, &bounds))?;
        let partial = partial.ok_or(BlobError::NotFound)?;
        let layout = self.layout.clone();
        blocking(move || publish(&layout, &partial.seal()?, expected)).await
    }

    /// Publishes a file that this process wrote, by moving it when it is on the same disk.
    pub async fn put_file(&self, path: &Path) -> Result<Stored, BlobError> {
        let (layout, path) = (self.layout.clone(), path.to_owned());
        blocking(move || {
            let (hash, bytes) = hash_file(&path)?;
            fs::File::open(&path)?.sync_all()?;
            let (digest, sealed) = (
                hex(&hash),
                Sealed {
                    path: path.clone(),
                    hash,
                    bytes,
                },
            );
            match publish(&layout, &sealed, None) {
                Err(BlobError::Io(error)) if error.kind() == io::ErrorKind::CrossesDevices => {
                    copy_in(&layout, &path)?;
                    Ok(Stored { digest, bytes })
                }
                other => other,
            }
        })
        .await
    }

    /// Starts an upload under a name that the caller made up (letters, digits, `_`, `-`).
    pub async fn begin(&self, key: &str) -> Result<(), BlobError> {
        let (layout, key) = (self.layout.clone(), key.to_owned());
        blocking(move || Ok(Partial::create(&layout, &key).map(drop)?)).await
    }

    /// Where an upload stands; ends a request that is writing to it.
    pub async fn offset(&self, key: &str) -> Result<u64, BlobError> {
        let turn = self.take_over(key).await?;
        let (layout, key) = (self.layout.clone(), key.to_owned());
        let offset = blocking(move || Ok(durable_offset(&layout, &key)?)).await;
        drop(turn);
        offset
    }

    /// Appends a body at an offset. Returns the new, durable offset; what arrived before an error stays too.
    pub async fn append(
        &self,
        key: &str,
        offset: u64,
        body: Body,
        announced: Option<u64>,
        bounds: Bounds,
    ) -> Result<u64, BlobError> {
        let turn = self.take_over(key).await?;
        let (this, key) = (self.clone(), key.to_owned());
        on_task(async move {
            let layout = this.layout.clone();
            let partial = blocking(move || {
                let partial = Partial::resume(&layout, &key)?;
                if partial.offset() != offset {
                    return Err(BlobError::OffsetMismatch {
                        actual: partial.offset(),
                    });
                }
                admit(&layout, announced, offset, &bounds)?;
                Ok(partial)
            })
            .await?;
            let (partial, end) = intake::take(partial, body, bounds, Keep::Resumable, &turn.stop).await;
            let reached = match partial {
                Some(partial) => blocking(move || Ok(partial.save().map(|()| partial.offset())?)).await?,
                None => offset,
            };
            drop(turn);
            end.map(|()| reached).map_err(|cut| refusal(cut, &bounds))
        })
        .await
    }

    /// Ends an upload: verifies and publishes it.
    pub async fn finish(&self, key: &str, expected: Option<Hash>) -> Result<Stored, BlobError> {
        let turn = self.take_over(key).await?;
        let (layout, owned) = (self.layout.clone(), key.to_owned());
        let stored = blocking(move || {
            let stored = publish(&layout, &Partial::resume(&layout, &owned)?.seal()?, expected)?;
            remove(&layout.upload(&owned))?;
            Ok(stored)
        })
        .await?;
        drop(turn);
        self.forget(key);
        Ok(stored)
    }

    /// Deletes an upload that is not finished; ends a request that is writing to it.
    pub async fn abandon(&self, key: &str) -> Result<(), BlobError> {
        let turn = self.take_over(key).await?;
        let (layout, owned) = (self.layout.clone(), key.to_owned());
        blocking(move || Ok(remove(&layout.upload(&owned))?)).await?;
        drop(turn);
        self.forget(key);
        Ok(())
    }

    /// Lets a file outside stand for a blob: hashed now, checked for change whenever it is opened.
    pub async fn adopt(&self, path: &Path) -> Result<Stored, BlobError> {
        let (layout, path) = (self.layout.clone(), path.to_owned());
        blocking(move || {
            let before = fingerprint(&path)?;
            let (hash, bytes) = hash_file(&path)?;
            let digest = hex(&hash);
            if fingerprint(&path)? != before {
                return Err(BlobError::SourceChanged(path));
            }
            if !layout.blob(&digest).is_file() {
                let note = layout.reference(&digest);
                fs::create_dir_all(note.parent().unwrap_or(layout.root()))?;
                let reference = Reference {
                    path,
                    bytes: before.0,
                    modified_nanos: before.1,
                };
                let text = serde_json::to_vec(&reference).map_err(io::Error::from)?;
                layout.write_whole(&note, &text)?;
            }
            Ok(Stored { digest, bytes })
        })
        .await
    }

    /// The file that holds a blob.
    pub async fn path(&self, digest: &str) -> Result<PathBuf, BlobError> {
        let (layout, digest) = (self.layout.clone(), digest.to_owned());
        blocking(move || locate(&layout, &digest)).await
    }

    /// Reads `length` bytes from `first` on.
    pub async fn read(
        &self,
        digest: &str,
        first: u64,
        length: u64,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, BlobError> {
        use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
        let path = self.path(digest).await?;
        let mut file = tokio::fs::File::open(path).await?;
        file.set_max_buf_size(READ_BYTES);
        if first > 0 {
            file.seek(io::SeekFrom::Start(first)).await?;
        }
        Ok(tokio_util::io::ReaderStream::with_capacity(
            file.take(length),
            READ_BYTES,
        ))
    }

    /// Removes a blob (or the note that stands for it). A missing one is fine.
    pub async fn delete(&self, digest: &str) -> Result<(), BlobError> {
        let (layout, digest) = (self.layout.clone(), digest.to_owned());
        blocking(move || {
            remove(&layout.reference(&digest))?;
            Ok(remove(&layout.blob(&digest))?)
        })
        .await
    }

    /// Blobs last published longer than `age` ago: candidates for the sweep, never younger ones,
    /// because a row that will refer to them may still be on its way.
    pub async fn older_than(&self, age: Duration) -> Result<Vec<String>, BlobError> {
        let layout = self.layout.clone();
        blocking(move || Ok(aged(&layout.blobs(), 2, age)?)).await
    }

    /// Uploads not touched for longer than `age`.
    pub async fn uploads_older_than(&self, age: Duration) -> Result<Vec<String>, BlobError> {
        let layout = self.layout.clone();
        blocking(move || Ok(aged(&layout.uploads(), 1, age)?)).await
    }

    /// Writes and removes a small file: is the store usable?
    pub async fn probe(&self) -> Result<(), BlobError> {
        let layout = self.layout.clone();
        blocking(move || {
            let path = layout.root().join(".probe");
            fs::write(&path, b"")?;
            Ok(remove(&path)?)
        })
        .await
    }

    async fn take_over(&self, key: &str) -> Result<Turn, BlobError> {
        if !self.layout.upload(key).is_dir() {
            return Err(BlobError::NotFound);
        }
        let slot = lock(&self.slots).entry(key.to_owned()).or_default().clone();
        let stop = CancellationToken::new();
        std::mem::replace(&mut *lock(&slot.current), stop.clone()).cancel();
        let gate = slot.gate.clone().lock_owned().await;
        if stop.is_cancelled() {
            return Err(BlobError::Superseded);
        }
        Ok(Turn { stop, _gate: gate })
    }

    fn forget(&self, key: &str) {
        lock(&self.slots).remove(key);
    }
}

/// Bytes read from disk at once.
const READ_BYTES: usize = 512 << 10;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| BlobError::Io(io::Error::other(e)))?
}

async fn on_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, BlobError>> + Send + 'static,
) -> Result<T, BlobError> {
    use tracing::Instrument as _;
    tokio::spawn(work.in_current_span())
        .await
        .map_err(|e| BlobError::Io(io::Error::other(e)))?
}

fn admit(layout: &Layout, announced: Option<u64>, offset: u64, bounds: &Bounds) -> Result<(), BlobError> {
    let more = announced.unwrap_or(0);
    if offset.saturating_add(more) > bounds.max_bytes {
        return Err(BlobError::TooLarge {
            max_bytes: bounds.max_bytes,
        });
    }
    Ok(check_space(layout, bounds.reserve_bytes.saturating_add(more))?)
}

fn refusal(cut: Cut, bounds: &Bounds) -> BlobError {
    match cut {
        Cut::Body(detail) => BlobError::Truncated(detail),
        Cut::Idle => BlobError::Idle(bounds.idle),
        Cut::TooLarge => BlobError::TooLarge {
            max_bytes: bounds.max_bytes,
        },
        Cut::Superseded => BlobError::Superseded,
        Cut::Disk(error) => error.into(),
    }
}

fn publish(layout: &Layout, sealed: &Sealed, expected: Option<Hash>) -> Result<Stored, BlobError> {
    let digest = hex(&sealed.hash);
    if expected.is_some_and(|expected| expected != sealed.hash) {
        return Err(BlobError::DigestMismatch { actual: digest });
    }
    // The sweep spares what was published lately, whenever it was written.
    fs::File::open(&sealed.path)?.set_modified(SystemTime::now())?;
    layout.publish(&sealed.path, &digest)?;
    Ok(Stored {
        digest,
        bytes: sealed.bytes,
    })
}

fn copy_in(layout: &Layout, from: &Path) -> Result<(), BlobError> {
    let key = format!("copy-{}", uuid::Uuid::now_v7().simple());
    let mut partial = Partial::create_transient(layout, &key)?;
    let mut file = fs::File::open(from)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = io::Read::read(&mut file, &mut buffer)?;
        if n == 0 {
            break;
        }
        partial.write(&[Bytes::copy_from_slice(&buffer[..n])])?;
    }
    publish(layout, &partial.seal()?, None)?;
    remove(&layout.upload(&key))?;
    Ok(remove(from)?)
}

fn fingerprint(path: &Path) -> Result<(u64, u128), BlobError> {
    let meta = fs::metadata(path)?;
    let modified = meta
        .modified()?
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Ok((meta.len(), modified.as_nanos()))
}

fn locate(layout: &Layout, digest: &str) -> Result<PathBuf, BlobError> {
    let own = layout.blob(digest);
    if own.is_file() {
        return Ok(own);
    }
    let reference: Reference =
        serde_json::from_slice(&fs::read(layout.reference(digest))?).map_err(io::Error::from)?;
    match fingerprint(&reference.path) {
        Ok(now) if now == (reference.bytes, reference.modified_nanos) => Ok(reference.path),
        _ => Err(BlobError::SourceChanged(reference.path)),
    }
}

/// Names `depth` levels down whose file or folder was last modified longer than `age` ago.
fn aged(folder: &Path, depth: usize, age: Duration) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if depth > 1 {
            found.extend(aged(&entry.path(), depth - 1, age)?);
            continue;
        }
        let modified = entry.metadata().and_then(|meta| meta.modified());
        let old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|elapsed| elapsed > age));
        if old && let Some(stem) = entry.path().file_stem().and_then(|stem| stem.to_str()) {
            found.push(stem.to_owned());
        }
    }
    Ok(found)
}
