//! The work of one pull: what is to be brought, each file, and the model at the end.
//!
//! Owns: the order of steps; what each failure means.
//! Must not know: when a pull is taken up again, rows of pulls.
//! Invariant: a file's bytes are in its upload, and behind that in the model; each step may be done twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Stop;
use super::origin::{Opened, Origin};
use super::run::Puller;
use crate::domain::model::set_digest;
use crate::domain::ports::{BlobError, Bounds, Hash, Store, StoreError};
use crate::domain::pull::{NotAModel, PullClaim, PullFile};
use crate::domain::{FileRef, UploadId};

/// How often a file is asked for in a row without a new byte, before the whole pull waits.
const TRIES: u32 = 4;
/// Before it is asked for again; grows with every try.
const PAUSE: Duration = Duration::from_millis(500);

/// How far a pull is.
#[derive(Debug, Default)]
pub(super) struct Meter {
    files: Mutex<Vec<(UploadId, Arc<AtomicU64>)>>,
    files_done: AtomicU64,
}

impl Meter {
    fn add(&self, file: &PullFile) -> Arc<AtomicU64> {
        let bytes = Arc::new(AtomicU64::new(if file.done { file.bytes } else { 0 }));
        self.lock().push((file.upload, bytes.clone()));
        self.files_done.fetch_add(u64::from(file.done), Ordering::Relaxed);
        bytes
    }

    /// Files and bytes that are there.
    pub(super) fn read(&self) -> (u64, u64) {
        let bytes = self
            .lock()
            .iter()
            .map(|(_, bytes)| bytes.load(Ordering::Relaxed))
            .sum();
        (self.files_done.load(Ordering::Relaxed), bytes)
    }

