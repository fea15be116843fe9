//! `POST /v1/jobs/{id}/cancel`.

use axum::Json;

use super::JobOut;
use crate::domain::JobId;
use crate::http::auth::{May, WriteJobs};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Cancel a job
///
/// A waiting job ends at once; a running one is asked to stop and ends within seconds. A job that is over
/// answers 409, one that is cancelled already answers itself.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancelJob",
    security(("key" = ["jobs:write"])),
    params(("id" = String, Path, description = "The job", example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The job, cancelled or about to be", body = JobOut)),
    extensions(("x-problem-codes" = json!(["not_found", "conflict", "request_timeout"])))
)]
pub async fn cancel_job(May(state, ..): May<WriteJobs>, Id(id): Id<JobId>) -> Result<Json<JobOut>, Problem> {
    let job = state
        .store
        .cancel_job(id, "asked for by the API")
        .await
        .map_err(about("job", &id))?;
    state.news.notify_waiters();
    state.wake.notify_waiters();
    Ok(Json(JobOut::new(&job, &state)))
}
