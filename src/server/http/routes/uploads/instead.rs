//! `POST /v1/uploads/{id}`: another method, for clients behind something that lets only `GET` and `POST` through.
//!
//! Owns: which methods may be meant. Must not know: what they do.
//! Invariant: without the header nothing happens.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use crate::domain::UploadId;
use crate::http::auth::{May, WriteUploads};
use crate::http::path::Id;
use crate::http::problem::{self, Problem};

/// Use another method
///
/// `X-HTTP-Method-Override: PATCH`, `DELETE` or `HEAD` does what that method does.
#[utoipa::path(
    post, path = "/v1/uploads/{id}", tag = "uploads", operation_id = "overrideUploadMethod",
    security(("key" = ["uploads:write"])),
    params(
        ("id" = String, Path, description = "The upload", example = "upl_0193d0a67c1e7bd08d532f5a9f1d1c11"),
        ("X-HTTP-Method-Override" = String, Header, description = "The method that is meant", example = "PATCH"),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream", description = "For `PATCH`"),
    responses((status = 204, description = "As the other method answers")),
    extensions(("x-problem-codes" = json!(["header_invalid", "body_truncated", "digest_mismatch", "checksum_mismatch",
        "not_found", "idle_timeout", "conflict", "offset_mismatch", "upload_superseded", "gone", "too_large",
        "unsupported_media_type", "quota_exceeded", "disk_full"])))
)]
pub async fn override_upload_method(
    caller: May<WriteUploads>,
    Id(id): Id<UploadId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let meant = headers.get("x-http-method-override").map(HeaderValue::as_bytes);
    match meant {
        Some(b"PATCH") => super::append::append_upload(caller, Id(id), headers, body).await,
        Some(b"DELETE") => Ok(super::delete::delete_upload(caller, Id(id))
            .await?
            .into_response()),
        Some(b"HEAD") => super::head::head_upload(caller, Id(id)).await,
        _ => Err(Problem::new(
            problem::HEADER_INVALID,
            "X-HTTP-Method-Override: must be PATCH, DELETE or HEAD; send bytes with PATCH",
        )),
    }
}
