//! `PATCH /v1/uploads/{id}`: the next bytes.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::{lost, stand};
use crate::domain::ports::{BlobError, Hash};
use crate::domain::{Upload, UploadId};
use crate::http::headers;
use crate::http::path::Id;
use crate::http::problem::{self, Problem, shorten};
use crate::http::refuse::about;
use crate::http::routes::models::files::stream;
use crate::http::state::AppState;
use crate::http::undo::Undo;

const TYPES: [&str; 3] = [
    "application/offset+octet-stream",
    "application/partial-upload",
    "application/octet-stream",
];

/// Send bytes to an upload
///
/// `Upload-Offset` says where they go and must be where the upload stands; otherwise 409 names the true offset.
/// What arrives is kept even when the connection breaks. The upload is complete when the announced length is
/// reached, or by `Upload-Complete: ?1`; then `Repr-Digest`, if given, is checked.
/// A newer request on the same upload ends an older one.
#[utoipa::path(
    patch, path = "/v1/uploads/{id}", tag = "uploads", operation_id = "appendUpload",
    params(
        ("id" = String, Path, description = "The upload", example = "upl_0193d0a67c1e7bd08d532f5a9f1d1c11"),
        ("Upload-Offset" = u64, Header, description = "Where the bytes go", example = 0),
        ("Upload-Complete" = Option<String>, Header, description = "`?1` if these are the last bytes"),
        ("Repr-Digest" = Option<String>, Header, description = "`sha-256=:<base64>:` of the whole file"),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream", description = "The bytes"),
    responses((status = 204, description = "The bytes are durable",
               headers(("Upload-Offset" = u64), ("Upload-Complete" = String)))),
    extensions(("x-problem-codes" = json!(["header_invalid", "body_truncated", "digest_mismatch", "not_found",
        "idle_timeout", "conflict", "offset_mismatch", "upload_superseded", "gone", "too_large",
        "unsupported_media_type", "disk_full"])))
)]
pub async fn append_upload(
    State(state): State<AppState>,
    Id(id): Id<UploadId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let offset = headers::number(&headers, "upload-offset")?;
    let last = headers::boolean(&headers, "upload-complete")?;
    let expected = headers::repr_digest(&headers)?;
    check_type(&headers)?;
    let mut upload = state.store.upload(id).await.map_err(about("upload", &id))?;
    if let Some((_, bytes)) = &upload.complete {
        let detail = "the upload is complete and takes no more bytes";
        return Err(Problem::new(problem::CONFLICT, detail)
            .with_code("upload_complete")
            .with_offset(*bytes));
    }
    let reached = append(&state, &upload, offset, &headers, body).await?;
    state.metrics.uploads_received_bytes.inc_by(reached - offset);
    if upload.length == Some(reached) || (upload.length.is_none() && last == Some(true)) {
        upload.complete = Some(complete(&state, id, expected).await?);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    stand(&mut response, &upload, reached);
    Ok(response)
}

async fn append(
    state: &AppState,
    upload: &Upload,
    offset: u64,
    headers: &HeaderMap,
    body: Body,
) -> Result<u64, Problem> {
    let most = upload.length.unwrap_or(u64::MAX);
    let bounds = state.bounds(most, headers::content_length(headers));
    match state
        .uploads
        .append(upload.id, offset, stream(body), bounds)
        .await
    {
        Ok(reached) => Ok(reached),
        Err(error @ BlobError::TooLarge { .. }) => {
            // More bytes than announced: the client's idea of the file is wrong, and so is what arrived.
            remove(state, upload.id).await?;
            Err(error.into())
        }
        Err(error) => Err(lost(error)),
    }
}

/// Publishes an upload that has all its bytes; other bytes than promised end it.
pub(super) async fn complete(
    state: &AppState,
    id: UploadId,
    expected: Option<Hash>,
) -> Result<(String, u64), Problem> {
    match state.uploads.finish(id, expected).await {
        Ok(stored) => {
            let (digest, bytes) = (stored.digest.clone(), stored.bytes);
            let mut undo = Undo::new(state.blobs.clone());
            undo.add(stored);
            state.store.complete_upload(id, &digest, bytes).await?;
            undo.keep();
            Ok((digest, bytes))
        }
        Err(error @ BlobError::DigestMismatch { .. }) => {
            remove(state, id).await?;
            Err(error.into())
        }
        Err(error) => Err(lost(error)),
    }
}

async fn remove(state: &AppState, id: UploadId) -> Result<(), Problem> {
    state.store.delete_upload(id).await?;
    match state.uploads.abandon(id).await {
        Ok(()) | Err(BlobError::NotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers::media_type(headers);
    if given.is_empty() || TYPES.contains(&given.as_str()) {
        return Ok(());
    }
    let detail = format!("the content type is {}; send {}", shorten(&given), TYPES[0]);
    Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail))
}
