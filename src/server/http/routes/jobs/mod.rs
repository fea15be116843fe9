//! `/v1/jobs`: recipes at work.
//!
//! Owns: the job's wire form.
//! Must not know: the queue; how a report is made.
//! Invariant: the same five words for a job's state everywhere.

pub mod cancel;
pub mod create;
pub mod events;
pub mod get;
pub mod list;
pub mod plots;
pub mod report;
pub mod stream;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use crate::domain::{Event, Job, JobState};
use crate::http::auth::Caller;

/// The stage a job is at.
#[derive(Debug, Serialize, ToSchema)]
pub struct StageOut {
    /// Its name.
    #[schema(example = "quantize")]
    pub name: String,
    /// Its place, from 0.
    pub index: u32,
    /// How many stages there are.
    pub of: u32,
}

/// Why a job failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobErrorOut {
    /// Stable name.
    #[schema(example = "worker_lost")]
    pub code: String,
    /// For people.
    pub message: String,
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobOut {
    /// Identifier.
    #[schema(example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `job`.
    #[schema(example = "job")]
    pub object: &'static str,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    #[schema(example = "running")]
    pub status: &'static str,
    /// The model.
    #[schema(example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub model: String,
    /// `compression`, or `analysis` for a job that looks at the model and publishes nothing but a report.
    #[schema(example = "compression")]
    pub kind: &'static str,
    /// The recipe, as sent; `{"analysis": {}}` of an analysis.
    #[schema(value_type = Object, example = "Q4_K_M")]
    pub recipe: Value,
    /// Higher goes first.
    pub priority: i16,
    /// Your own pairs.
    pub metadata: BTreeMap<String, String>,
    /// Attempts begun.
    #[schema(example = 1)]
    pub attempt: u32,
    /// Attempts it may have.
    #[schema(example = 3)]
    pub max_attempts: u32,
    /// Memory that is set aside for it: what its plan asks for, and after a lack of memory all that a worker has.
    #[schema(example = 449_839_104)]
    pub planned_memory_bytes: u64,
    /// Why it is queued for longer than its turn takes, if this server knows.
    pub waiting_for: Option<String>,
    /// 0 to 1.
    #[schema(example = 0.42)]
    pub progress: f64,
    /// The stage at work.
    pub stage: Option<StageOut>,
    /// Bytes worked through.
    pub bytes_done: u64,
    /// Bytes to work through.
    pub bytes_total: u64,
    /// Recent speed.
    pub bytes_per_second: f64,
    /// When it should be done at this speed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub estimated_finish_at: Option<OffsetDateTime>,
    /// Why it failed.
    pub error: Option<JobErrorOut>,
    /// What it published.
    pub artifacts: Vec<String>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its latest attempt began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// When you asked to end it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub cancel_requested_at: Option<OffsetDateTime>,
}

impl JobOut {
    /// The wire form, now.
    pub fn new(job: &Job, state: &Caller) -> Self {
        let now = state.clock.now();
        let progress = &job.progress;
        Self {
            id: job.id.to_string(),
            object: "job",
            status: job.state.as_str(),
            model: job.model.to_string(),
            kind: if job.is_analysis() {
                "analysis"
            } else {
                "compression"
            },
            recipe: job.recipe.clone(),
            priority: job.priority,
            metadata: job.metadata.clone(),
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            planned_memory_bytes: job.need_memory_bytes,
            waiting_for: waiting_for(job, state.limits.plan_memory_bytes),
            progress: fraction(job),
            stage: progress
                .stage
                .as_ref()
                .filter(|_| !job.state.is_terminal())
                .map(|name| StageOut {
                    name: name.clone(),
                    index: progress.stage_index,
                    of: progress.stages,
                }),
            bytes_done: progress.bytes_done,
            bytes_total: progress.bytes_total,
            bytes_per_second: progress.bytes_per_second,
            estimated_finish_at: estimate(job, now),
            error: job.failure.as_ref().map(|failure| JobErrorOut {
                code: failure.code.clone(),
                message: failure.message.clone(),
            }),
            artifacts: job.artifacts.iter().map(ToString::to_string).collect(),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            cancel_requested_at: job.cancel_requested_at,
        }
    }
}

/// A job that was planned when workers had more memory is left for a worker that has it.
fn waiting_for(job: &Job, memory_bytes: Option<u64>) -> Option<String> {
    let (need, allowed) = (job.need_memory_bytes, memory_bytes?);
    (job.state == JobState::Queued && need > allowed).then(|| {
        format!(
            "a worker with memory: the plan asks for {need} bytes, and the workers of this server may use {allowed} \
             (worker_memory_bytes)"
        )
    })
}

fn fraction(job: &Job) -> f64 {
    let (done, total) = (job.progress.bytes_done, job.progress.bytes_total);
    match job.state {
        JobState::Succeeded => 1.0,
        _ if total == 0 => 0.0,
        _ => (done as f64 / total as f64).clamp(0.0, 1.0),
    }
}

fn estimate(job: &Job, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let speed = job.progress.bytes_per_second;
    if job.state != JobState::Running || speed <= 0.0 {
        return None;
    }
    let left = job.progress.bytes_total.saturating_sub(job.progress.bytes_done) as f64 / speed;
    let seconds = left.clamp(0.0, 3e8).ceil();
    now.checked_add(Duration::seconds(seconds as i64))
}

/// A line of a job's history.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventOut {
    /// Counts from 1 without gaps; the `id` of the event stream.
    #[schema(example = 3)]
    pub seq: u64,
    /// Always `job.event`.
    #[schema(example = "job.event")]
    pub object: &'static str,
    /// `state`, `message` or `metrics`.
    #[serde(rename = "type")]
    #[schema(example = "state")]
    pub kind: String,
    /// `info`, `warning` or `error`.
    #[schema(example = "info")]
    pub level: String,
    /// For people.
    #[schema(example = "job is running")]
    pub message: String,
    /// For programs.
    #[schema(value_type = Object)]
    pub data: Value,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl From<&Event> for EventOut {
    fn from(event: &Event) -> Self {
        Self {
            seq: event.seq,
            object: "job.event",
            kind: event.kind.clone(),
            level: event.level.clone(),
            message: event.message.clone(),
            data: event.data.clone(),
            created_at: event.at,
        }
    }
}
