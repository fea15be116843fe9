//! `GET /v1/jobs/{id}/report`: what changed and what it cost.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use modelpress_engine::{Analysis, Report, report};

use crate::domain::ports::StoreError;
use crate::domain::{Document, Job, JobId};
use crate::http::auth::{Caller, May, ReadJobs};
use crate::http::drawn;
use crate::http::headers::accepted;
use crate::http::path::Id;
use crate::http::problem::{self, Problem};
use crate::http::refuse::about;

const JSON: &str = "application/json";
const HTML: &str = "text/html";

/// Get a job's report
///
/// Sizes, ratio, bits per weight, entropy, error per tensor, time and peak memory per stage; of an analysis, its figures. JSON, or a
/// self-contained page with `Accept: text/html`. A job that failed because it missed a quality gate has one too.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/report", tag = "jobs", operation_id = "getJobReport",
    security(("key" = ["jobs:read"])),
    params(("id" = String, Path, description = "The job", example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The report", content((Object = "application/json"), (String = "text/html")))),
    extensions(("x-problem-codes" = json!(["not_found", "not_acceptable", "not_ready", "request_timeout"])))
)]
pub async fn get_report(
    May(state, ..): May<ReadJobs>,
    Id(id): Id<JobId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = accepted(&headers, &[JSON, HTML])?;
    let (job, found) = find(&state, id).await?;
    let mut response = if wanted == HTML {
        page(&job, &found)?
    } else {
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(JSON))];
        (kind, found.as_str().to_owned()).into_response()
    };
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Get a job's report as a page
///
/// The same as the report with `Accept: text/html`, for a link or a browser.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/report.html", tag = "jobs", operation_id = "getJobReportHtml",
    security(("key" = ["jobs:read"])),
    params(("id" = String, Path, description = "The job", example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
    extensions(("x-problem-codes" = json!(["not_found", "not_ready", "request_timeout"])))
)]
pub async fn get_report_html(May(state, ..): May<ReadJobs>, Id(id): Id<JobId>) -> Result<Response, Problem> {
    let (job, found) = find(&state, id).await?;
    page(&job, &found)
}

/// A job and its report.
pub(super) async fn find(state: &Caller, id: JobId) -> Result<(Job, Document), Problem> {
    let job = state.store.job(id).await.map_err(about("job", &id))?;
    let found = state.store.report(id).await.map_err(|error| match error {
        StoreError::NotFound => {
            let detail = format!(
                "job {id} is {}; a report is there when it has succeeded or missed a quality gate",
                job.state.as_str()
            );
            Problem::new(problem::NOT_READY, detail)
        }
        other => other.into(),
    })?;
    Ok((job, found))
}

/// The drawings of a report.
pub(super) fn plots_of(job: &Job, found: &Document) -> Result<Vec<report::Plot>, Problem> {
    if job.is_analysis() {
        let analysis: Analysis = found.read().map_err(Problem::internal)?;
        return Ok(report::analysis_plots(&analysis));
    }
    let read: Report = found.read().map_err(Problem::internal)?;
    Ok(report::plots(&read))
}

fn page(job: &Job, found: &Document) -> Result<Response, Problem> {
    let html = if job.is_analysis() {
        let analysis: Analysis = found.read().map_err(Problem::internal)?;
        report::analysis_html(&analysis)
    } else {
        let report: Report = found.read().map_err(Problem::internal)?;
        report::html(&report)
    };
    Ok(drawn::page(html))
}
