//! `GET /v1/keys/self`.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::KeyOut;
use crate::domain::Scope;
use crate::http::auth::LetIn;

/// What who asks may do.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnKeyOut {
    /// Always `own_key`.
    #[schema(example = "own_key")]
    pub object: &'static str,
    /// Whose things are seen.
    #[schema(example = "default")]
    pub tenant: String,
    /// What is allowed; writing includes reading, `admin` everything.
    #[schema(example = json!(["models:write", "jobs:write", "artifacts:read"]))]
    pub scopes: Vec<&'static str>,
    /// The key; null where none was shown because none is asked for.
    pub key: Option<KeyOut>,
}

/// See what your own key allows
///
/// Any key may ask this about itself; without one, where none is asked for, everything is allowed.
#[utoipa::path(
    get, path = "/v1/keys/self", tag = "keys", operation_id = "getOwnKey",
    security(("key" = [])),
    responses((status = 200, description = "The key and its scopes", body = OwnKeyOut)),
    extensions(("x-problem-codes" = json!(["request_timeout"])))
)]
pub async fn get_own_key(LetIn(caller): LetIn) -> Json<OwnKeyOut> {
    let scopes = match &caller.key {
        Some(key) => key.scopes.iter().map(|scope| scope.as_str()).collect(),
        None => vec![Scope::Admin.as_str()],
    };
    Json(OwnKeyOut {
        object: "own_key",
        tenant: caller.tenant.to_string(),
        scopes,
        key: caller.key.as_deref().map(KeyOut::from),
    })
}
