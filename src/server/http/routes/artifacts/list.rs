//! `GET /v1/artifacts`.

use axum::extract::OriginalUri;
use axum::response::Response;
use serde::Deserialize;

use super::ArtifactOut;
use crate::domain::ArtifactFilter;
use crate::http::auth::{May, ReadArtifacts};
use crate::http::input::{Params, wanted};
use crate::http::page::{self, PageOut};
use crate::http::problem::Problem;

/// Filters and page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ArtifactsIn {
    /// Only what this job made.
    pub job: Option<String>,
    /// Only what was made from this model.
    pub model: Option<String>,
    /// Items a page, 1 to 100 (20 unless given).
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub after: Option<String>,
}

/// List artifacts
///
/// Newest first; new artifacts do not disturb pages already begun.
#[utoipa::path(
    get, path = "/v1/artifacts", tag = "artifacts", operation_id = "listArtifacts",
    security(("key" = ["artifacts:read"])),
    params(ArtifactsIn),
    responses((status = 200, description = "A page of artifacts", body = PageOut<ArtifactOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "request_timeout"])))
)]
pub async fn list_artifacts(
    May(state, ..): May<ReadArtifacts>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<ArtifactsIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let words = format!(
        "artifacts|{}|{}",
        asked.job.as_deref().unwrap_or_default(),
        asked.model.as_deref().unwrap_or_default()
    );
    let filter = ArtifactFilter {
        job: wanted(asked.job.as_deref(), "job", "is not a job's identifier")?,
        model: wanted(asked.model.as_deref(), "model", "is not a model's identifier")?,
        after: state.cursors.open_id(&words, asked.after.as_deref())?,
        limit: limit + 1,
    };
    let artifacts = state.store.list_artifacts(&filter).await?;
    let page = PageOut::of(
        &artifacts,
        limit,
        |artifact| ArtifactOut::from(artifact),
        |last| state.cursors.seal(&words, &last.id.to_string()),
    );
    Ok(page::render(&uri, &page))
}
