//! Which bytes a digest stands for: labels, and the objects that they speak of.
//!
//! Owns: keys: `labels/<digest>/<bytes>-<id>` and `data/<id>/<segment>`; publishing, finding and taking back labels.
//! Must not know: how bytes come in or go out.
//! Invariant: a label is written when all of its bytes are there, in one step, under a key of its own: to take one back
//! never touches what was published beside it, and a label that is lately written is nobody else's to remove.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutPayload};
use serde::{Deserialize, Serialize};

use super::client::failed;
use crate::blobs::layout::is_digest;
use crate::domain::ports::BlobError;

/// Labels that are remembered.
const KNOWN: usize = 4096;
/// Requests at once where many objects go.
const AT_ONCE: usize = 8;

/// A piece of a blob, an object of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    /// The last part of its key.
    pub(super) name: String,
    /// Its size.
    pub(super) bytes: u64,
}

/// One publication of a blob.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) digest: String,
    pub(super) bytes: u64,
    /// Of the intake that brought it: 32 hexadecimal digits.
    pub(super) id: String,
    pub(super) segments: Vec<Segment>,
}

/// A label in a listing, which does not say its segments.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) digest: String,
    pub(super) bytes: u64,
    pub(super) id: String,
    /// When it was written, by the store's clock, in milliseconds.
    pub(super) at: i64,
}

impl Listed {
    /// Whether it was written at least `age` before `now`.
    pub(super) fn is_settled(&self, now: i64, age: Duration) -> bool {
        now - self.at >= age.as_millis() as i64
    }
}

/// The objects of one store.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    pub(super) store: Arc<AmazonS3>,
    prefix: String,
    known: Arc<Mutex<HashMap<String, Arc<Label>>>>,
}

impl Shelf {
    pub(super) fn new(store: AmazonS3, prefix: &str) -> Self {
        let prefix = if prefix.is_empty() {
            String::new()
        } else {
            format!("{prefix}/")
        };
        Self {
            store: Arc::new(store),
            prefix,
            known: Arc::default(),
        }
    }

    /// A key of this store.
    pub(super) fn key(&self, rest: &str) -> Path {
        Path::from(format!("{}{rest}", self.prefix))
    }

    /// The key of a segment.
    pub(super) fn data(&self, id: &str, name: &str) -> Path {
        self.key(&format!("data/{id}/{name}"))
    }

    fn label_key(&self, digest: &str, bytes: u64, id: &str) -> Path {
        self.key(&format!("labels/{digest}/{bytes}-{id}"))
    }

    /// Everything below a folder.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>, BlobError> {
        let found = self.store.list(Some(&self.key(folder)));
        found.try_collect().await.map_err(failed)
    }

    /// The store's clock: what is written now, is written then. Ages are told by it alone.
    pub(super) async fn now(&self) -> Result<i64, BlobError> {
        let key = self.key("clock");
        self.store
            .put(&key, PutPayload::from_static(b"now"))
            .await
            .map_err(failed)?;
        // From a listing, as the times that it is compared with: headers have whole seconds only.
        let folder = Path::from(self.prefix.trim_end_matches('/'));
        let written = self
            .store
            .list_with_delimiter(Some(&folder))
            .await
            .map_err(failed)?;
        let written = written.objects.into_iter().find(|object| object.location == key);
        Ok(written
            .ok_or(BlobError::NotFound)?
            .last_modified
            .timestamp_millis())
    }

    /// Publishes: from now on the digest is found.
    pub(super) async fn publish(&self, label: &Label) -> Result<(), BlobError> {
        let key = self.label_key(&label.digest, label.bytes, &label.id);
        let text = serde_json::to_vec(&label.segments).map_err(std::io::Error::from)?;
        self.store.put(&key, text.into()).await.map_err(failed)?;
        Ok(())
    }

    /// A label of the digest: always the same one as long as it is there.
    pub(super) async fn find(&self, digest: &str) -> Result<Arc<Label>, BlobError> {
        if let Some(label) = self.memory().get(digest) {
            return Ok(label.clone());
        }
        let first = self
            .of(digest)
            .await?
            .into_iter()
            .next()
            .ok_or(BlobError::NotFound)?;
        let key = self.label_key(digest, first.bytes, &first.id);
        let text = self
            .store
            .get(&key)
            .await
            .map_err(failed)?
            .bytes()
            .await
            .map_err(failed)?;
        let label = Arc::new(Label {
            segments: serde_json::from_slice(&text).map_err(std::io::Error::from)?,
            digest: first.digest,
            bytes: first.bytes,
            id: first.id,
        });
        let mut known = self.memory();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(digest.to_owned(), label.clone());
        Ok(label)
    }

    /// Looks it up anew next time.
    pub(super) fn forget(&self, digest: &str) {
        self.memory().remove(digest);
    }

    /// The labels of a digest, in order.
    pub(super) async fn of(&self, digest: &str) -> Result<Vec<Listed>, BlobError> {
        if !is_digest(digest) {
            return Err(BlobError::NotFound);
        }
        self.listed(&format!("labels/{digest}")).await
    }

    /// All labels, in order.
    pub(super) async fn all(&self) -> Result<Vec<Listed>, BlobError> {
        self.listed("labels").await
    }

    async fn listed(&self, folder: &str) -> Result<Vec<Listed>, BlobError> {
        let mut found: Vec<Listed> = self.list(folder).await?.iter().filter_map(read_key).collect();
        found.sort_by(|a, b| (&a.digest, &a.id).cmp(&(&b.digest, &b.id)));
        Ok(found)
    }

    /// Takes a publication back, label first: a digest that is found has all its bytes. Those of an upload that is not
    /// abandoned yet are its own.
    pub(super) async fn take_back(&self, digest: &str, bytes: u64, id: &str) -> Result<(), BlobError> {
        self.forget(digest);
        self.delete(self.label_key(digest, bytes, id)).await?;
        let upload = self.store.head(&self.key(&format!("uploads/{id}"))).await;
        match upload.map_err(failed) {
            Err(BlobError::NotFound) => self.drop_data(id).await,
            other => other.map(drop),
        }
    }

    /// Deletes all segments of an intake.
    pub(super) async fn drop_data(&self, id: &str) -> Result<(), BlobError> {
        let found = self.list(&format!("data/{id}")).await?;
        self.delete_all(found.into_iter().map(|object| object.location).collect())
            .await
    }

    /// Deletes objects; missing ones are fine.
    pub(super) async fn delete_all(&self, keys: Vec<Path>) -> Result<(), BlobError> {
        futures_util::stream::iter(keys.into_iter().map(|key| self.delete(key)))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Deletes an object; a missing one is fine.
    pub(super) async fn delete(&self, key: Path) -> Result<(), BlobError> {
        match self.store.delete(&key).await.map_err(failed) {
            Err(BlobError::NotFound) => Ok(()),
            other => other,
        }
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, Arc<Label>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a label's key says; nothing where it is none.
fn read_key(object: &ObjectMeta) -> Option<Listed> {
    let mut parts = object.location.as_ref().rsplit('/');
    let (bytes, id) = parts.next()?.split_once('-')?;
    Some(Listed {
        digest: parts.next()?.to_owned(),
        bytes: bytes.parse().ok()?,
        id: id.to_owned(),
        at: object.last_modified.timestamp_millis(),
    })
}
