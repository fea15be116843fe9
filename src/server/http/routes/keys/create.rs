//! `POST /v1/keys`.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{KeyOut, NewKeyOut, new};
use crate::domain::key::Asked;
use crate::domain::{ApiKey, Scope};
use crate::http::auth::{Admin, Caller, May};
use crate::http::input::Input;
use crate::http::problem::{Problem, shorten};
use crate::http::sets::check_name;

/// What the key is for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "nightly pipeline", "scopes": ["models:write", "jobs:write", "artifacts:read"]}))]
pub struct KeyIn {
    /// What you call it.
    pub name: String,
    /// What it may do: `admin`, or `<noun>:read` and `<noun>:write`; writing includes reading.
    #[schema(example = json!(["jobs:read"]))]
    pub scopes: Vec<String>,
    /// When it runs out; never unless given.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

/// Create a key
///
/// For your own tenant. The answer is the only one that holds the key's text.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", operation_id = "createKey",
    security(("key" = ["admin"])),
    request_body = KeyIn,
    responses((status = 201, description = "The key, with its text", body = NewKeyOut,
               headers(("Location" = String, description = "Where the key is")))),
    extensions(("x-problem-codes" = json!(["json_invalid", "body_truncated", "too_large", "unsupported_media_type",
        "fields_invalid", "request_timeout"])))
)]
pub async fn create_key(May(state, ..): May<Admin>, input: Input<KeyIn>) -> Result<Response, Problem> {
    let asked = checked(&state, input.value)?;
    let (key, token) = new(&state, asked);
    state.store.insert_key(&key).await?;
    tracing::info!(key = %key.id, tenant = %key.tenant, "key made");
    Ok(made(&key, token))
}

/// The answer that shows a key's text.
pub(super) fn made(key: &ApiKey, token: String) -> Response {
    let location = format!("/v1/keys/{}", key.id);
    let body = NewKeyOut {
        token,
        key: KeyOut::from(key),
    };
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response()
}

fn checked(state: &Caller, asked: KeyIn) -> Result<Asked, Problem> {
    check_name(Some(&asked.name))?;
    if asked.scopes.is_empty() {
        let detail = format!("name at least one of {}", Scope::words(Scope::ALL, ", "));
        return Err(Problem::field("/scopes", "missing_scopes", detail));
    }
    let mut scopes = Vec::new();
    for (i, word) in asked.scopes.iter().enumerate() {
        let unknown = |_e| {
            let detail = format!(
                "{} is not a scope; there are {}",
                shorten(word),
                Scope::words(Scope::ALL, ", ")
            );
            Problem::field(format!("/scopes/{i}"), "unknown_scope", detail)
        };
        let scope: Scope = word.parse().map_err(unknown)?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if asked.expires_at.is_some_and(|end| end <= state.clock.now()) {
        let detail = "the key would have run out before it is made";
        return Err(Problem::field("/expires_at", "in_the_past", detail));
    }
    Ok(Asked {
        tenant: state.tenant.clone(),
        name: asked.name,
        scopes,
        expires_at: asked.expires_at,
    })
}
