//! `POST /v1/uploads`.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::append::{Piece, receive};
use super::{UploadOut, check_length, limit, stand, tus};
use crate::domain::{Upload, UploadId};
use crate::http::auth::{Caller, May, WriteUploads};
use crate::http::headers;
use crate::http::input::{Input, not_encoded};
use crate::http::problem::{self, Problem};

/// What is known of a file before its bytes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadIn {
    /// Its size. Without it the last request says `Upload-Complete: ?1`.
    #[schema(example = 269_060_552)]
    pub length: Option<u64>,
}

/// Start an upload
///
/// Then send bytes with `PATCH`; after a broken connection ask with `HEAD` where to go on.
/// Files of one model can be uploaded side by side.
///
/// Three dialects: this API's JSON; tus 1.0 with `Tus-Resumable: 1.0.0` and `Upload-Length` or `Upload-Defer-Length: 1`;
/// the IETF's draft with `Upload-Complete`. The latter two may bring the first bytes along.
#[utoipa::path(
    post, path = "/v1/uploads", tag = "uploads", operation_id = "createUpload",
    security(("key" = ["uploads:write"])),
    params(
        ("Tus-Resumable" = Option<String>, Header, description = "`1.0.0` of tus clients"),
        ("Upload-Length" = Option<u64>, Header, description = "The size, without JSON"),
        ("Upload-Defer-Length" = Option<String>, Header, description = "`1`: the size comes later (tus)"),
        ("Upload-Complete" = Option<String>, Header, description = "Whether the body is the whole file (IETF)"),
        ("Upload-Metadata" = Option<String>, Header, description = "Pairs of a key and base64, given back by `HEAD` (tus)"),
        ("Upload-Checksum" = Option<String>, Header, description = "Of the bytes that come along (tus)"),
    ),
    request_body(content((UploadIn = "application/json"), (Vec<u8> = "application/offset+octet-stream"))),
    responses((status = 201, description = "An open upload", body = UploadOut,
               headers(("Location" = String, description = "Where to send bytes"), ("Upload-Offset" = u64),
                       ("Upload-Expires" = String), ("Upload-Limit" = String)))),
    extensions(("x-problem-codes" = json!(["json_invalid", "header_invalid", "body_truncated", "digest_mismatch",
        "idle_timeout", "tus_version", "too_large", "unsupported_media_type", "fields_invalid", "checksum_mismatch",
        "quota_exceeded", "disk_full"])))
)]
pub async fn create_upload(May(state, ..): May<WriteUploads>, request: Request) -> Result<Response, Problem> {
    let headers = request.headers();
    let is_draft = headers.contains_key("upload-complete");
    if !tus::speaks(headers) && !is_draft {
        let input = Input::<UploadIn>::in_time(request, &state.app).await?;
        let upload = begin(&state, input.value.length, None).await?;
        return Ok(created(&state, &upload, 0));
    }
    not_encoded(headers)?;
    let piece = Piece::of(headers, 0)?;
    let (length, metadata) = (length(headers)?, headers::upload_metadata(headers)?);
    // tus tells bytes from no bytes by their type, the draft has bytes always.
    let brings = is_draft || headers::media_type(headers) == tus::BYTES;
    let mut upload = begin(&state, length, metadata).await?;
    let reached = if brings && upload.complete.is_none() {
        receive(&state, &mut upload, &piece, request.into_body()).await?
    } else {
        0
    };
    Ok(created(&state, &upload, reached))
}

/// The size that headers announce: tus wants one said or put off, the draft does not mind.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let length = headers::optional_number(headers, "upload-length")?;
    let deferred = headers::optional_number(headers, "upload-defer-length")?;
    if tus::speaks(headers) && (length.is_some() == deferred.is_some() || deferred.is_some_and(|n| n != 1)) {
        let detail = "Upload-Length: give it, or Upload-Defer-Length: 1 instead";
        return Err(Problem::new(problem::HEADER_INVALID, detail));
    }
    Ok(length)
}

/// A new upload; one of no bytes is complete.
async fn begin(state: &Caller, length: Option<u64>, metadata: Option<String>) -> Result<Upload, Problem> {
    if let Some(length) = length {
        check_length(state, length)?;
        state.check_bytes(length).await?;
    }
    let now = state.clock.now();
    let id = UploadId::from_uuid(uuid::Uuid::now_v7());
    let mut upload = Upload {
        id,
        length,
        metadata,
        complete: None,
        created_at: now,
        expires_at: now + state.limits.upload_age,
    };
    state.uploads.begin(id).await?;
    if let Err(error) = state.store.insert_upload(&upload).await {
        state.uploads.abandon(id).await?;
        return Err(error.into());
    }
    if length == Some(0) {
        upload.complete = Some(super::append::complete(state, id, None).await?);
    }
    Ok(upload)
}

fn created(state: &Caller, upload: &Upload, offset: u64) -> Response {
    let location = format!("/v1/uploads/{}", upload.id);
    let body = Json(UploadOut::new(upload, offset));
    let mut response = (StatusCode::CREATED, [(header::LOCATION, location)], body).into_response();
    stand(&mut response, upload, offset);
    limit(&mut response, state, Some(upload));
    response
}
