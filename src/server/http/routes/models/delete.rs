//! `DELETE /v1/models/{id}`.

use axum::http::StatusCode;

use crate::domain::ModelId;
use crate::http::auth::{May, WriteModels};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;
use crate::http::sets::release;

/// Delete a model
///
/// Its files go too, unless another model has the same bytes. A model that a waiting or running job uses stays. One that is
/// being brought from elsewhere is no longer brought.
#[utoipa::path(
    delete, path = "/v1/models/{id}", tag = "models", operation_id = "deleteModel",
    security(("key" = ["models:write"])),
    params(("id" = String, Path, description = "The model", example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 204, description = "It is gone")),
    extensions(("x-problem-codes" = json!(["not_found", "in_use", "request_timeout"])))
)]
pub async fn delete_model(
    May(state, ..): May<WriteModels>,
    Id(id): Id<ModelId>,
) -> Result<StatusCode, Problem> {
    let files = state.store.delete_model(id).await.map_err(about("model", &id))?;
    release(&state, files.into_iter().map(|file| file.digest).collect()).await?;
    Ok(StatusCode::NO_CONTENT)
}