    /// Where bytes may wait.
    pub(super) fn uploads(&self) -> Vec<UploadId> {
        self.lock().iter().map(|(upload, _)| *upload).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(UploadId, Arc<AtomicU64>)>> {
        // A list that only grows is whole whatever panicked.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One pull at work.
pub(super) struct Work<'a> {
    pub(super) puller: &'a Puller,
    pub(super) claim: &'a PullClaim,
    pub(super) store: Arc<dyn Store>,
    pub(super) meter: &'a Meter,
    pub(super) end: &'a CancellationToken,
}

impl Work<'_> {
    /// Brings everything and makes the model ready.
    pub(super) async fn run(&self) -> Result<(), Stop> {
        let model = self.claim.ticket.model;
        let (puller, claim) = (self.puller, self.claim);
        let token = claim
            .token
            .as_deref()
            .and_then(|sealed| puller.seal.open(&model.to_string(), sealed));
        if claim.token.is_some() && token.is_none() {
            let message = "the token was sealed with another cursor_secret; send the request again";
            return Err(Stop::over("token_lost", message));
        }
        let origin = Origin::of(&claim.source, &puller.sources, &puller.outbound, token)?;
        let revision = match &claim.revision {
            Some(revision) => revision.clone(),
            None => self.plan(&origin).await?,
        };
        let files = puller.pulls.pull_files(model).await.map_err(Stop::later)?;
        let mut todo = Vec::new();
        for file in files {
            let bytes = self.meter.add(&file);
            if !file.done {
                todo.push(self.file(&origin, &revision, file, bytes).boxed());
            }
        }
        let brought = stream::iter(todo).buffer_unordered(puller.bounds.connections);
        brought.try_collect::<Vec<()>>().await?;
        self.commit().await
    }

    /// Finds out what is to be brought, and makes room for all of it before the first byte.
    async fn plan(&self, origin: &Origin) -> Result<String, Stop> {
        let (claim, bounds) = (self.claim, &self.puller.bounds);
        let listing = origin.list(&claim.include, bounds.model_files);
        let (revision, listed) = self.unless_ended(listing).await?;
        let bytes: u64 = listed.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
        if let Some(file) = listed.iter().find(|file| file.bytes > bounds.file_bytes) {
            let message = format!(
                "{} has {} bytes; a file may have {}",
                file.name, file.bytes, bounds.file_bytes
            );
            return Err(Stop::over("too_large", message));
        }
        if let Some(most) = bounds.tenant_bytes {
            let stored = self.store.stored_bytes().await.map_err(Stop::later)?;
            if stored.saturating_add(bytes) > most {
                let message = format!(
                    "the files have {bytes} bytes; tenant {} stores {stored} of the {most} it may; delete models, \
                     datasets or uploads to make room",
                    claim.tenant
                );
                return Err(Stop::over("stored_bytes_exceeded", message));
            }
        }
        self.puller
            .uploads
            .room(bytes, bounds.reserve_bytes)
            .await
            .map_err(|error| full(&error, bytes))?;
        let files: Vec<PullFile> = listed
            .into_iter()
            .map(|file| PullFile {
                name: file.name,
                origin: file.origin,
                bytes: file.bytes,
                sha256: file.sha256,
                upload: UploadId::from_uuid(Uuid::now_v7()),
                done: false,
            })
            .collect();
        let expires_at = self.puller.clock.now() + bounds.keep;
        let planned = self
            .puller
            .pulls
            .plan_pull(claim, &revision, &files, expires_at)
            .await;
        if planned.map_err(Stop::later)? {
            Ok(revision)
        } else {
            Err(Stop::Ended)
        }
    }

    /// One file, from wherever it stands into the model.
    async fn file(
        &self,
        origin: &Origin,
        revision: &str,
        file: PullFile,
        bytes: Arc<AtomicU64>,
    ) -> Result<(), Stop> {
        let row = self.store.upload(file.upload).await.map_err(gone)?;
        let digest = if let Some((digest, _)) = row.complete {
            digest
        } else {
            let digest = match self.whole(origin, revision, &file, &bytes).await {
                // What came was broken on the way, or is not what was promised: a second look tells.
                Err(Stop::Over(failure)) if failure.code == "digest_mismatch" => {
                    self.whole(origin, revision, &file, &bytes).await?
                }
                other => other?,
            };
            let complete = self.store.complete_upload(file.upload, &digest, file.bytes);
            complete.await.map_err(gone)?;
            digest
        };
        bytes.store(file.bytes, Ordering::Relaxed);
        let stored = FileRef {
            name: file.name,
            digest,
            bytes: file.bytes,
        };
        self.store
            .put_model_file(self.claim.ticket.model, &stored)
            .await
            .map_err(gone)?;
        self.store.delete_upload(file.upload).await.map_err(gone)?;
        if let Err(error) = self.puller.uploads.abandon(file.upload).await {
            tracing::debug!(%error, "a file's leftovers go with the next sweep");
        }
        self.meter.files_done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Fetches what is missing and publishes the whole; answers its digest.
    async fn whole(
        &self,
        origin: &Origin,
        revision: &str,
        file: &PullFile,
        bytes: &Arc<AtomicU64>,
    ) -> Result<String, Stop> {
        let uploads = &self.puller.uploads;
        let mut promised = file.sha256.clone();
        let mut tries = 0;
        loop {
            let at = match uploads.offset(file.upload).await {
                Err(BlobError::NotFound) => uploads.begin(file.upload).await.map(|()| 0),
                other => other,
            };
            let at = at.map_err(|error| blob(&error, file))?;
            bytes.store(at, Ordering::Relaxed);
            if at == file.bytes {
                break;
            }
            let part = self.part(origin, revision, file, at, bytes).await;
            let (said, problem) = match part {
                Ok(said) => (said, None),
                Err(Stop::Later(why, wait)) => (None, Some((why, wait))),
                Err(stop) => return Err(stop),
            };
            promised = promised.or(said);
            let reached = uploads
                .offset(file.upload)
                .await
                .map_err(|error| blob(&error, file))?;
            tries = if reached > at { 0 } else { tries + 1 };
            if let Some((why, wait)) = problem.filter(|(_, wait)| tries >= TRIES || wait.is_some()) {
                return Err(Stop::Later(why, wait));
            }
            if tries >= TRIES {
                return Err(Stop::later(format!("{}: the source sends nothing", file.name)));
            }
            if tries > 0 {
                let pause = tokio::time::sleep(PAUSE * 2u32.pow(tries));
                self.unless_ended(pause.map(Ok)).await?;
            }
        }
        let expected = promised.as_deref().and_then(hash);
        match uploads.finish(file.upload, expected).await {
            Ok(stored) => Ok(stored.digest),
            Err(BlobError::DigestMismatch { actual }) => {
                uploads
                    .abandon(file.upload)
                    .await
                    .map_err(|error| blob(&error, file))?;
                let promised = promised.unwrap_or_default();
                let message = format!("{} has the digest {actual} and was to have {promised}", file.name);
                Err(Stop::over("digest_mismatch", message))
            }
            Err(error) => Err(blob(&error, file)),
        }
    }

    /// Appends what the source sends from `at` on, until it ends or breaks off.
    async fn part(
        &self,
        origin: &Origin,
        revision: &str,
        file: &PullFile,
        at: u64,
        bytes: &Arc<AtomicU64>,
    ) -> Result<Option<String>, Stop> {
        let opened = self.unless_ended(origin.open(revision, file, at)).await?;
        let Opened { body, sha256 } = opened;
        let (count, received) = (bytes.clone(), self.puller.metrics.pulls_received_bytes.clone());
        let counted = body.inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                received.inc_by(chunk.len() as u64);
            }
        });
        // The store goes on reading when nobody waits for it any more.
        let body = counted.take_until(self.end.clone().cancelled_owned()).boxed();
        let bounds = Bounds {
            max_bytes: file.bytes,
            idle: self.puller.bounds.idle,
            least_bytes_per_second: self.puller.bounds.least_bytes_per_second,
            reserve_bytes: self.puller.bounds.reserve_bytes,
            announced: Some(file.bytes - at),
        };
        let appended = self
            .puller
            .uploads
            .append(file.upload, at, body, bounds, None)
            .await;
        if self.end.is_cancelled() {
            return Err(Stop::Ended);
        }
        match appended {
            Ok(_) => Ok(sha256),
            Err(error) => Err(blob(&error, file)),
        }
    }

    async fn commit(&self) -> Result<(), Stop> {
        let id = self.claim.ticket.model;
        let model = self.store.model(id).await.map_err(gone)?;
        tracing::debug!(model = %id, digest = set_digest(&model.files), "all files are there");
        let inspected = self.puller.inspector.inspect(&model.files);
        let commit = match self.unless_ended(async { Ok(inspected.await) }).await? {
            Ok(commit) => commit,
            Err(NotAModel::Rejected(failure)) => return Err(Stop::Over(failure)),
            Err(NotAModel::NotNow(why)) => return Err(Stop::later(why)),
        };
        self.store.commit_model(id, &commit).await.map_err(gone)?;
        Ok(())
    }

    async fn unless_ended<T>(&self, work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.end.cancelled() => Err(Stop::Ended),
            done = work => done,
        }
    }
}

/// The model, or what belongs to it, is no longer there.
fn gone(error: StoreError) -> Stop {
    match error {
        StoreError::NotFound | StoreError::Conflict(_) => Stop::Ended,
        other => Stop::later(other),
    }
}

fn blob(error: &BlobError, file: &PullFile) -> Stop {
    match error {
        BlobError::TooLarge { .. } => {
            let message = format!("{} has more than its {} bytes", file.name, file.bytes);
            Stop::over("source_changed", message)
        }
        BlobError::Full(_) => full(error, file.bytes),
        BlobError::NotFound | BlobError::Superseded => Stop::Ended,
        other => Stop::later(format!("{}: {other}", file.name)),
    }
}

fn full(error: &BlobError, bytes: u64) -> Stop {
    match error {
        BlobError::Full(_) => {
            let message = format!("the server has no disk space for {bytes} bytes beside what it keeps free");
            Stop::over("disk_full", message)
        }
        other => Stop::later(other),
    }
}

fn hash(hexadecimal: &str) -> Option<Hash> {
    let byte = |at: usize| u8::from_str_radix(hexadecimal.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
    bytes?.try_into().ok()
}
