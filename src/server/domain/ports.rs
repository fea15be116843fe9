//! What the domain needs from the outside, as traits: rows, bytes, time.
//!
//! Owns: the traits and their errors.
//! Must not know: any implementation.
//! Invariant: one trait a seam, object-safe; a method does one thing in one transaction.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde_json::Value;
use time::OffsetDateTime;

use super::model::TensorRow;
use super::pull::NewPull;
use super::search::NewSearch;
use super::{
    ApiKey, Artifact, ArtifactFilter, ArtifactId, Dataset, DatasetId, Document, Entry, EntryId, Event,
    FileRef, Hooks, Job, JobId, JobState, KeyId, Model, ModelId, NewJob, NodeLoad, Overview, Search,
    SearchId, Tenant, Upload, UploadId,
};

/// What a store call comes to.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Why a store call failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object is not there.
    #[error("not found")]
    NotFound,
    /// The object's state does not allow it; says which state.
    #[error("{0}")]
    Conflict(String),
    /// Other rows still refer to it.
    #[error("still in use")]
    InUse,
    /// The idempotency key was used with another request.
    #[error("idempotency key used with another request")]
    KeyMismatch,
    /// The queue is full.
    #[error("queue is full")]
    Full,
    /// As many jobs of the tenant wait as may.
    #[error("{0} jobs of the tenant wait already")]
    TenantFull(u64),
    /// The database has no disk space left.
    #[error("database without disk space: {0}")]
    NoSpace(String),
    /// The database cannot be reached.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// Anything else: a bug or a damaged database.
    #[error("database: {0}")]
    Internal(String),
}

/// What to list of jobs.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only this state.
    pub state: Option<JobState>,
    /// Only this model.
    pub model: Option<ModelId>,
    /// Only jobs made before this one.
    pub after: Option<JobId>,
    /// At most so many.
    pub limit: u32,
}

/// How many jobs may wait.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Of all tenants.
    pub all: u64,
    /// Of the tenant; no bound of its own if nothing is said.
    pub tenant: Option<u64>,
}

impl Room {
    /// Room for so many, whoever's they are.
    pub fn of(all: u64) -> Self {
        Self { all, tenant: None }
    }
}

/// A new job, or the one that an earlier request made.
#[derive(Debug, Clone)]
pub enum Enqueued {
    /// It was made now.
    New(Job),
    /// The same request was sent before.
    Replayed(Job),
    /// Another request's job is doing the same work.
    Duplicate(Job),
}

/// A new search, or the one that an earlier request made.
#[derive(Debug, Clone)]
pub enum Sought {
    /// It was made now.
    New(Search),
    /// The same request was sent before.
    Replayed(Search),
}

/// Counts for metrics.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Jobs in each state.
    pub jobs: Vec<(JobState, u64)>,
    /// Creation of the oldest waiting job.
    pub oldest_queued_at: Option<OffsetDateTime>,
}

/// The rows of all tenants: what is not any one's, and the way to each one's.
pub trait Stores: Send + Sync + std::fmt::Debug {
    /// Reachable, and the schema is current.
    fn ready(&self) -> Reply<'_, ()>;
    /// Counts for metrics.
    fn counts(&self) -> Reply<'_, Counts>;
    /// Who works on how many jobs.
    fn loads(&self) -> Reply<'_, Vec<NodeLoad>>;
    /// The rows of a tenant.
    fn of(&self, tenant: &Tenant) -> Arc<dyn Store>;
    /// The webhooks of a tenant.
    fn hooks_of(&self, tenant: &Tenant) -> Arc<dyn Hooks>;

    /// A key, whoever's it is.
    fn key_of_any(&self, id: KeyId) -> Reply<'_, ApiKey>;
    /// Notes that a key was used.
    fn touch_key(&self, id: KeyId, at: OffsetDateTime) -> Reply<'_, ()>;
    /// Whether there is a key that opens something at `now`.
    fn has_good_key(&self, now: OffsetDateTime) -> Reply<'_, bool>;

