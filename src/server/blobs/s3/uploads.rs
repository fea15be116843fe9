//! Uploads by offset in an object store: any node of the server goes on with any upload.
//!
//! Owns: the object `uploads/<id>`, which says how far an upload is, and taking it over.
//! Must not know: HTTP dialects of resumable uploads.
//! Invariant: the offset in the object is durable in segments. It is only ever replaced by who read it last: of two nodes
//! with one upload the newer call goes on, and the older one's next note is refused.

use std::time::Duration;

use futures_util::FutureExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sha2::digest::common::hazmat::SerializableState as _;

use super::client::failed;
use super::intake::{admit, take};
use super::labels::{Segment, Shelf};
use super::pen::{PART, Pen};
use super::{S3Blobs, digest, label, orphans, stored};
use crate::blobs::checksum::Checked;
use crate::blobs::layout::hex;
use crate::blobs::local::on_task;
use crate::blobs::partial::restore;
use crate::blobs::turns::Turn;
use crate::domain::UploadId;
use crate::domain::ports::{BlobError, BlobReply, Body, Bounds, Checksum, Hash, Stored, Uploads};

/// Bytes after which the durable offset moves on while a piece comes in.
const SEGMENT: u64 = 16 * PART as u64;

/// How far an upload is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    offset: u64,
    hash_state: String,
    segments: Vec<Segment>,
    /// Whether it is published: then no bytes may follow.
    #[serde(default)]
    finished: bool,
    /// Who writes: fresh for every call that takes the upload over.
    turn: String,
}

/// A note, and the version of the object that holds it.
#[derive(Debug)]
pub(super) struct Standing {
    shelf: Shelf,
    id: String,
    note: Note,
    version: UpdateVersion,
}

impl Standing {
    async fn load(shelf: &Shelf, id: &str) -> Result<Self, BlobError> {
        let found = shelf
            .store
            .get(&shelf.key(&format!("uploads/{id}")))
            .await
            .map_err(failed)?;
        let version = UpdateVersion {
            e_tag: found.meta.e_tag.clone(),
            version: found.meta.version.clone(),
        };
        let text = found.bytes().await.map_err(failed)?;
        Ok(Self {
            shelf: shelf.clone(),
            id: id.to_owned(),
            note: serde_json::from_slice(&text).map_err(std::io::Error::from)?,
            version,
        })
    }

    /// Ends whoever wrote before, on this node or another.
    async fn claim(&mut self) -> Result<(), BlobError> {
        self.note.turn = uuid::Uuid::now_v7().simple().to_string();
        self.save().await
    }

    /// Moves the offset to the end of these segments.
    pub(super) async fn keep(&mut self, segments: &[Segment], hash: &Sha256) -> Result<(), BlobError> {
        self.note.segments = segments.to_vec();
        self.note.offset = segments.iter().map(|segment| segment.bytes).sum();
        self.note.hash_state = hex(&hash.serialize());
        self.save().await
    }

    async fn save(&mut self) -> Result<(), BlobError> {
        let text = serde_json::to_vec(&self.note).map_err(std::io::Error::from)?;
        let options = PutOptions::from(PutMode::Update(self.version.clone()));
        let key = self.shelf.key(&format!("uploads/{}", self.id));
        let put = self.shelf.store.put_opts(&key, text.into(), options).await;
        self.version = put.map_err(failed)?.into();
        Ok(())
    }

    fn pen(&self) -> Result<Pen, BlobError> {
        let hasher = restore(&self.note.hash_state)?;
        let pen = Pen::new(&self.shelf, &self.id, SEGMENT);
        Ok(pen.resume(self.note.segments.clone(), hasher))
    }
}

/// The identifier of an upload's bytes.
fn key_of(id: UploadId) -> String {
    id.to_string().trim_start_matches(UploadId::PREFIX).to_owned()
}

impl S3Blobs {
    async fn begin_as(&self, id: &str) -> Result<(), BlobError> {
        let note = Note {
            offset: 0,
            hash_state: hex(&Sha256::default().serialize()),
            segments: Vec::new(),
            finished: false,
            turn: String::new(),
        };
        let text = serde_json::to_vec(&note).map_err(std::io::Error::from)?;
        let key = self.shelf.key(&format!("uploads/{id}"));
        self.shelf.store.put(&key, text.into()).await.map_err(failed)?;
        Ok(())
    }

    /// Takes the upload from an older call of this process, and finds it.
    async fn standing(&self, id: &str) -> Result<(Turn, Standing), BlobError> {
        let turn = self.turns.take(id).await?;
        let standing = Standing::load(&self.shelf, id).await;
        if matches!(standing, Err(BlobError::NotFound)) {
            self.turns.forget(id);
        }
        Ok((turn, standing?))
    }

