//! `PATCH /v1/uploads/{id}`: the next bytes.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::{completed_meanwhile, lost, stand, tus};
use crate::domain::ports::{BlobError, Checksum, Hash};
use crate::domain::{Upload, UploadId};
use crate::http::auth::{Caller, May, WriteUploads};
use crate::http::headers;
use crate::http::path::Id;
use crate::http::problem::{self, Problem, shorten};
use crate::http::refuse::about;
use crate::http::routes::models::files::stream;
use crate::http::undo::Undo;

const TYPES: [&str; 3] = [
    tus::BYTES,
    "application/partial-upload",
    "application/octet-stream",
];

/// Send bytes to an upload
///
/// `Upload-Offset` says where they go and must be where the upload stands; otherwise 409 names the true offset.
/// What arrives is kept even when the connection breaks, unless it comes with an `Upload-Checksum`: then it is kept as
/// a whole or not at all. The upload is complete when the announced length is reached, or by `Upload-Complete: ?1`;
/// then `Repr-Digest`, if given, is checked. A newer request on the same upload ends an older one.
///
/// tus 1.0 clients send `Tus-Resumable: 1.0.0`; clients of the IETF's draft send `application/partial-upload`.
#[utoipa::path(
    patch, path = "/v1/uploads/{id}", tag = "uploads", operation_id = "appendUpload",
    security(("key" = ["uploads:write"])),
    params(
        ("id" = String, Path, description = "The upload", example = "upl_0193d0a67c1e7bd08d532f5a9f1d1c11"),
        ("Upload-Offset" = u64, Header, description = "Where the bytes go", example = 0),
        ("Upload-Complete" = Option<String>, Header, description = "`?1` if these are the last bytes"),
        ("Upload-Length" = Option<u64>, Header, description = "The size, if it was not known before"),
        ("Upload-Checksum" = Option<String>, Header, description = "`sha1 <base64>` or `sha256 <base64>` of these bytes"),
        ("Repr-Digest" = Option<String>, Header, description = "`sha-256=:<base64>:` of the whole file"),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream", description = "The bytes"),
    responses((status = 204, description = "The bytes are durable",
               headers(("Upload-Offset" = u64), ("Upload-Complete" = String), ("Upload-Expires" = String)))),
    extensions(("x-problem-codes" = json!(["header_invalid", "body_truncated", "digest_mismatch", "not_found",
        "idle_timeout", "conflict", "offset_mismatch", "upload_superseded", "gone", "tus_version", "too_large",
        "unsupported_media_type", "checksum_mismatch", "quota_exceeded", "disk_full"])))
)]
pub async fn append_upload(
    May(state, ..): May<WriteUploads>,
    Id(id): Id<UploadId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let piece = Piece::of(&headers, headers::number(&headers, "upload-offset")?)?;
    check_type(&headers)?;
    let mut upload = state.store.upload(id).await.map_err(about("upload", &id))?;
    if let Some((_, bytes)) = &upload.complete {
        let detail = "the upload is complete and takes no more bytes";
        return Err(Problem::new(problem::CONFLICT, detail)
            .with_code("upload_complete")
            .with_offset(*bytes));
    }
    let reached = receive(&state, &mut upload, &piece, body).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    stand(&mut response, &upload, reached);
    Ok(response)
}

/// What headers say of bytes that come.
pub(super) struct Piece {
    offset: u64,
    /// Size of the body.
    bytes: Option<u64>,
    /// Size of the whole upload.
    length: Option<u64>,
    last: Option<bool>,
    checksum: Option<Checksum>,
    expected: Option<Hash>,
}

impl Piece {
    pub(super) fn of(headers: &HeaderMap, offset: u64) -> Result<Self, Problem> {
        Ok(Self {
            offset,
            bytes: headers::content_length(headers),
            length: headers::optional_number(headers, "upload-length")?,
            last: headers::boolean(headers, "upload-complete")?,
            checksum: headers::upload_checksum(headers)?,
            expected: headers::repr_digest(headers)?,
        })
    }
}

/// Takes bytes in; completes the upload where they were the last. Answers where it stands then.
pub(super) async fn receive(
    state: &Caller,
    upload: &mut Upload,
    piece: &Piece,
    body: Body,
) -> Result<u64, Problem> {
    announce(state, upload, piece.length).await?;
    let reached = append(state, upload, piece, body).await?;
    state
        .metrics
        .uploads_received_bytes
        .inc_by(reached - piece.offset);
    if upload.length == Some(reached) || (upload.length.is_none() && piece.last == Some(true)) {
        upload.complete = Some(complete(state, upload.id, piece.expected).await?);
    }
    Ok(reached)
}

/// The length may be said once, and again if it is the same.
async fn announce(state: &Caller, upload: &mut Upload, length: Option<u64>) -> Result<(), Problem> {
    let Some(length) = length.filter(|length| upload.length != Some(*length)) else {
        return Ok(());
    };
    if let Some(known) = upload.length {
        let detail = format!("Upload-Length: is {length} here, and was {known} before");
        return Err(Problem::new(problem::HEADER_INVALID, detail));
    }
    super::check_length(state, length)?;
    state.check_bytes(length).await?;
    state.store.announce_upload(upload.id, length).await?;
    upload.length = Some(length);
    Ok(())
}

async fn append(state: &Caller, upload: &Upload, piece: &Piece, body: Body) -> Result<u64, Problem> {
    // What was announced is counted already.
    let bounds = match upload.length {
        Some(length) => state.app.bounds(length, piece.bytes),
        None => state.bounds(u64::MAX, piece.bytes).await?,
    };
    let appended = state
        .uploads
        .append(upload.id, piece.offset, stream(body), bounds, piece.checksum);
    match appended.await {
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
    state: &Caller,
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
            // Its row speaks of the blob now.
            if let Err(error) = state.uploads.abandon(id).await {
                tracing::debug!(%error, %id, "a complete upload's leftovers go with the next sweep");
            }
            Ok((digest, bytes))
        }
        Err(error @ BlobError::DigestMismatch { .. }) => {
            remove(state, id).await?;
            Err(error.into())
        }
        Err(BlobError::NotFound) => completed_meanwhile(state, id).await,
        Err(error) => Err(error.into()),
    }
}

async fn remove(state: &Caller, id: UploadId) -> Result<(), Problem> {
    state.store.delete_upload(id).await?;
    match state.uploads.abandon(id).await {
        Ok(()) | Err(BlobError::NotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers::media_type(headers);
    // tus asks for its own type; with nothing else said, bytes are bytes.
    let is_known = if tus::speaks(headers) {
        given == TYPES[0]
    } else {
        given.is_empty() || TYPES.contains(&given.as_str())
    };
    if is_known {
        return Ok(());
    }
    let detail = format!("the content type is {}; send {}", shorten(&given), TYPES[0]);
    Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail))
}
