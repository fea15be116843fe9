//! `GET /v1/searches/{id}`.

use axum::Json;

use super::SearchOut;
use crate::domain::SearchId;
use crate::http::auth::{May, ReadJobs};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Get a search
///
/// Every recipe with what came of it, and which of them are worth having: those that no other beats in size, loss and,
/// where all were timed, decoding speed.
#[utoipa::path(
    get, path = "/v1/searches/{id}", tag = "searches", operation_id = "getSearch",
    security(("key" = ["jobs:read"])),
    params(("id" = String, Path, description = "The search", example = "srch_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The search", body = SearchOut)),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn get_search(
    May(state, ..): May<ReadJobs>,
    Id(id): Id<SearchId>,
) -> Result<Json<SearchOut>, Problem> {
    let search = state.store.search(id).await.map_err(about("search", &id))?;
    Ok(Json(SearchOut::read(&search, &state).await?))
}
