//! `GET /v1/datasets`.

use axum::extract::OriginalUri;
use axum::response::Response;

use super::DatasetOut;
use crate::domain::DatasetId;
use crate::http::auth::{May, ReadDatasets};
use crate::http::input::Params;
use crate::http::page::{self, PageOut};
use crate::http::problem::Problem;
use crate::http::routes::models::list::PageIn;

/// List datasets
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/datasets", tag = "datasets", operation_id = "listDatasets",
    security(("key" = ["datasets:read"])),
    params(PageIn),
    responses((status = 200, description = "A page of datasets", body = PageOut<DatasetOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "request_timeout"])))
)]
pub async fn list_datasets(
    May(state, ..): May<ReadDatasets>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<PageIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let after: Option<DatasetId> = state.cursors.open_id("datasets", asked.after.as_deref())?;
    let datasets = state.store.list_datasets(after, limit + 1).await?;
    let page = PageOut::of(
        &datasets,
        limit,
        |row| DatasetOut::from(row),
        |last| state.cursors.seal("datasets", &last.id.to_string()),
    );
    Ok(page::render(&uri, &page))
}
