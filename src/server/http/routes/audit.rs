//! `GET /v1/audit`: who changed what.

use axum::extract::OriginalUri;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::{Entry, EntryId};
use crate::http::auth::{Admin, May};
use crate::http::input::Params;
use crate::http::page::{self, PageOut};
use crate::http::problem::Problem;
use crate::http::routes::models::list::PageIn;

/// A change.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntryOut {
    /// Identifier.
    #[schema(example = "aud_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `audit_entry`.
    #[schema(example = "audit_entry")]
    pub object: &'static str,
    /// Method and route, as in this reference.
    #[schema(example = "POST /v1/jobs")]
    pub action: String,
    /// What it was done to, or what it made.
    #[schema(example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub target: Option<String>,
    /// The key that was shown; null where none is asked for.
    #[schema(example = "key_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub key: Option<String>,
    /// The request's id, as in the log and in `X-Request-Id`.
    #[schema(example = "0193d0a6-7c1e-7bd0-8d53-2f5a9f1d1c11")]
    pub request_id: String,
    /// The address that the request came from.
    #[schema(example = "192.0.2.7")]
    pub client: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl From<&Entry> for AuditEntryOut {
    fn from(entry: &Entry) -> Self {
        Self {
            id: entry.id.to_string(),
            object: "audit_entry",
            action: entry.action.clone(),
            target: entry.object.clone(),
            key: entry.key.map(|key| key.to_string()),
            request_id: entry.request_id.clone(),
            client: entry.client.clone(),
            created_at: entry.at,
        }
    }
}

/// List changes
///
/// Everything that was made, changed, cancelled or deleted through the API, newest first; kept `keep_audit_days`.
#[utoipa::path(
    get, path = "/v1/audit", tag = "keys", operation_id = "listAuditEntries",
    security(("key" = ["admin"])),
    params(PageIn),
    responses((status = 200, description = "A page of changes", body = PageOut<AuditEntryOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "request_timeout"])))
)]
pub async fn list_audit_entries(
    May(state, ..): May<Admin>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<PageIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let after: Option<EntryId> = state.cursors.open_id("audit", asked.after.as_deref())?;
    let entries = state.store.list_entries(after, limit + 1).await?;
    let page = PageOut::of(
        &entries,
        limit,
        |row| AuditEntryOut::from(row),
        |last| state.cursors.seal("audit", &last.id.to_string()),
    );
    Ok(page::render(&uri, &page))
}
