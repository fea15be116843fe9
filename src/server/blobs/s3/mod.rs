//! The blob store in a bucket of an S3-compatible object store.
//!
//! Owns: intake of whole bodies and files, range reads, the probe.
//! Must not know: which object a blob belongs to.
//! Invariant: as on a local folder: a digest that is found has all its bytes, and after a refused or broken intake nothing
//! is found. What a process that died had in its hands is swept later.

mod cache;
mod client;
mod intake;
mod labels;
mod orphans;
mod pen;
mod tee;
mod uploads;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use object_store::{GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _, PutPayload};
use sha2::Digest as _;
use tokio_util::sync::CancellationToken;

use super::layout::hex;
use super::local::on_task;
use super::shelf::GRACE;
use super::turns::Turns;
use crate::domain::bucket::Bucket;
use crate::domain::ports::{BlobError, BlobReply, Blobs, Body, Bounds, Hash, LocalFile, Origin, Stored};
use cache::Cache;
use client::failed;
use labels::{Label, Shelf};
use pen::Pen;

pub use client::connect;
pub use orphans::look;

/// Where a segment of a body ends that comes in one go.
const BODY_SEGMENT: u64 = 1 << 30;
/// Where one of a local file ends: such a blob is a single object, but for the largest.
const FILE_SEGMENT: u64 = 64 << 30;
/// How often the probe writes; in between it reads.
const WRITE_AGAIN: Duration = Duration::from_mins(1);
/// Bytes read from a local file at once.
const READ_BYTES: usize = 256 << 10;

/// The store.
#[derive(Debug, Clone)]
pub struct S3Blobs {
    shelf: Shelf,
    cache: Arc<Cache>,
    turns: Turns,
    pub(super) grace: Duration,
    written: Arc<Mutex<Option<Instant>>>,
}

impl S3Blobs {
    /// Opens the store; nothing is asked of it yet. Blobs that are needed as files are brought into the folder `cache`, of
    /// which at most so many bytes are kept, and which leaves so many bytes free on its disk.
    pub fn open(
        bucket: &Bucket,
        cache: &Path,
        cache_bytes: u64,
        reserve_bytes: u64,
    ) -> Result<Self, BlobError> {
        Ok(Self {
            shelf: Shelf::new(client::connect(bucket)?, &bucket.prefix),
            cache: Arc::new(Cache::open(cache, cache_bytes, reserve_bytes)?),
            turns: Turns::default(),
            grace: GRACE,
            written: Arc::default(),
        })
    }

    async fn put_as(self, body: Body, bounds: Bounds, expected: Option<Hash>) -> Result<Stored, BlobError> {
        intake::admit(0, &bounds)?;
        let id = fresh();
        let mut pen = Pen::new(&self.shelf, &id, BODY_SEGMENT);
        pen.tee = self.cache.tee(&id, 0, bounds.announced).await;
        let never = CancellationToken::new();
        let done = match intake::take(&mut pen, body, bounds, &never, None).await {
            Ok(Ok(())) => pen.close().await,
            Ok(cut) => cut,
            Err(store) => Err(store),
        };
        self.end(&id, pen, done, expected).await
    }

    /// Publishes what came to something; of anything else nothing stays.
    async fn end(
        &self,
        id: &str,
        mut pen: Pen,
        done: Result<(), BlobError>,
        expected: Option<Hash>,
    ) -> Result<Stored, BlobError> {
        pen.abort().await;
        let tee = pen.tee.take();
        let published = match done.and_then(|()| label(id, pen, expected)) {
            Ok(label) => self.publish(label).await,
            Err(error) => Err(error),
        };
        match (tee, &published) {
            (Some(tee), Ok(stored)) => tee.keep(&stored.digest, stored.bytes).await,
            (Some(tee), Err(_)) => tee.drop_it().await,
            (None, _) => {}
        }
        if published.is_err()
            && let Err(error) = self.shelf.drop_data(id).await
        {
            tracing::warn!(%error, "bytes of a refused intake not removed; the sweep will");
        }
        published
    }

    async fn publish(&self, label: Label) -> Result<Stored, BlobError> {
        // Behind a body of hours a sweep may have taken its first segments for a dead process's.
        for segment in label.segments.iter().rev().skip(1) {
            let key = self.shelf.data(&label.id, &segment.name);
            self.shelf.store.head(&key).await.map_err(failed)?;
        }
        self.shelf.publish(&label).await?;
        stored(&label)
    }

