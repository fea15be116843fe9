//! The blob store on a local folder.
//!
//! Owns: intake of whole bodies, range reads, the way from async callers to blocking work.
//! Must not know: which object a blob belongs to.
//! Invariant: after a refused or broken intake nothing of it is left, even when the caller is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::intake::{self, Cut, Keep};
use super::layout::{Layout, ONE_GO, remove};
use super::partial::{Partial, check_space};
use super::promised::{Promise, Promised};
use super::shelf::{self, GRACE};
use super::turns::Turns;
use crate::domain::ports::{BlobError, BlobReply, Blobs, Body, Bounds, Hash, LocalFile, Stored};

/// Free bytes below which the disk counts as full: a few rows and notes must still fit.
const PROBE_BYTES: u64 = 1 << 20;
/// Bytes read from disk at once.
const READ_BYTES: usize = 512 << 10;

/// The store.
#[derive(Debug, Clone)]
pub struct LocalBlobs {
    pub(super) layout: Layout,
    pub(super) turns: Turns,
    pub(super) promised: Promised,
    pub(super) grace: Duration,
}

impl LocalBlobs {
    /// Opens (and if needed creates) the store.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self {
            layout: Layout::open(root)?,
            turns: Turns::default(),
            promised: Promised::default(),
            grace: GRACE,
        })
    }

    async fn put_as(
        &self,
        key: String,
        body: Body,
        bounds: Bounds,
        expected: Option<Hash>,
    ) -> Result<Stored, BlobError> {
        let (layout, promised) = (self.layout.clone(), self.promised.clone());
        let partial = blocking(move || {
            let promise = admit(&layout, &promised, 0, &bounds)?;
            Ok(Partial::create_transient(&layout, &key)?.within(promise))
        })
        .await?;
        let never = CancellationToken::new();
        let (partial, end) = intake::take(partial, body, bounds, Keep::Transient, &never).await;
        end.map_err(|cut| refusal(cut, &bounds))?;
        let partial = partial.ok_or(BlobError::NotFound)?;
        let layout = self.layout.clone();
        blocking(move || shelf::publish(&layout, &partial.seal()?, expected)).await
    }

    async fn open_range(&self, digest: &str, first: u64, length: u64) -> Result<Body, BlobError> {
        use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
        let mut file = tokio::fs::File::open(self.path(digest).await?).await?;
        file.set_max_buf_size(READ_BYTES);
        if first > 0 {
            file.seek(io::SeekFrom::Start(first)).await?;
        }
        Ok(tokio_util::io::ReaderStream::with_capacity(file.take(length), READ_BYTES).boxed())
    }
}

impl Blobs for LocalBlobs {
    fn put(&self, body: Body, bounds: Bounds, expected: Option<Hash>) -> BlobReply<'_, Stored> {
        let this = self.clone();
        // A task of its own: it ends in order even when the client goes away and the handler is dropped.
        on_task(async move {
            let key = format!("{}{}", ONE_GO, uuid::Uuid::now_v7().simple());
            let result = this.put_as(key.clone(), body, bounds, expected).await;
            blocking(move || Ok(remove(&this.layout.upload(&key))?)).await?;
            result
        })
        .boxed()
    }

    fn put_file(&self, path: PathBuf) -> BlobReply<'_, Stored> {
        let layout = self.layout.clone();
        blocking(move || shelf::take_file(&layout, &path)).boxed()
    }

    fn adopt(&self, path: PathBuf) -> BlobReply<'_, Stored> {
        let layout = self.layout.clone();
        blocking(move || shelf::adopt(&layout, path)).boxed()
    }

    fn path<'a>(&'a self, digest: &'a str) -> BlobReply<'a, LocalFile> {
        let (layout, digest) = (self.layout.clone(), digest.to_owned());
        blocking(move || Ok(shelf::locate(&layout, &digest)?.into())).boxed()
    }

    fn read<'a>(&'a self, digest: &'a str, first: u64, length: u64) -> BlobReply<'a, Body> {
        self.open_range(digest, first, length).boxed()
    }

    fn revoke(&self, stored: Stored) -> BlobReply<'_, ()> {
        let layout = self.layout.clone();
        blocking(move || shelf::revoke(&layout, &stored)).boxed()
    }

    fn discard<'a>(&'a self, digest: &'a str) -> BlobReply<'a, ()> {
        let (layout, digest, grace) = (self.layout.clone(), digest.to_owned(), self.grace);
        blocking(move || shelf::discard(&layout, &digest, grace)).boxed()
    }

    fn settled(&self) -> BlobReply<'_, Vec<String>> {
        let (layout, grace) = (self.layout.clone(), self.grace);
        blocking(move || Ok(shelf::settled(&layout, grace)?)).boxed()
    }

    fn probe(&self) -> BlobReply<'_, ()> {
        let layout = self.layout.clone();
        blocking(move || {
            check_space(&layout, PROBE_BYTES)?;
            let path = layout.root().join(".probe");
            fs::write(&path, b"")?;
            Ok(remove(&path)?)
        })
        .boxed()
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| BlobError::Io(io::Error::other(e)))?
}

pub(super) async fn on_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, BlobError>> + Send + 'static,
) -> Result<T, BlobError> {
    use tracing::Instrument as _;
    tokio::spawn(work.in_current_span())
        .await
        .map_err(|e| BlobError::Io(io::Error::other(e)))?
}

/// Refuses before the first byte what is too large or cannot fit.
pub(super) fn admit(
    layout: &Layout,
    promised: &Promised,
    offset: u64,
    bounds: &Bounds,
) -> Result<Promise, BlobError> {
    let more = bounds.announced.unwrap_or(0);
    if offset.saturating_add(more) > bounds.max_bytes {
        return Err(BlobError::TooLarge {
            max_bytes: bounds.max_bytes,
        });
    }
    Ok(promised.promise(layout, bounds.reserve_bytes, more)?)
}

pub(super) fn refusal(cut: Cut, bounds: &Bounds) -> BlobError {
    match cut {
        Cut::Body(detail) => BlobError::Truncated(detail),
        Cut::Idle => BlobError::Idle(bounds.idle),
        Cut::Slow => BlobError::Slow {
            least_bytes_per_second: bounds.least_bytes_per_second,
            over: bounds.idle,
        },
        Cut::TooLarge => BlobError::TooLarge {
            max_bytes: bounds.max_bytes,
        },
        Cut::Superseded => BlobError::Superseded,
        Cut::Disk(error) => error.into(),
    }
}
