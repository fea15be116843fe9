//! `POST /v1/searches/{id}/cancel`.

use axum::Json;

use super::SearchOut;
use crate::domain::SearchId;
use crate::domain::ports::StoreError;
use crate::http::auth::{May, WriteJobs};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Cancel a search
///
/// Cancels each of its jobs that is not over. What is done stays; a search that is over or cancelled answers itself.
#[utoipa::path(
    post, path = "/v1/searches/{id}/cancel", tag = "searches", operation_id = "cancelSearch",
    security(("key" = ["jobs:write"])),
    params(("id" = String, Path, description = "The search", example = "srch_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The search, cancelled or about to be", body = SearchOut)),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn cancel_search(
    May(state, ..): May<WriteJobs>,
    Id(id): Id<SearchId>,
) -> Result<Json<SearchOut>, Problem> {
    let search = state
        .store
        .cancel_search(id)
        .await
        .map_err(about("search", &id))?;
    for job in search.points.iter().filter_map(|point| point.job) {
        match state.store.cancel_job(job, "its search was cancelled").await {
            // Over already, or gone with old jobs.
            Ok(_) | Err(StoreError::Conflict(_) | StoreError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    state.news.notify_waiters();
    state.wake.notify_waiters();
    Ok(Json(SearchOut::read(&search, &state).await?))
}
