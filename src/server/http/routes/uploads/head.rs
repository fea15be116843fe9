//! `HEAD /v1/uploads/{id}`: where to go on.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::{limit, offset, stand};
use crate::domain::UploadId;
use crate::http::auth::{May, WriteUploads};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Ask where an upload stands
///
/// `Upload-Offset` is the number of durable bytes: send the rest from there. Asking ends a request that is
/// still writing to the upload, so that a hung connection is never in the way.
#[utoipa::path(
    head, path = "/v1/uploads/{id}", tag = "uploads", operation_id = "headUpload",
    security(("key" = ["uploads:write"])),
    params(("id" = String, Path, description = "The upload", example = "upl_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 204, description = "Where it stands, in headers",
               headers(("Upload-Offset" = u64), ("Upload-Length" = Option<u64>), ("Upload-Complete" = String),
                       ("Upload-Expires" = String), ("Upload-Limit" = String), ("Upload-Metadata" = Option<String>),
                       ("Upload-Defer-Length" = Option<String>)))),
    extensions(("x-problem-codes" = json!(["not_found", "upload_superseded", "gone"])))
)]
pub async fn head_upload(
    May(state, ..): May<WriteUploads>,
    Id(id): Id<UploadId>,
) -> Result<Response, Problem> {
    let mut upload = state.store.upload(id).await.map_err(about("upload", &id))?;
    let offset = offset(&state, &mut upload).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    stand(&mut response, &upload, offset);
    limit(&mut response, &state, Some(&upload));
    let headers = response.headers_mut();
    if let Some(metadata) = upload.metadata.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(HeaderName::from_static("upload-metadata"), metadata);
    }
    if upload.length.is_none() && upload.complete.is_none() {
        headers.insert(
            HeaderName::from_static("upload-defer-length"),
            HeaderValue::from_static("1"),
        );
    }
    Ok(response)
}
