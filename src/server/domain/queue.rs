//! What workers need of the job table, as a trait.
//!
//! Owns: the [`Queue`] port: claims, leases, endings.
//! Must not know: SQL; what an attempt computes.
//! Invariant: every call about a claimed job carries its [`Lease`], and a call with an old fence changes nothing.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde_json::Value;
use time::OffsetDateTime;

use super::ports::StoreError;
use super::{Artifact, DatasetId, Document, Failure, FileRef, JobId, JobState, ModelId, Progress};

/// What a call about a claimed job comes to.
pub type Fenced<'a, T> = BoxFuture<'a, Result<T, QueueError>>;

/// Why such a call failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The lease is not ours any more: stop, write nothing.
    #[error("the lease was lost")]
    Lost,
    /// The store failed; the lease may still be ours.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The right to write about a job: one claim's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// The claim's number.
    pub fence: u64,
}

/// Who claims, and what fits there.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name of the process, fresh at every start, and number of the worker in it.
    pub worker: String,
    /// How long a claim holds without a beat.
    pub ttl: Duration,
    /// Memory that a plan may ask for now, beside the jobs that run here.
    pub memory_bytes: u64,
    /// Memory that a plan may ask for when nothing else runs here.
    pub most_memory_bytes: u64,
    /// How long a job is passed over because its memory is not free; after that the node takes nothing that is behind it
    /// until there is room for it.
    pub patience: Duration,
    /// Techniques this version knows; a job that needs another one is left for a newer worker.
    pub techniques: Vec<String>,
    /// Jobs of one tenant that may run at a time, on all nodes; no bound if nothing is said.
    pub most_of_tenant: Option<u64>,
}

/// A job in hand.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The right to write about it.
    pub lease: Lease,
    /// Its model.
    pub model: ModelId,
    /// The model's files.
    pub files: Vec<FileRef>,
    /// The files of each dataset that it reads.
    pub datasets: Vec<(DatasetId, Vec<FileRef>)>,
    /// What an earlier attempt left to go on with, perhaps on another machine.
    pub checkpoint: Option<Checkpoint>,
    /// What to do (the engine's `Plan` as JSON).
    pub plan: Document,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// Memory that the plan asks for.
    pub need_memory_bytes: u64,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
}

/// Files that an attempt left in the blob store for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The attempt's.
    pub fence: u64,
    /// Under the names that the engine gave them.
    pub files: Vec<FileRef>,
}

/// What a beat reports.
#[derive(Debug, Clone, Default)]
pub struct Beat {
    /// How long the lease holds from now on.
    pub ttl: Duration,
    /// How far the attempt is.
    pub progress: Progress,
    /// Most memory it used so far; what a later "out of memory" is judged by.
    pub peak_memory_bytes: u64,
}

/// What a beat answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// The user asked to end the job.
    pub cancel_requested: bool,
}

/// A line for the job's history, before it has a number.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// `state`, `message` or `metrics`.
    pub kind: &'static str,
    /// `info`, `warning` or `error`.
    pub level: &'static str,
    /// For people.
    pub message: String,
    /// For programs.
    pub data: Value,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum End {
    /// Everything is in the blob store.
    Succeeded(Publication),
    /// Trying again cannot help.
    Failed(Failure),
    /// The result missed a quality gate: the job fails, and what it made is published even so.
    GateMissed(Failure, Publication),
    /// Trying again after this wait may help; the last attempt fails with the failure.
    Retry(Failure, Duration),
    /// The user asked.
    Cancelled,
    /// The worker goes away: the attempt is given back.
    Released,
}

/// What an attempt publishes that came to a result.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Its artifacts; their bytes are durable already. A missed gate may leave none.
    pub artifacts: Vec<Artifact>,
    /// The engine's `Report` as JSON.
    pub report: Document,
}

/// The end of an attempt, with what is written in the same transaction.
#[derive(Debug, Clone)]
pub struct Ending {
    /// How it ended.
    pub end: End,
    /// Last lines of its history.
    pub events: Vec<NewEvent>,
    /// Where the work stood.
    pub progress: Progress,
    /// Most memory the attempt used.
    pub peak_memory_bytes: u64,
    /// Memory that the next attempt asks for, where the plan's figure was perhaps too little.
    pub next_memory_bytes: Option<u64>,
}

/// Which running jobs are taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// Those whose lease has run out.
    Expired,
    /// All: nobody else can be working, because this process alone holds the database and has just begun.
    Everyone,
}

/// A job taken back from a silent worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// The job.
    pub job: JobId,
    /// What became of it.
    pub state: JobState,
    /// Who had it.
    pub worker: String,
}

/// How long things are kept, jobs from their end on; `None` is for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Succeeded jobs, with their artifacts.
    pub succeeded: Option<Duration>,
    /// Failed and cancelled jobs.
    pub unsuccessful: Option<Duration>,
    /// Entries of the audit log.
    pub audit: Option<Duration>,
    /// What was sent to webhooks, after its end.
    pub deliveries: Option<Duration>,
    /// Models that were never committed.
    pub drafts: Option<Duration>,
}

/// What one call of [`Queue::prune`] deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs, each with all that belongs to it.
    pub jobs: u64,
    /// Entries of the audit log.
    pub audit_entries: u64,
    /// Idempotency keys that ran out.
    pub idempotency_keys: u64,
    /// Models that were never committed.
    pub drafts: u64,
    /// Messages to webhooks.
    pub deliveries: u64,
    /// Searches.
    pub searches: u64,
}

impl Pruned {
    /// Whether there was anything to delete.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// What processes on one database tell each other, to shorten waits: it may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// A job waits, or one has ended.
    Work,
    /// Somebody wants something of a running job.
    News,
}

/// The job table, as workers need it.
pub trait Queue: Send + Sync + std::fmt::Debug {
    /// Takes the next job that is due and fits.
    fn claim<'a>(&'a self, node: &'a Node) -> BoxFuture<'a, Result<Option<Claim>, StoreError>>;
    /// Extends the lease and records progress.
    fn beat<'a>(&'a self, lease: Lease, beat: &'a Beat) -> Fenced<'a, Pulse>;
    /// Shows progress to readers in this process until the next beat; writes nothing.
    fn tick(&self, lease: Lease, progress: &Progress);
    /// Adds lines to the history.
    fn record<'a>(&'a self, lease: Lease, events: &'a [NewEvent]) -> Fenced<'a, ()>;
    /// Announces blobs that the end of this attempt will refer to, so that no sweep takes them in between.
    fn announce<'a>(&'a self, lease: Lease, digests: &'a [String]) -> Fenced<'a, ()>;
    /// Refers to the blobs that the next attempt can go on with, instead of those referred to before.
    fn checkpoint<'a>(&'a self, lease: Lease, files: &'a [FileRef]) -> Fenced<'a, ()>;
    /// Ends the attempt: state, history, artifacts and report in one transaction. Answers the job's new state.
    fn finish<'a>(&'a self, lease: Lease, ending: &'a Ending) -> Fenced<'a, JobState>;
    /// Takes jobs back from silent workers, a batch at a time.
    fn reap(&self, silent: Silent) -> BoxFuture<'_, Result<Vec<Reaped>, StoreError>>;
    /// Those of these jobs that wait or run: the others are over or unknown.
    fn live<'a>(&'a self, jobs: &'a [JobId]) -> BoxFuture<'a, Result<Vec<JobId>, StoreError>>;
    /// What other processes say from now on; nothing where there can be none.
    fn rings(&self) -> Option<BoxStream<'static, Ring>>;
    /// Deletes a batch of each kind of thing that is old enough.
    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned, StoreError>>;
}
