//! `GET /v1/jobs/{id}`.

use axum::Json;

use super::JobOut;
use crate::domain::JobId;
use crate::http::auth::{May, ReadJobs};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Get a job
///
/// Status, stage, progress from 0 to 1, speed and estimated end. To follow a job use its events.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "getJob",
    security(("key" = ["jobs:read"])),
    params(("id" = String, Path, description = "The job", example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The job", body = JobOut)),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn get_job(May(state, ..): May<ReadJobs>, Id(id): Id<JobId>) -> Result<Json<JobOut>, Problem> {
    let job = state.store.job(id).await.map_err(about("job", &id))?;
    Ok(Json(JobOut::new(&job, &state)))
}
