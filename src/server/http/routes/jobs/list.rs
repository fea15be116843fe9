//! `GET /v1/jobs`.

use axum::extract::OriginalUri;
use axum::response::Response;
use serde::Deserialize;

use super::JobOut;
use crate::domain::ports::JobFilter;
use crate::http::auth::{May, ReadJobs};
use crate::http::input::{Params, wanted};
use crate::http::page::{self, PageOut};
use crate::http::problem::Problem;

/// Filters and page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsIn {
    /// Only jobs in this state: `queued`, `running`, `succeeded`, `failed`, `cancelled`.
    pub status: Option<String>,
    /// Only jobs of this model.
    pub model: Option<String>,
    /// Items a page, 1 to 100 (20 unless given).
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub after: Option<String>,
}

/// List jobs
///
/// Newest first; new jobs do not disturb pages already begun.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", operation_id = "listJobs",
    security(("key" = ["jobs:read"])),
    params(JobsIn),
    responses((status = 200, description = "A page of jobs", body = PageOut<JobOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "request_timeout"])))
)]
pub async fn list_jobs(
    May(state, ..): May<ReadJobs>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<JobsIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let words = format!(
        "jobs|{}|{}",
        asked.status.as_deref().unwrap_or_default(),
        asked.model.as_deref().unwrap_or_default()
    );
    let filter = JobFilter {
        state: wanted(asked.status.as_deref(), "status", "is not a job state")?,
        model: wanted(asked.model.as_deref(), "model", "is not a model's identifier")?,
        after: state.cursors.open_id(&words, asked.after.as_deref())?,
        limit: limit + 1,
    };
    let jobs = state.store.list_jobs(&filter).await?;
    let page = PageOut::of(
        &jobs,
        limit,
        |job| JobOut::new(job, &state),
        |last| state.cursors.seal(&words, &last.id.to_string()),
    );
    Ok(page::render(&uri, &page))
}
