//! `DELETE /v1/uploads/{id}`.

use axum::http::StatusCode;

use crate::domain::UploadId;
use crate::domain::ports::BlobError;
use crate::http::auth::{May, WriteUploads};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;
use crate::http::sets::release;

/// Delete an upload
///
/// Its bytes go too; a request that is still writing to it ends.
#[utoipa::path(
    delete, path = "/v1/uploads/{id}", tag = "uploads", operation_id = "deleteUpload",
    security(("key" = ["uploads:write"])),
    params(("id" = String, Path, description = "The upload", example = "upl_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 204, description = "It is gone")),
    extensions(("x-problem-codes" = json!(["not_found", "upload_superseded"])))
)]
pub async fn delete_upload(
    May(state, ..): May<WriteUploads>,
    Id(id): Id<UploadId>,
) -> Result<StatusCode, Problem> {
    let upload = state.store.upload(id).await.map_err(about("upload", &id))?;
    state.store.delete_upload(id).await?;
    match (state.uploads.abandon(id).await, upload.complete) {
        (Ok(()) | Err(BlobError::NotFound), Some((digest, _))) => release(&state, vec![digest]).await?,
        (Ok(()) | Err(BlobError::NotFound), None) => {}
        (Err(error), _) => return Err(error.into()),
    }
    Ok(StatusCode::NO_CONTENT)
}
