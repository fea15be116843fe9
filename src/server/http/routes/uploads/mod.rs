//! `/v1/uploads`: files by offset, so that a broken connection costs only what was in flight.
//!
//! One core, three dialects: JSON and offsets of our own, tus 1.0, and the IETF's draft of resumable uploads.
//!
//! Owns: the upload's wire form and headers.
//! Must not know: where bytes are.
//! Invariant: an offset is answered only when it is durable.

pub mod append;
pub mod create;
pub mod delete;
pub mod get;
pub mod head;
pub mod instead;
pub mod tus;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::ports::BlobError;
use crate::domain::{Upload, UploadId};
use crate::http::auth::Caller;
use crate::http::problem::{self, Problem};
use crate::http::refuse::about;
use crate::http::state::Parts;

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

/// Where an upload stands; asking ends a request that is still writing to it. One that has all its bytes is completed if
/// its last request could not: the client has nothing more to send.
async fn offset(state: &Caller, upload: &mut Upload) -> Result<u64, Problem> {
    if let Some((_, bytes)) = &upload.complete {
        return Ok(*bytes);
    }
    let offset = match state.uploads.offset(upload.id).await {
        Err(BlobError::NotFound) => {
            let complete = completed_meanwhile(state, upload.id).await?;
            return Ok(upload.complete.insert(complete).1);
        }
        other => other?,
    };
    if upload.complete.is_none() && upload.length == Some(offset) {
        upload.complete = Some(append::complete(state, upload.id, None).await?);
    }
    Ok(offset)
}

/// The digest and size of an upload whose bytes are away because another request has completed it.
async fn completed_meanwhile(state: &Caller, id: UploadId) -> Result<(String, u64), Problem> {
    let upload = state.store.upload(id).await.map_err(about("upload", &id))?;
    upload.complete.ok_or(BlobError::NotFound).map_err(lost)
}

/// Refuses a file that is larger than files may be.
fn check_length(state: &Caller, length: u64) -> Result<(), Problem> {
    let most = state.limits.file_bytes;
    if length <= most {
        return Ok(());
    }
    Err(Problem::new(
        problem::TOO_LARGE,
        format!("a file has at most {most} bytes"),
    ))
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
    let expires = upload.expires_at.format(&HTTP_DATE).ok();
    if let Some(expires) = expires.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(HeaderName::from_static("upload-expires"), expires);
    }
}

/// A time as HTTP writes it, always UTC.
const HTTP_DATE: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// The bounds of an upload, as the IETF's draft says them.
fn limit(response: &mut Response, state: &Parts, upload: Option<&Upload>) {
    let size = format!("max-size={}, min-size=0", state.limits.file_bytes);
    let text = match upload {
        None => size,
        Some(upload) => {
            let left = (upload.expires_at - state.clock.now()).whole_seconds().max(0);
            format!("{size}, max-age={left}")
        }
    };
    if let Ok(value) = HeaderValue::from_str(&text) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("upload-limit"), value);
    }
}
