//! `DELETE /v1/keys/{id}`.

use axum::http::StatusCode;

use crate::domain::KeyId;
use crate::http::auth::{Admin, May};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Revoke a key
///
/// It opens nothing from now on (on other nodes within five seconds). Its row stays, so that a log that names it can
/// be read. Revoking it again changes nothing.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "keys", operation_id = "revokeKey",
    security(("key" = ["admin"])),
    params(("id" = String, Path, description = "The key", example = "key_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 204, description = "It is revoked")),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn revoke_key(May(state, ..): May<Admin>, Id(id): Id<KeyId>) -> Result<StatusCode, Problem> {
    let revoked = state.store.revoke_key(id, state.clock.now()).await;
    let key = revoked.map_err(about("key", &id))?;
    state.gate.forget(id);
    tracing::info!(key = %id, tenant = %key.tenant, "key revoked");
    Ok(StatusCode::NO_CONTENT)
}
