//! Objects that nobody will speak of any more, and a look at the whole bucket.
//!
//! Owns: telling leftovers from what is on its way; examinations of a bucket for those who run it.
//! Must not know: which row refers to what.
//! Invariant: nothing goes that a label or a living upload speaks of.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use object_store::{
    ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion,
};

use super::client::{connect, failed};
use super::labels::{Listed, Shelf};
use crate::blobs::uploads::DEAD;
use crate::domain::bucket::Bucket;
use crate::domain::ports::BlobError;

/// Removes uploads that are older than `age`, segments of processes that died, and labels of blobs that have another one.
pub(super) async fn remove(shelf: &Shelf, age: Duration, grace: Duration) -> Result<usize, BlobError> {
    let now = shelf.now().await?;
    // In this order: what is published meanwhile has its label in the second listing or its segments not in the first.
    let segments = shelf.list("data").await?;
    let uploads = shelf.list("uploads").await?;
    let labels = shelf.all().await?;
    let is_older = |object: &ObjectMeta, age: Duration| {
        now - object.last_modified.timestamp_millis() >= age.as_millis() as i64
    };
    let (stale, living): (Vec<_>, Vec<_>) = uploads.iter().partition(|upload| is_older(upload, age));
    let mut spoken_of: HashSet<&str> = living.iter().map(|upload| last(upload)).collect();
    spoken_of.extend(labels.iter().map(|label| label.id.as_str()));
    let mut newest: HashMap<&str, bool> = HashMap::new();
    for segment in &segments {
        *newest.entry(owner(segment)).or_insert(true) &= is_older(segment, DEAD);
    }
    let mut removed = stale.len();
    shelf
        .delete_all(stale.iter().map(|upload| upload.location.clone()).collect())
        .await?;
    for (id, is_dead) in newest {
        if is_dead && !spoken_of.contains(id) {
            shelf.drop_data(id).await?;
            removed += 1;
        }
    }
    for label in doubles(&labels, now, grace) {
        shelf.take_back(&label.digest, label.bytes, &label.id).await?;
        removed += 1;
    }
    Ok(removed)
}

/// Settled labels of a digest that has an earlier one, which is the one that readers find.
fn doubles(labels: &[Listed], now: i64, grace: Duration) -> impl Iterator<Item = &Listed> {
    let pairs = labels.iter().zip(labels.iter().skip(1));
    pairs.filter_map(move |(one, next)| {
        let is_double =
            one.digest == next.digest && one.is_settled(now, grace) && next.is_settled(now, grace);
        is_double.then_some(next)
    })
}

fn last(object: &ObjectMeta) -> &str {
    object.location.as_ref().rsplit('/').next().unwrap_or_default()
}

/// Whose segment it is.
fn owner(segment: &ObjectMeta) -> &str {
    segment.location.as_ref().rsplit('/').nth(1).unwrap_or_default()
}

/// What a look at a bucket finds.
#[derive(Debug)]
pub struct Look {
    /// By how much its clock is ahead, in milliseconds.
    pub ahead_millis: i64,
    /// Whether an object that has changed is kept from being overwritten by who does not know.
    pub is_guarded: bool,
    /// The blobs of those wanted that are not there, or not with all their bytes.
    pub lost: Vec<String>,
}

/// Writes, reads and deletes a probe of its own, and looks whether these blobs are there.
pub async fn look(bucket: &Bucket, wanted: &[(String, u64)], now_millis: i64) -> Result<Look, BlobError> {
    let shelf = Shelf::new(connect(bucket)?, &bucket.prefix);
    let key = shelf.key(&format!("doctor-{}", super::fresh()));
    let put = shelf
        .store
        .put(&key, PutPayload::from_static(b"one"))
        .await
        .map_err(failed)?;
    shelf
        .store
        .put(&key, PutPayload::from_static(b"two"))
        .await
        .map_err(failed)?;
    let old = PutOptions::from(PutMode::Update(UpdateVersion::from(put)));
    let refused = shelf
        .store
        .put_opts(&key, PutPayload::from_static(b"three"), old)
        .await;
    let read = shelf.store.get(&key).await.map_err(failed)?;
    let text = read.bytes().await.map_err(failed)?;
    shelf.delete(key).await?;
    Ok(Look {
        ahead_millis: shelf.now().await? - now_millis,
        is_guarded: refused.is_err() && text.as_ref() == b"two",
        lost: lost(&shelf, wanted).await?,
    })
}

async fn lost(shelf: &Shelf, wanted: &[(String, u64)]) -> Result<Vec<String>, BlobError> {
    let mut sizes: HashMap<String, u64> = HashMap::new();
    for segment in shelf.list("data").await? {
        *sizes.entry(owner(&segment).to_owned()).or_default() += segment.size;
    }
    let labels = shelf.all().await?.into_iter();
    let whole = labels.filter(|label| sizes.get(&label.id).copied().unwrap_or(0) >= label.bytes);
    let there: HashSet<(String, u64)> = whole.map(|label| (label.digest, label.bytes)).collect();
    let lost = wanted.iter().filter(|blob| !there.contains(*blob));
    Ok(lost.map(|(digest, _)| digest.clone()).collect())
}