    /// Uploads that expired before `now`.
    fn expired_uploads(&self, now: OffsetDateTime, limit: u32) -> Reply<'_, Vec<UploadId>>;
    /// Deletes an upload, whoever's it is; a missing one is fine.
    fn drop_upload(&self, id: UploadId) -> Reply<'_, ()>;
    /// Which of these digests no row refers to.
    fn unreferenced<'a>(&'a self, digests: &'a [String]) -> Reply<'a, Vec<String>>;
}

/// The rows of one tenant, as the API needs them: another one's are not found. Lists are newest first.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Bytes of all that the tenant keeps: files of models, datasets and artifacts, uploads as long as they will be.
    fn stored_bytes(&self) -> Reply<'_, u64>;

    /// Adds to the audit log.
    fn add_entry<'a>(&'a self, entry: &'a Entry) -> Reply<'a, ()>;
    /// Entries of the audit log made before `after`.
    fn list_entries(&self, after: Option<EntryId>, limit: u32) -> Reply<'_, Vec<Entry>>;

    /// Records a key.
    fn insert_key<'a>(&'a self, key: &'a ApiKey) -> Reply<'a, ()>;
    /// One key.
    fn key(&self, id: KeyId) -> Reply<'_, ApiKey>;
    /// Keys made before `after`, revoked ones too.
    fn list_keys(&self, after: Option<KeyId>, limit: u32) -> Reply<'_, Vec<ApiKey>>;
    /// Revokes a key at once; a revoked one stays as it is.
    fn revoke_key(&self, id: KeyId, at: OffsetDateTime) -> Reply<'_, ApiKey>;
    /// Records the key that takes another's place, which runs out at `until` unless it does so sooner.
    fn replace_key<'a>(&'a self, old: KeyId, new: &'a ApiKey, until: OffsetDateTime) -> Reply<'a, ()>;

    /// Records a model.
    fn insert_model<'a>(&'a self, model: &'a Model) -> Reply<'a, ()>;
    /// Records a model whose files will be brought.
    fn begin_pull<'a>(&'a self, model: &'a Model, pull: &'a NewPull) -> Reply<'a, ()>;
    /// One model.
    fn model(&self, id: ModelId) -> Reply<'_, Model>;
    /// Models made before `after`.
    fn list_models(&self, after: Option<ModelId>, limit: u32) -> Reply<'_, Vec<Model>>;
    /// Adds or replaces a file of a draft; answers the replaced one.
    fn put_model_file<'a>(&'a self, id: ModelId, file: &'a FileRef) -> Reply<'a, Option<FileRef>>;
    /// Makes a draft ready, if its files are still these.
    fn commit_model<'a>(&'a self, id: ModelId, commit: &'a Commit) -> Reply<'a, Model>;
    /// Tensors of a ready model from `offset` on.
    fn list_tensors(&self, id: ModelId, offset: u64, limit: u32) -> Reply<'_, Vec<TensorRow>>;
    /// Deletes a model that no job uses; answers its files.
    fn delete_model(&self, id: ModelId) -> Reply<'_, Vec<FileRef>>;

    /// Records a dataset.
    fn insert_dataset<'a>(&'a self, dataset: &'a Dataset) -> Reply<'a, ()>;
    /// One dataset.
    fn dataset(&self, id: DatasetId) -> Reply<'_, Dataset>;
    /// Datasets made before `after`.
    fn list_datasets(&self, after: Option<DatasetId>, limit: u32) -> Reply<'_, Vec<Dataset>>;
    /// Deletes a dataset that no live job uses; answers its files.
    fn delete_dataset(&self, id: DatasetId) -> Reply<'_, Vec<FileRef>>;

    /// Records an upload.
    fn insert_upload<'a>(&'a self, upload: &'a Upload) -> Reply<'a, ()>;
    /// One upload.
    fn upload(&self, id: UploadId) -> Reply<'_, Upload>;
    /// Records how long an upload will be, which nobody said before.
    fn announce_upload(&self, id: UploadId, length: u64) -> Reply<'_, ()>;
    /// Records that an upload is complete.
    fn complete_upload<'a>(&'a self, id: UploadId, digest: &'a str, bytes: u64) -> Reply<'a, ()>;
    /// Deletes an upload; a missing one is fine.
    fn delete_upload(&self, id: UploadId) -> Reply<'_, ()>;

    /// Records a job, its first event and its idempotency key in one transaction.
    fn enqueue<'a>(&'a self, job: &'a NewJob, room: Room) -> Reply<'a, Enqueued>;
    /// One job.
    fn job(&self, id: JobId) -> Reply<'_, Job>;
    /// Records a search with all of its jobs in one transaction; equal work that is not over is not made again.
    fn add_search<'a>(&'a self, search: &'a NewSearch, room: Room) -> Reply<'a, Sought>;
    /// One search.
    fn search(&self, id: SearchId) -> Reply<'_, Search>;
    /// Searches made before `after`.
    fn list_searches(&self, after: Option<SearchId>, limit: u32) -> Reply<'_, Vec<Search>>;
    /// Notes that a search was cancelled; one that was stays as it is. Its jobs are cancelled one by one.
    fn cancel_search(&self, id: SearchId) -> Reply<'_, Search>;
    /// Jobs by filter.
    fn list_jobs<'a>(&'a self, filter: &'a JobFilter) -> Reply<'a, Vec<Job>>;
    /// Events of a job after a number, oldest first.
    fn list_events(&self, id: JobId, after: u64, limit: u32) -> Reply<'_, Vec<Event>>;
    /// Ends a waiting job, or asks a running one to stop.
    fn cancel_job<'a>(&'a self, id: JobId, reason: &'a str) -> Reply<'a, Job>;
    /// The report of a job that came to a result (the engine's `Report` as JSON).
    fn report(&self, id: JobId) -> Reply<'_, Document>;
    /// One artifact.
    fn artifact(&self, id: ArtifactId) -> Reply<'_, Artifact>;
    /// Artifacts by filter.
    fn list_artifacts<'a>(&'a self, filter: &'a ArtifactFilter) -> Reply<'a, Vec<Artifact>>;
    /// Jobs and artifacts in sums; failures are those since then.
    fn overview(&self, since: OffsetDateTime) -> Reply<'_, Overview>;
}

