//! `GET /v1/keys`.

use axum::extract::OriginalUri;
use axum::response::Response;

use super::KeyOut;
use crate::domain::KeyId;
use crate::http::auth::{Admin, May};
use crate::http::input::Params;
use crate::http::page::{self, PageOut};
use crate::http::problem::Problem;
use crate::http::routes::models::list::PageIn;

/// List keys
///
/// Newest first, those that are revoked or have run out too.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", operation_id = "listKeys",
    security(("key" = ["admin"])),
    params(PageIn),
    responses((status = 200, description = "A page of keys", body = PageOut<KeyOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "request_timeout"])))
)]
pub async fn list_keys(
    May(state, ..): May<Admin>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<PageIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let after: Option<KeyId> = state.cursors.open_id("keys", asked.after.as_deref())?;
    let keys = state.store.list_keys(after, limit + 1).await?;
    let page = PageOut::of(
        &keys,
        limit,
        |row| KeyOut::from(row),
        |last| state.cursors.seal("keys", &last.id.to_string()),
    );
    Ok(page::render(&uri, &page))
}
