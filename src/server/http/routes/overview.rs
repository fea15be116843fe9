//! `GET /v1/overview`: what is going on, at a glance.
//!
//! Owns: its wire form, what counts as lately.
//! Must not know: how rows are summed up.
//! Invariant: only the caller's own things are counted; the disk and the memory are this process's.

use axum::Json;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use crate::domain::{JobState, Overview};
use crate::http::auth::{May, ReadJobs};
use crate::http::problem::Problem;

/// How far back failures are counted.
const LATELY: Duration = Duration::DAY;

/// Jobs in each state.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobCountsOut {
    /// Waiting.
    pub queued: u64,
    /// At work.
    pub running: u64,
    /// Done.
    pub succeeded: u64,
    /// Ended by an error.
    pub failed: u64,
    /// Ended on request.
    pub cancelled: u64,
}

/// Failures with one code.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureCountOut {
    /// The error's code.
    #[schema(example = "out_of_memory")]
    pub code: String,
    /// How many jobs.
    pub count: u64,
}

/// What is going on.
#[derive(Debug, Serialize, ToSchema)]
pub struct OverviewOut {
    /// Always `overview`.
    #[schema(example = "overview")]
    pub object: &'static str,
    /// Version of the process that answers.
    #[schema(example = "0.1.0")]
    pub version: &'static str,
    /// True where it is going away and takes no more work.
    pub draining: bool,
    /// Jobs in each state, as long as they are kept.
    pub jobs: JobCountsOut,
    /// Creation of the oldest waiting job; null where none waits.
    #[serde(with = "time::serde::rfc3339::option")]
    pub oldest_queued_at: Option<OffsetDateTime>,
    /// Jobs that failed in the last 24 hours, by code, the most frequent first.
    pub failures_24h: Vec<FailureCountOut>,
    /// Bytes of the models that artifacts were made from, once for each artifact.
    pub source_bytes: u64,
    /// Bytes of these artifacts.
    pub artifact_bytes: u64,
    /// Bytes of everything that is stored: models, datasets, artifacts, uploads.
    pub stored_bytes: u64,
    /// How many may be stored; null where there is no bound.
    pub quota_bytes: Option<u64>,
    /// Free space on the data folder's disk; null where it cannot be told.
    pub disk_free_bytes: Option<u64>,
    /// Size of that disk.
    pub disk_total_bytes: Option<u64>,
    /// Memory that the plans of jobs running in this process may ask for at once; null where it has no workers.
    pub memory_limit_bytes: Option<u64>,
    /// Memory that the plans of the running jobs ask for, on all nodes.
    pub memory_planned_bytes: u64,
}

/// See what is going on
///
/// Jobs by state, what failed in the last day, what artifacts saved, and the room that is left.
#[utoipa::path(
    get, path = "/v1/overview", tag = "system", operation_id = "getOverview",
    security(("key" = ["jobs:read"])),
    responses((status = 200, description = "The sums", body = OverviewOut)),
    extensions(("x-problem-codes" = json!(["request_timeout"])))
)]
pub async fn get_overview(May(state, ..): May<ReadJobs>) -> Result<Json<OverviewOut>, Problem> {
    let sums = state.store.overview(state.clock.now() - LATELY).await?;
    let stored_bytes = state.store.stored_bytes().await?;
    let about = &state.about;
    Ok(Json(OverviewOut {
        object: "overview",
        version: env!("CARGO_PKG_VERSION"),
        draining: state.drain.is_cancelled(),
        jobs: counts(&sums),
        oldest_queued_at: sums.oldest_queued_at,
        failures_24h: sums
            .failures
            .into_iter()
            .map(|(code, count)| FailureCountOut { code, count })
            .collect(),
        source_bytes: sums.source_bytes,
        artifact_bytes: sums.artifact_bytes,
        stored_bytes,
        quota_bytes: state.limits.tenant.bytes,
        disk_free_bytes: fs4::available_space(&about.data_dir).ok(),
        disk_total_bytes: fs4::total_space(&about.data_dir).ok(),
        memory_limit_bytes: about.worker_memory_bytes,
        memory_planned_bytes: sums.planned_memory_bytes,
    }))
}

fn counts(sums: &Overview) -> JobCountsOut {
    let of = |wanted: JobState| {
        let found = sums.jobs.iter().find(|(state, _)| *state == wanted);
        found.map_or(0, |(_, count)| *count)
    };
    JobCountsOut {
        queued: of(JobState::Queued),
        running: of(JobState::Running),
        succeeded: of(JobState::Succeeded),
        failed: of(JobState::Failed),
        cancelled: of(JobState::Cancelled),
    }
}
