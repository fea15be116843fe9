//! `GET /v1/uploads/{id}`, beside the `HEAD` that uploaders use.

use axum::Json;

use super::{UploadOut, offset};
use crate::domain::UploadId;
use crate::http::auth::{May, WriteUploads};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Get an upload
///
/// What `HEAD` says, as JSON. Asking ends a request that is still writing to the upload.
#[utoipa::path(
    get, path = "/v1/uploads/{id}", tag = "uploads", operation_id = "getUpload",
    security(("key" = ["uploads:write"])),
    params(("id" = String, Path, description = "The upload", example = "upl_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The upload", body = UploadOut)),
    extensions(("x-problem-codes" = json!(["not_found", "upload_superseded", "gone", "request_timeout"])))
)]
pub async fn get_upload(
    May(state, ..): May<WriteUploads>,
    Id(id): Id<UploadId>,
) -> Result<Json<UploadOut>, Problem> {
    let mut upload = state.store.upload(id).await.map_err(about("upload", &id))?;
    let offset = offset(&state, &mut upload).await?;
    Ok(Json(UploadOut::new(&upload, offset)))
}