/// What makes a draft ready.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The files that were inspected.
    pub files: Vec<FileRef>,
    /// Digest over them.
    pub digest: String,
    /// What the engine found.
    pub summary: Value,
    /// Every tensor, in file order.
    pub tensors: Vec<TensorRow>,
    /// When.
    pub at: OffsetDateTime,
}

/// A body on its way in.
pub type Body = BoxStream<'static, Result<Bytes, io::Error>>;

/// A SHA-256.
pub type Hash = [u8; 32];

/// A complete blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256, lower-case hexadecimal.
    pub digest: String,
    /// Size.
    pub bytes: u64,
    /// Set when this call brought the blob: lets exactly this publication be revoked.
    pub origin: Option<Origin>,
}

/// A file of this machine that holds a blob. It stays as long as this lives.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    /// Its lock tells whoever clears the folder that it is in use.
    _hold: Option<File>,
}

impl LocalFile {
    /// A file that is only removed while the lock of `hold` is not held.
    pub fn held(path: PathBuf, hold: File) -> Self {
        Self {
            path,
            _hold: Some(hold),
        }
    }
}

impl From<PathBuf> for LocalFile {
    /// A file that nobody clears away.
    fn from(path: PathBuf) -> Self {
        Self { path, _hold: None }
    }
}

impl Deref for LocalFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for LocalFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// Which publication of a blob it was; means something only to the store that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin(pub u64, pub u128);

/// Bounds of one intake.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Largest size the upload may reach.
    pub max_bytes: u64,
    /// Longest silence of the body.
    pub idle: Duration,
    /// Least speed of the sender, over as much time in which nothing else held it up; 0 is none.
    pub least_bytes_per_second: u64,
    /// Free disk space to leave.
    pub reserve_bytes: u64,
    /// Bytes that the client announced for this request.
    pub announced: Option<u64>,
}

/// What a blob call comes to.
pub type BlobReply<'a, T> = BoxFuture<'a, Result<T, BlobError>>;

