//! `DELETE /v1/datasets/{id}`.

use axum::http::StatusCode;

use crate::domain::DatasetId;
use crate::http::auth::{May, WriteDatasets};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;
use crate::http::sets::release;

/// Delete a dataset
///
/// Its files go too, unless something else has the same bytes. A dataset that a waiting or running job reads stays.
#[utoipa::path(
    delete, path = "/v1/datasets/{id}", tag = "datasets", operation_id = "deleteDataset",
    security(("key" = ["datasets:write"])),
    params(("id" = String, Path, description = "The dataset", example = "ds_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 204, description = "It is gone")),
    extensions(("x-problem-codes" = json!(["not_found", "in_use", "request_timeout"])))
)]
pub async fn delete_dataset(
    May(state, ..): May<WriteDatasets>,
    Id(id): Id<DatasetId>,
) -> Result<StatusCode, Problem> {
    let files = state
        .store
        .delete_dataset(id)
        .await
        .map_err(about("dataset", &id))?;
    release(&state, files.into_iter().map(|file| file.digest).collect()).await?;
    Ok(StatusCode::NO_CONTENT)
}
