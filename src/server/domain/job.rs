//! Jobs as they are asked for and shown.
//!
//! Owns: the job's states and fields, its events.
//! Must not know: leases and fences (queue), rows (store).
//! Invariant: a terminal state is never left.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::Value;
use time::OffsetDateTime;

use super::{ArtifactId, DatasetId, Document, JobId, ModelId};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// A worker holds its lease.
    Running,
    /// Its artifacts are published.
    Succeeded,
    /// It will not be tried again.
    Failed,
    /// The user ended it.
    Cancelled,
}

impl JobState {
    /// All of them, in the order of a job's life.
    pub const ALL: [Self; 5] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it is over.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl FromStr for JobState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

/// The technique, as far as workers are concerned, of a job that only looks at a model.
pub const ANALYZE: &str = "analyze";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// The model.
    pub model: ModelId,
    /// What was asked, as sent.
    pub recipe: Value,
    /// What will be done (the engine's `Plan` or `AnalysisPlan` as JSON): workers execute it and never plan again.
    pub plan: Document,
    /// Memory that the plan asks for.
    pub need_memory_bytes: u64,
    /// Names of the techniques in the plan: a worker claims only what it knows.
    pub techniques: Vec<String>,
    /// The datasets it reads: they stay as long as it may run.
    pub datasets: Vec<DatasetId>,
    /// The user's own pairs.
    pub metadata: BTreeMap<String, String>,
    /// Higher goes first.
    pub priority: i16,
    /// Names equal work: while a job with this key is queued or running, no second one is made.
    pub dedupe_key: Option<String>,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The client's key and the digest of its request, written in the same transaction.
    pub idempotency: Option<(String, [u8; 32])>,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
}

/// How far a running job is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The stage at work.
    pub stage: Option<String>,
    /// Its place, from 0.
    pub stage_index: u32,
    /// How many stages there are.
    pub stages: u32,
    /// Bytes worked through.
    pub bytes_done: u64,
    /// Bytes to work through.
    pub bytes_total: u64,
    /// Recent speed.
    pub bytes_per_second: f64,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The model.
    pub model: ModelId,
    /// What was asked, as sent.
    pub recipe: Value,
    /// Where it stands.
    pub state: JobState,
    /// Higher goes first.
    pub priority: i16,
    /// The user's own pairs.
    pub metadata: BTreeMap<String, String>,
    /// Attempts begun.
    pub attempt: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// Memory that its plan asks for.
    pub need_memory_bytes: u64,
    /// How far it is.
    pub progress: Progress,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// What it published.
    pub artifacts: Vec<ArtifactId>,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When its latest attempt began.
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// When the user asked to end it.
    pub cancel_requested_at: Option<OffsetDateTime>,
}

impl Job {
    /// Whether it only looks at the model: no recipe has such a field.
    #[must_use]
    pub fn is_analysis(&self) -> bool {
        self.recipe.get("analysis").is_some()
    }
}

/// A line of a job's history.
#[derive(Debug, Clone)]
pub struct Event {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// When.
    pub at: OffsetDateTime,
    /// What kind: `state`, `message`, `metrics`.
    pub kind: String,
    /// `info`, `warning` or `error`.
    pub level: String,
    /// For people.
    pub message: String,
    /// For programs.
    pub data: Value,
}