    /// Stores a file as it is now, and leaves it where it is.
    async fn copy_in(&self, path: &Path) -> Result<Stored, BlobError> {
        use tokio::io::AsyncReadExt as _;
        let id = fresh();
        let mut pen = Pen::new(&self.shelf, &id, FILE_SEGMENT);
        let mut file = tokio::fs::File::open(path).await?;
        file.set_max_buf_size(READ_BYTES);
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let done = loop {
            buffer.clear();
            match file.read_buf(&mut buffer).await {
                Ok(0) => break pen.close().await,
                Ok(_) => {}
                Err(error) => break Err(error.into()),
            }
            if let Err(error) = pen.write(&buffer).await {
                break Err(error);
            }
        };
        self.end(&id, pen, done, None).await
    }

    async fn open_range(&self, digest: &str, first: u64, length: u64) -> Result<Body, BlobError> {
        match self
            .open_label(&*self.shelf.find(digest).await?, first, length)
            .await
        {
            // It was taken back, and another publication of the same bytes may be there.
            Err(BlobError::NotFound) => {
                self.shelf.forget(digest);
                self.open_label(&*self.shelf.find(digest).await?, first, length)
                    .await
            }
            other => other,
        }
    }

    /// Asks for the first piece now, so that what is not there is known before an answer begins.
    async fn open_label(&self, label: &Label, first: u64, length: u64) -> Result<Body, BlobError> {
        let mut pieces = pieces(label, first, length).into_iter();
        let Some(piece) = pieces.next() else {
            return Ok(stream::empty().boxed());
        };
        let begin = open_piece(self.shelf.clone(), label.id.clone(), piece).await?;
        let (shelf, id) = (self.shelf.clone(), label.id.clone());
        let rest = stream::iter(pieces)
            .then(move |piece| open_piece(shelf.clone(), id.clone(), piece))
            .map_err(std::io::Error::other)
            .try_flatten();
        Ok(begin.chain(rest).boxed())
    }

    async fn look_whether_it_works(&self) -> Result<(), BlobError> {
        let fresh = self.lock().is_some_and(|at| at.elapsed() < WRITE_AGAIN);
        let key = self.shelf.key("clock");
        if fresh {
            self.shelf.store.head(&key).await.map_err(failed)?;
            return Ok(());
        }
        let put = self.shelf.store.put(&key, PutPayload::from_static(b"now")).await;
        put.map_err(failed)?;
        *self.lock() = Some(Instant::now());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blobs for S3Blobs {
    fn put(&self, body: Body, bounds: Bounds, expected: Option<Hash>) -> BlobReply<'_, Stored> {
        // A task of its own: it ends in order even when the client goes away and the handler is dropped.
        on_task(self.clone().put_as(body, bounds, expected)).boxed()
    }

    fn put_file(&self, path: PathBuf) -> BlobReply<'_, Stored> {
        let this = self.clone();
        on_task(async move {
            let stored = this.copy_in(&path).await?;
            tokio::fs::remove_file(&path).await?;
            Ok(stored)
        })
        .boxed()
    }

