//! `GET /v1/keys/{id}`.

use axum::Json;

use super::KeyOut;
use crate::domain::KeyId;
use crate::http::auth::{Admin, May};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Get a key
///
/// Name, scopes, when it runs out and when it was last used; never its text.
#[utoipa::path(
    get, path = "/v1/keys/{id}", tag = "keys", operation_id = "getKey",
    security(("key" = ["admin"])),
    params(("id" = String, Path, description = "The key", example = "key_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The key", body = KeyOut)),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn get_key(May(state, ..): May<Admin>, Id(id): Id<KeyId>) -> Result<Json<KeyOut>, Problem> {
    let key = state.store.key(id).await.map_err(about("key", &id))?;
    Ok(Json(KeyOut::from(&key)))
}
