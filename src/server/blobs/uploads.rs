//! Uploads by offset on the local store.
//!
//! Owns: resuming, finishing, abandoning.
//! Must not know: HTTP dialects of resumable uploads.
//! Invariant: nothing is read or written but in turn.

use std::fs;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::checksum::Checked;
use super::intake::{self, Keep};
use super::layout::{is_one_go, remove};
use super::local::{LocalBlobs, admit, blocking, on_task, refusal};
use super::partial::{Partial, durable_offset};
use super::shelf;
use super::turns::Turn;
use crate::domain::UploadId;
use crate::domain::ports::{BlobError, BlobReply, Body, Bounds, Checksum, Hash, Stored, Uploads};

impl LocalBlobs {
    async fn take_over(&self, key: &str) -> Result<Turn, BlobError> {
        if !self.layout.upload(key).is_dir() {
            return Err(BlobError::NotFound);
        }
        self.turns.take(key).await
    }

    async fn append_as(
        self,
        key: String,
        offset: u64,
        body: Body,
        bounds: Bounds,
        checksum: Option<Checksum>,
    ) -> Result<u64, BlobError> {
        let turn = self.take_over(&key).await?;
        let (layout, promised) = (self.layout.clone(), self.promised.clone());
        let (partial, bounds) = blocking(move || {
            let partial = Partial::resume(&layout, &key)?;
            if partial.offset() != offset {
                return Err(BlobError::OffsetMismatch {
                    actual: partial.offset(),
                });
            }
            let promise = admit(&layout, &promised, offset, &bounds)?;
            let bounds = if partial.is_published()? {
                Bounds {
                    max_bytes: offset,
                    ..bounds
                }
            } else {
                bounds
            };
            Ok((partial.within(promise), bounds))
        })
        .await?;
        // A piece with a checksum counts as a whole or not at all: until it is checked nothing says that it is there.
        let keep = if checksum.is_some() {
            Keep::Transient
        } else {
            Keep::Resumable
        };
        let mut body = Checked::new(body, checksum);
        let (partial, end) = intake::take(partial, &mut body, bounds, keep, &turn.stop).await;
        let holds = body.holds();
        let partial = partial.filter(|_| keep == Keep::Resumable || (end.is_ok() && holds));
        let reached = match partial {
            Some(partial) => blocking(move || Ok(partial.save().map(|()| partial.offset())?)).await?,
            None => offset,
        };
        drop(turn);
        end.map_err(|cut| refusal(cut, &bounds))?;
        if holds {
            Ok(reached)
        } else {
            Err(BlobError::ChecksumMismatch)
        }
    }

    async fn finish_as(self, key: String, expected: Option<Hash>) -> Result<Stored, BlobError> {
        let turn = self.take_over(&key).await?;
        let layout = self.layout.clone();
        let stored = blocking(move || {
            let sealed = Partial::resume(&layout, &key)?.seal()?.linked()?;
            shelf::publish(&layout, &sealed, expected)
        })
        .await;
        drop(turn);
        stored
    }
}

impl Uploads for LocalBlobs {
    fn begin(&self, id: UploadId) -> BlobReply<'_, ()> {
        let layout = self.layout.clone();
        blocking(move || Ok(Partial::create(&layout, &id.to_string()).map(drop)?)).boxed()
    }

    fn offset(&self, id: UploadId) -> BlobReply<'_, u64> {
        async move {
            let key = id.to_string();
            let turn = self.take_over(&key).await?;
            let layout = self.layout.clone();
            let offset = blocking(move || Ok(durable_offset(&layout, &key)?)).await;
            drop(turn);
            offset
        }
        .boxed()
    }

    fn append(
        &self,
        id: UploadId,
        offset: u64,
        body: Body,
        bounds: Bounds,
        checksum: Option<Checksum>,
    ) -> BlobReply<'_, u64> {
        let appended = self
            .clone()
            .append_as(id.to_string(), offset, body, bounds, checksum);
        on_task(appended).boxed()
    }

    fn finish(&self, id: UploadId, expected: Option<Hash>) -> BlobReply<'_, Stored> {
        on_task(self.clone().finish_as(id.to_string(), expected)).boxed()
    }

    fn abandon(&self, id: UploadId) -> BlobReply<'_, ()> {
        async move {
            let key = id.to_string();
            let turn = self.take_over(&key).await?;
            let (layout, owned) = (self.layout.clone(), key.clone());
            blocking(move || Ok(remove(&layout.upload(&owned))?)).await?;
            drop(turn);
            self.turns.forget(&key);
            Ok(())
        }
        .boxed()
    }

    fn room(&self, more: u64, reserve: u64) -> BlobReply<'_, ()> {
        let (layout, promised) = (self.layout.clone(), self.promised.clone());
        blocking(move || Ok(promised.promise(&layout, reserve, more).map(drop)?)).boxed()
    }

    fn remove_stale(&self, age: Duration) -> BlobReply<'_, usize> {
        let layout = self.layout.clone();
        blocking(move || {
            let mut removed = 0;
            for entry in fs::read_dir(layout.uploads())? {
                let folder = entry?.path();
                let age = if is_one_go(&folder) { age.min(DEAD) } else { age };
                if shelf::is_older(&folder.join("data"), age) && shelf::is_older(&folder, age) {
                    remove(&folder)?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .boxed()
    }
}

/// Silence after which a body that comes in one go has died with its process: nobody can resume it.
pub(super) const DEAD: Duration = Duration::from_hours(6);