    fn adopt(&self, path: PathBuf) -> BlobReply<'_, Stored> {
        let this = self.clone();
        on_task(async move {
            let before = tokio::fs::metadata(&path).await?;
            let stored = this.copy_in(&path).await?;
            let after = tokio::fs::metadata(&path).await?;
            if (before.len(), before.modified()?) == (after.len(), after.modified()?) {
                return Ok(stored);
            }
            this.revoke(stored).await?;
            Err(BlobError::SourceChanged(path))
        })
        .boxed()
    }

    fn path<'a>(&'a self, digest: &'a str) -> BlobReply<'a, LocalFile> {
        let (this, digest) = (self.clone(), digest.to_owned());
        // A task of its own: others may be waiting for the same bytes.
        on_task(async move { this.cache.bring(&this, &digest).await }).boxed()
    }

    fn read<'a>(&'a self, digest: &'a str, first: u64, length: u64) -> BlobReply<'a, Body> {
        self.open_range(digest, first, length).boxed()
    }

    fn revoke(&self, stored: Stored) -> BlobReply<'_, ()> {
        async move {
            let Some(Origin(_, number)) = stored.origin else {
                return Ok(());
            };
            let id = format!("{number:032x}");
            self.shelf.take_back(&stored.digest, stored.bytes, &id).await
        }
        .boxed()
    }

    fn discard<'a>(&'a self, digest: &'a str) -> BlobReply<'a, ()> {
        async move {
            let now = self.shelf.now().await?;
            for label in self.shelf.of(digest).await? {
                if label.is_settled(now, self.grace) {
                    self.shelf
                        .take_back(&label.digest, label.bytes, &label.id)
                        .await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn settled(&self) -> BlobReply<'_, Vec<String>> {
        async move {
            let now = self.shelf.now().await?;
            let labels = self.shelf.all().await?.into_iter();
            let settled = labels.filter(|label| label.is_settled(now, self.grace));
            let mut digests: Vec<String> = settled.map(|label| label.digest).collect();
            digests.dedup();
            Ok(digests)
        }
        .boxed()
    }

    fn probe(&self) -> BlobReply<'_, ()> {
        self.look_whether_it_works().boxed()
    }
}

/// The name of an intake.
fn fresh() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// The digest of everything that a pen wrote.
fn digest(pen: &Pen) -> String {
    hex(&pen.sealed().clone().finalize())
}

/// What the pen wrote, if it is what was expected.
fn label(id: &str, pen: Pen, expected: Option<Hash>) -> Result<Label, BlobError> {
    let hash: Hash = pen.sealed().clone().finalize().into();
    if expected.is_some_and(|expected| expected != hash) {
        return Err(BlobError::DigestMismatch { actual: hex(&hash) });
    }
    Ok(Label {
        digest: hex(&hash),
        bytes: pen.segments.iter().map(|segment| segment.bytes).sum(),
        id: id.to_owned(),
        segments: pen.segments,
    })
}

/// A publication is always its own, also where the same bytes were there before: to take it back is safe.
fn stored(label: &Label) -> Result<Stored, BlobError> {
    let number = u128::from_str_radix(&label.id, 16).map_err(std::io::Error::other)?;
    Ok(Stored {
        digest: label.digest.clone(),
        bytes: label.bytes,
        origin: Some(Origin(0, number)),
    })
}

/// A range of a segment.
type Piece = (String, std::ops::Range<u64>);

/// Which ranges of which segments a range of a blob is.
fn pieces(label: &Label, first: u64, length: u64) -> Vec<Piece> {
    let end = first.saturating_add(length).min(label.bytes);
    let mut at = 0;
    let mut pieces = Vec::new();
    for segment in &label.segments {
        let (from, to) = (first.max(at), end.min(at + segment.bytes));
        if from < to {
            pieces.push((segment.name.clone(), from - at..to - at));
        }
        at += segment.bytes;
    }
    pieces
}

async fn open_piece(shelf: Shelf, id: String, (name, range): Piece) -> Result<Body, BlobError> {
    let options = GetOptions {
        range: Some(GetRange::Bounded(range)),
        ..GetOptions::default()
    };
    let found = shelf
        .store
        .get_opts(&shelf.data(&id, &name), options)
        .await
        .map_err(failed)?;
    // A body that breaks off is gone on with behind what has come.
    Ok(found.into_stream().map_err(std::io::Error::other).boxed())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod piece_tests {
    use super::*;
    use labels::Segment;

    #[test]
    fn a_range_is_cut_where_segments_meet() {
        let segment = |name: &str, bytes| Segment {
            name: name.into(),
            bytes,
        };
        let label = Label {
            digest: String::new(),
            bytes: 12,
            id: String::new(),
            segments: vec![segment("a", 5), segment("b", 4), segment("c", 3)],
        };
        let of = |first, length| {
            let pieces = pieces(&label, first, length).into_iter();
            let shown = pieces.map(|(name, range)| format!("{name}{}-{}", range.start, range.end));
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(0, 12), "a0-5 b0-4 c0-3");
        assert_eq!(of(4, 6), "a4-5 b0-4 c0-1");
        assert_eq!(of(5, 4), "b0-4");
        assert_eq!(of(11, u64::MAX), "c2-3");
        assert_eq!(of(12, 1), "");
        assert_eq!(of(3, 0), "");
    }
}
