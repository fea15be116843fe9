//! Writing bytes as segments: parts of fixed size, hash on the way, bounded memory.
//!
//! Owns: cutting bytes into parts and segments.
//! Must not know: where the bytes come from; who refers to a segment.
//! Invariant: of one body never more than two parts are in memory (one that fills, one that is sent): 32 MiB, however
//! large the body is. A segment that is listed is complete and durable.

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use tokio_util::task::AbortOnDropHandle;

use super::client::failed;
use super::labels::{Segment, Shelf};
use super::tee::Tee;
use crate::domain::ports::BlobError;

/// Bytes of a part; every part of an object but the last has as many.
pub(super) const PART: usize = 16 << 20;

/// Writes the segments of one intake.
#[derive(Debug)]
pub(super) struct Pen {
    shelf: Shelf,
    id: String,
    /// Where a segment ends.
    limit: u64,
    buffer: BytesMut,
    open: Option<Open>,
    /// Gets a copy of every part.
    pub(super) tee: Option<Tee>,
    /// Where the segment that is being written begins.
    begun_at: u64,
    /// What is durable.
    pub(super) segments: Vec<Segment>,
    /// Of every byte that was written.
    hasher: Sha256,
    /// Of those that are durable.
    sealed: Sha256,
    /// How many were written.
    pub(super) offset: u64,
}

/// A segment that is too large for one request.
#[derive(Debug)]
struct Open {
    name: String,
    upload: Box<dyn MultipartUpload>,
    sending: Option<AbortOnDropHandle<object_store::Result<()>>>,
    bytes: u64,
}

impl Open {
    /// Sends a part, when the one before has arrived.
    async fn send(&mut self, part: Bytes) -> Result<(), BlobError> {
        self.settle().await?;
        self.bytes += part.len() as u64;
        let sending = self.upload.put_part(part.into());
        self.sending = Some(AbortOnDropHandle::new(tokio::spawn(sending)));
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), BlobError> {
        match self.sending.take() {
            None => Ok(()),
            Some(sending) => sending.await.map_err(std::io::Error::other)?.map_err(failed),
        }
    }
}

impl Pen {
    /// A pen for bytes of which none is there yet.
    pub(super) fn new(shelf: &Shelf, id: &str, limit: u64) -> Self {
        Self {
            shelf: shelf.clone(),
            id: id.to_owned(),
            limit,
            buffer: BytesMut::new(),
            open: None,
            tee: None,
            begun_at: 0,
            segments: Vec::new(),
            hasher: Sha256::new(),
            sealed: Sha256::new(),
            offset: 0,
        }
    }

    /// Goes on behind what is durable.
    pub(super) fn resume(mut self, segments: Vec<Segment>, hasher: Sha256) -> Self {
        self.offset = segments.iter().map(|segment| segment.bytes).sum();
        self.begun_at = self.offset;
        self.segments = segments;
        self.sealed = hasher.clone();
        self.hasher = hasher;
        self
    }

    /// Takes the last segment off the list and begins the next one with its bytes: many small pieces do not become
    /// many small objects.
    pub(super) async fn reopen_small(&mut self) -> Result<Option<Segment>, BlobError> {
        let Some(last) = self.segments.pop_if(|last| last.bytes < PART as u64) else {
            return Ok(None);
        };
        let key = self.shelf.data(&self.id, &last.name);
        let object = self.shelf.store.get(&key).await.map_err(failed)?;
        self.buffer
            .extend_from_slice(&object.bytes().await.map_err(failed)?);
        self.begun_at -= last.bytes;
        Ok(Some(last))
    }

    /// Adds bytes; says whether a segment became durable.
    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<bool, BlobError> {
        let durable = self.segments.len();
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART - self.buffer.len()));
            self.hasher.update(now);
            self.offset += now.len() as u64;
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == PART {
                self.send().await?;
            }
        }
        Ok(self.segments.len() > durable)
    }

    async fn send(&mut self) -> Result<(), BlobError> {
        let part = std::mem::take(&mut self.buffer).freeze();
        self.copy(&part).await;
        let open = match self.open.take() {
            Some(open) => open,
            None => self.begin().await?,
        };
        let open = self.open.insert(open);
        open.send(part).await?;
        if open.bytes >= self.limit {
            self.close().await?;
        }
        Ok(())
    }

    async fn copy(&mut self, part: &Bytes) {
        if let Some(tee) = self.tee.take() {
            self.tee = tee.write(part.clone()).await;
        }
    }

    /// Where what is durable ends.
    pub(super) fn begun_at(&self) -> u64 {
        self.begun_at
    }

    async fn begin(&mut self) -> Result<Open, BlobError> {
        let name = name(self.begun_at);
        let key = self.shelf.data(&self.id, &name);
        let upload = self.shelf.store.put_multipart(&key).await;
        Ok(Open {
            name,
            upload: upload.map_err(failed)?,
            sending: None,
            bytes: 0,
        })
    }

    /// Makes everything that was written durable.
    pub(super) async fn close(&mut self) -> Result<(), BlobError> {
        let rest = std::mem::take(&mut self.buffer).freeze();
        self.copy(&rest).await;
        let segment = match self.open.as_mut() {
            None if rest.is_empty() => return Ok(()),
            None => {
                let segment = Segment {
                    name: name(self.begun_at),
                    bytes: rest.len() as u64,
                };
                let key = self.shelf.data(&self.id, &segment.name);
                self.shelf.store.put(&key, rest.into()).await.map_err(failed)?;
                segment
            }
            Some(open) => {
                if !rest.is_empty() {
                    open.send(rest).await?;
                }
                open.settle().await?;
                open.upload.complete().await.map_err(failed)?;
                Segment {
                    name: std::mem::take(&mut open.name),
                    bytes: open.bytes,
                }
            }
        };
        self.open = None;
        self.begun_at += segment.bytes;
        self.segments.push(segment);
        self.sealed = self.hasher.clone();
        Ok(())
    }

    /// The hash of what is durable.
    pub(super) fn sealed(&self) -> &Sha256 {
        &self.sealed
    }

    /// Gives up what is not durable yet.
    pub(super) async fn abort(&mut self) {
        self.buffer.clear();
        if let Some(mut open) = self.open.take() {
            drop(open.sending.take());
            if let Err(error) = open.upload.abort().await {
                tracing::debug!(%error, "parts of an upload not removed; the bucket's lifecycle rule will");
            }
        }
    }
}

/// A name that nobody else gives, in the order of the bytes.
fn name(begun_at: u64) -> String {
    format!("{begun_at:015}-{}", uuid::Uuid::now_v7().simple())
}
