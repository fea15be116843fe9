//! `/v1/uploads`: files by offset, so that a broken connection costs only what was in flight.
//!
//! Owns: the upload's wire form and headers.
//! Must not know: where bytes are.
//! Invariant: an offset is answered only when it is durable.

pub mod append;
pub mod create;
pub mod delete;
pub mod get;
pub mod head;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::Upload;
use crate::domain::ports::BlobError;
use crate::http::problem::{self, Problem};
use crate::http::state::AppState;

/// An upload.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadOut {
    /// Identifier.
    #[schema(example = "upl_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `upload`.
    #[schema(example = "upload")]
    pub object: &'static str,
    /// `open` takes bytes; `complete` can become a file of a model.
    #[schema(example = "open")]
    pub status: &'static str,
    /// Bytes that are durable.
    #[schema(example = 0)]
    pub offset: u64,
    /// Announced size.
    #[schema(example = 269_060_552)]
    pub length: Option<u64>,
    /// SHA-256, once complete.
    pub digest: Option<String>,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it is deleted unless a model has taken it.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

impl UploadOut {
    fn new(upload: &Upload, offset: u64) -> Self {
        Self {
            id: upload.id.to_string(),
            object: "upload",
            status: if upload.complete.is_some() {
                "complete"
            } else {
                "open"
            },
            offset,
            length: upload
                .length
                .or(upload.complete.as_ref().map(|(_, bytes)| *bytes)),
            digest: upload
                .complete
                .as_ref()
                .map(|(digest, _)| format!("sha256:{digest}")),
            created_at: upload.created_at,
            expires_at: upload.expires_at,
        }
    }
}

/// Where an upload stands; asking ends a request that is still writing to it.
async fn offset(state: &AppState, upload: &Upload) -> Result<u64, Problem> {
    match &upload.complete {
        Some((_, bytes)) => Ok(*bytes),
        None => state.uploads.offset(upload.id).await.map_err(lost),
    }
}

/// A row without bytes: the upload cannot go on.
fn lost(error: BlobError) -> Problem {
    match error {
        BlobError::NotFound => Problem::new(problem::GONE, "the upload's bytes are gone; start again"),
        other => other.into(),
    }
}

/// The headers that say where an upload stands.
fn stand(response: &mut Response, upload: &Upload, offset: u64) {
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static("upload-offset"),
        HeaderValue::from(offset),
    );
    if let Some(length) = upload.length {
        headers.insert(
            HeaderName::from_static("upload-length"),
            HeaderValue::from(length),
        );
    }
    let complete = if upload.complete.is_some() { "?1" } else { "?0" };
    headers.insert(
        HeaderName::from_static("upload-complete"),
        HeaderValue::from_static(complete),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