/// What the blob store refuses.
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
    /// The client was slower than anybody needs to be.
    #[error("fewer than {least_bytes_per_second} bytes a second came in {over:?}; what came is kept")]
    Slow {
        /// The bound.
        least_bytes_per_second: u64,
        /// How long that was waited for.
        over: Duration,
    },
    /// The body broke off.
    #[error("the body broke off: {0}")]
    Truncated(String),
    /// Other bytes than promised.
    #[error("the bytes have the digest {actual}")]
    DigestMismatch {
        /// What they have.
        actual: String,
    },
    /// A piece of an upload is not what its checksum says.
    #[error("the bytes do not have the checksum")]
    ChecksumMismatch,
    /// A file outside that was registered has changed since.
    #[error("{0} changed after it was registered")]
    SourceChanged(PathBuf),
    /// The store of the bytes, which is elsewhere, cannot be reached or does not let us.
    #[error("blob store unavailable: {0}")]
    Unavailable(String),
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

/// Bytes by digest.
pub trait Blobs: Send + Sync + std::fmt::Debug {
    /// Takes a whole body in and publishes it. Whatever goes wrong, nothing of it stays.
    fn put(&self, body: Body, bounds: Bounds, expected: Option<Hash>) -> BlobReply<'_, Stored>;
    /// Publishes a file that this process wrote, by moving it when it is on the same disk.
    fn put_file(&self, path: PathBuf) -> BlobReply<'_, Stored>;
    /// Lets a file outside stand for a blob: hashed now, checked for change whenever it is opened.
    fn adopt(&self, path: PathBuf) -> BlobReply<'_, Stored>;
    /// A local file that holds a blob, brought here if it is elsewhere.
    fn path<'a>(&'a self, digest: &'a str) -> BlobReply<'a, LocalFile>;
    /// Reads `length` bytes from `first` on.
    fn read<'a>(&'a self, digest: &'a str, first: u64, length: u64) -> BlobReply<'a, Body>;
    /// Takes a publication back, unless the blob was there before or was published again since.
    fn revoke(&self, stored: Stored) -> BlobReply<'_, ()>;
    /// Removes a blob that no row refers to, unless it was published lately:
    /// then a row that will refer to it may still be on its way, and the sweep takes it later.
    fn discard<'a>(&'a self, digest: &'a str) -> BlobReply<'a, ()>;
    /// Blobs that were not published lately: what the sweep looks at.
    fn settled(&self) -> BlobReply<'_, Vec<String>>;
    /// Whether the store can be written.
    fn probe(&self) -> BlobReply<'_, ()>;
}

/// What a client promises of one piece of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-1: against accidents only.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

/// Uploads by offset; a newer call on one upload ends the older one.
pub trait Uploads: Send + Sync + std::fmt::Debug {
    /// Starts an upload.
    fn begin(&self, id: UploadId) -> BlobReply<'_, ()>;
    /// Where it stands, durably.
    fn offset(&self, id: UploadId) -> BlobReply<'_, u64>;
    /// Appends at an offset; answers the new, durable offset. What arrived before an error stays, unless it comes with a
    /// checksum: then all of it stays or nothing.
    fn append(
        &self,
        id: UploadId,
        offset: u64,
        body: Body,
        bounds: Bounds,
        checksum: Option<Checksum>,
    ) -> BlobReply<'_, u64>;
    /// Verifies and publishes it. Until it is abandoned its bytes stay, and asking again answers the same: what is to be
    /// written of it elsewhere may fail, and nothing is lost.
    fn finish(&self, id: UploadId, expected: Option<Hash>) -> BlobReply<'_, Stored>;
    /// Deletes it; what it has published stays.
    fn abandon(&self, id: UploadId) -> BlobReply<'_, ()>;
    /// Refuses more bytes than there is room for, of which `reserve` are to stay free. A store without an end has room.
    fn room(&self, _more: u64, _reserve: u64) -> BlobReply<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Removes whatever has received nothing for longer than `age`; says how many.
    fn remove_stale(&self, age: Duration) -> BlobReply<'_, usize>;
}

/// Time, as an argument.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now, in UTC.
    fn now(&self) -> OffsetDateTime;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        // Whole milliseconds: what a response shows is what every database can give back.
        let now = OffsetDateTime::now_utc();
        now.replace_millisecond(now.millisecond()).unwrap_or(now)
    }
}