    async fn append_as(
        self,
        id: String,
        offset: u64,
        body: Body,
        bounds: Bounds,
        checksum: Option<Checksum>,
    ) -> Result<u64, BlobError> {
        let (turn, mut standing) = self.standing(&id).await?;
        if standing.note.offset != offset {
            let actual = standing.note.offset;
            return Err(BlobError::OffsetMismatch { actual });
        }
        admit(offset, &bounds)?;
        let bounds = if standing.note.finished {
            Bounds {
                max_bytes: offset,
                ..bounds
            }
        } else {
            bounds
        };
        standing.claim().await?;
        let mut pen = standing.pen()?;
        let replaced = pen.reopen_small().await?;
        pen.tee = self.cache.tee(&id, pen.begun_at(), bounds.announced).await;
        let before = pen.segments.len();
        // A piece with a checksum counts as a whole or not at all: until it is checked nothing says that it is there.
        let noted = checksum.is_none().then_some(&mut standing);
        let mut body = Checked::new(body, checksum);
        let ended = take(&mut pen, &mut body, bounds, &turn.stop, noted).await;
        let holds = body.holds();
        let counts = checksum.is_none() || (holds && matches!(ended, Ok(Ok(()))));
        let kept = match &ended {
            Ok(_) if counts && pen.offset > offset => match pen.close().await {
                Ok(()) => standing.keep(&pen.segments, pen.sealed()).await,
                failed => failed,
            },
            _ => Ok(()),
        };
        if !counts || ended.is_err() || kept.is_err() {
            pen.abort().await;
        }
        if counts && kept.is_ok() && ended.is_ok() {
            self.drop_segment(&id, replaced.filter(|_| pen.offset > offset))
                .await;
        } else if !counts {
            for segment in pen.segments.drain(before..) {
                self.drop_segment(&id, Some(segment)).await;
            }
        }
        drop(turn);
        kept?;
        ended??;
        if holds {
            Ok(standing.note.offset)
        } else {
            Err(BlobError::ChecksumMismatch)
        }
    }

    /// Deletes a segment that no note speaks of any more.
    async fn drop_segment(&self, id: &str, segment: Option<Segment>) {
        let Some(segment) = segment else { return };
        if let Err(error) = self.shelf.delete(self.shelf.data(id, &segment.name)).await {
            tracing::debug!(%error, "replaced segment not removed; it goes with its upload");
        }
    }

    async fn finish_as(self, id: String, expected: Option<Hash>) -> Result<Stored, BlobError> {
        let (turn, mut standing) = self.standing(&id).await?;
        // Whoever still writes on another node is refused from here on.
        let label = label(&id, standing.pen()?, expected)?;
        standing.note.finished = true;
        standing.claim().await?;
        self.shelf.publish(&label).await?;
        drop(turn);
        if let Some(tee) = self.cache.tee(&id, label.bytes, None).await {
            tee.keep(&label.digest, label.bytes).await;
        }
        stored(&label)
    }

    async fn abandon_as(&self, id: &str) -> Result<(), BlobError> {
        let (turn, standing) = self.standing(id).await?;
        self.shelf
            .delete(self.shelf.key(&format!("uploads/{id}")))
            .await?;
        // A finish that broke off behind its label has published them: then the sweep decides.
        let digest = digest(&standing.pen()?);
        let is_published = self.shelf.of(&digest).await?.iter().any(|label| label.id == id);
        if !is_published {
            self.shelf.drop_data(id).await?;
        }
        if let Some(tee) = self.cache.tee(id, 0, None).await {
            tee.drop_it().await;
        }
        drop(turn);
        self.turns.forget(id);
        Ok(())
    }
}

impl Uploads for S3Blobs {
    fn begin(&self, id: UploadId) -> BlobReply<'_, ()> {
        async move { self.begin_as(&key_of(id)).await }.boxed()
    }

    fn offset(&self, id: UploadId) -> BlobReply<'_, u64> {
        async move { Ok(self.standing(&key_of(id)).await?.1.note.offset) }.boxed()
    }

    fn append(
        &self,
        id: UploadId,
        offset: u64,
        body: Body,
        bounds: Bounds,
        checksum: Option<Checksum>,
    ) -> BlobReply<'_, u64> {
        let appended = self.clone().append_as(key_of(id), offset, body, bounds, checksum);
        on_task(appended).boxed()
    }

    fn finish(&self, id: UploadId, expected: Option<Hash>) -> BlobReply<'_, Stored> {
        on_task(self.clone().finish_as(key_of(id), expected)).boxed()
    }

    fn abandon(&self, id: UploadId) -> BlobReply<'_, ()> {
        async move { self.abandon_as(&key_of(id)).await }.boxed()
    }

    fn remove_stale(&self, age: Duration) -> BlobReply<'_, usize> {
        orphans::remove(&self.shelf, age, self.grace).boxed()
    }
}
