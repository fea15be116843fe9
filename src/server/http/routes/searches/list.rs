//! `GET /v1/searches`.

use axum::extract::OriginalUri;
use axum::response::Response;

use super::SearchEntryOut;
use crate::domain::SearchId;
use crate::http::auth::{May, ReadJobs};
use crate::http::input::Params;
use crate::http::page::{self, PageOut};
use crate::http::problem::Problem;
use crate::http::routes::models::list::PageIn;

/// List searches
///
/// Newest first, without their points.
#[utoipa::path(
    get, path = "/v1/searches", tag = "searches", operation_id = "listSearches",
    security(("key" = ["jobs:read"])),
    params(PageIn),
    responses((status = 200, description = "A page of searches", body = PageOut<SearchEntryOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "request_timeout"])))
)]
pub async fn list_searches(
    May(state, ..): May<ReadJobs>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<PageIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let after: Option<SearchId> = state.cursors.open_id("searches", asked.after.as_deref())?;
    let searches = state.store.list_searches(after, limit + 1).await?;
    let page = PageOut::of(
        &searches,
        limit,
        |row| SearchEntryOut::from(row),
        |last| state.cursors.seal("searches", &last.id.to_string()),
    );
    Ok(page::render(&uri, &page))
}
