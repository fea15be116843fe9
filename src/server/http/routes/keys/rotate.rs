//! `POST /v1/keys/{id}/rotate`.

use axum::response::Response;
use serde::Deserialize;
use time::Duration;
use utoipa::ToSchema;

use super::create::made;
use super::{NewKeyOut, new};
use crate::domain::KeyId;
use crate::domain::key::Asked;
use crate::http::auth::{Admin, May};
use crate::http::input::Input;
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// How long both keys are good unless the request says.
const OVERLAP_SECONDS: u32 = 24 * 3600;
/// The longest they may be.
const MOST_SECONDS: u32 = 30 * 24 * 3600;

/// How to change over.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap_seconds": 3600}))]
pub struct RotateIn {
    /// Seconds for which the old key stays good, up to 30 days.
    #[serde(default = "overlap")]
    #[schema(minimum = 0, maximum = 2_592_000, default = 86_400)]
    pub overlap_seconds: u32,
}

fn overlap() -> u32 {
    OVERLAP_SECONDS
}

/// Rotate a key
///
/// A new key of the same name, scopes and end; the old one stays good for a while, so that its users can change over.
#[utoipa::path(
    post, path = "/v1/keys/{id}/rotate", tag = "keys", operation_id = "rotateKey",
    security(("key" = ["admin"])),
    params(("id" = String, Path, description = "The key", example = "key_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    request_body = RotateIn,
    responses((status = 201, description = "The new key, with its text", body = NewKeyOut,
               headers(("Location" = String, description = "Where the new key is")))),
    extensions(("x-problem-codes" = json!(["json_invalid", "body_truncated", "not_found", "conflict", "too_large",
        "unsupported_media_type", "fields_invalid", "request_timeout"])))
)]
pub async fn rotate_key(
    May(state, ..): May<Admin>,
    Id(id): Id<KeyId>,
    input: Input<RotateIn>,
) -> Result<Response, Problem> {
    let seconds = input.value.overlap_seconds;
    if seconds > MOST_SECONDS {
        let detail = format!("the old key stays good for at most {MOST_SECONDS} seconds");
        return Err(Problem::field("/overlap_seconds", "out_of_range", detail));
    }
    let old = state.store.key(id).await.map_err(about("key", &id))?;
    let now = state.clock.now();
    let asked = Asked {
        tenant: old.tenant,
        name: old.name,
        scopes: old.scopes,
        expires_at: old.expires_at,
    };
    let (key, token) = new(&state, asked);
    let until = now + Duration::seconds(i64::from(seconds));
    let replaced = state.store.replace_key(id, &key, until).await;
    replaced.map_err(about("key", &id))?;
    state.gate.forget(id);
    tracing::info!(old = %id, key = %key.id, tenant = %key.tenant, "key rotated");
    Ok(made(&key, token))
}
