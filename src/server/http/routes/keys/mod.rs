//! `/v1/keys`: who may use the API.
//!
//! Owns: the key's wire form; making a key from what a request asks for.
//! Must not know: how keys are checked.
//! Invariant: a key's text leaves once, in the answer that made it.

pub mod create;
pub mod get;
pub mod list;
pub mod own;
pub mod revoke;
pub mod rotate;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::ApiKey;
use crate::domain::key::{Asked, issue};
use crate::http::auth::Caller;

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyOut {
    /// Identifier; the first part of the key's text.
    #[schema(example = "key_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `key`.
    #[schema(example = "key")]
    pub object: &'static str,
    /// What you call it.
    #[schema(example = "nightly pipeline")]
    pub name: String,
    /// Whose things it opens.
    #[schema(example = "default")]
    pub tenant: String,
    /// What it may do; writing includes reading, `admin` everything.
    #[schema(example = json!(["models:write", "jobs:write", "artifacts:read"]))]
    pub scopes: Vec<&'static str>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it runs out.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
    /// When it was revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
}

impl From<&ApiKey> for KeyOut {
    fn from(key: &ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            object: "key",
            name: key.name.clone(),
            tenant: key.tenant.to_string(),
            scopes: key.scopes.iter().map(|scope| scope.as_str()).collect(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
        }
    }
}

/// A new key, with its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewKeyOut {
    /// The key's text, for `Authorization: Bearer`. It is shown this once; only a digest of it is kept.
    #[schema(example = "mp_0193d0a67c1e7bd08d532f5a9f1d1c11_…")]
    pub token: String,
    /// The key.
    pub key: KeyOut,
}

/// A new key of the caller's tenant, and its text.
fn new(state: &Caller, asked: Asked) -> (ApiKey, String) {
    let (id, secret) = (uuid::Uuid::now_v7(), rand::random());
    issue(asked, id, secret, state.clock.now())
}
