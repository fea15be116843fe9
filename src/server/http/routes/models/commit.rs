//! `POST /v1/models/{id}/commit`: from draft to ready.

use axum::Json;

use super::ModelOut;
use crate::domain::{ModelId, ModelState};
use crate::http::auth::{May, WriteModels};
use crate::http::path::Id;
use crate::http::problem::{self, Problem};
use crate::http::refuse::about;

/// Commit a draft
///
/// The engine opens the files and reads every header: format, architecture, tensors. A set that is no model is
/// refused with the engine's own code and the model stays a draft, so that a file can be replaced.
/// Committing a ready model answers the model.
#[utoipa::path(
    post, path = "/v1/models/{id}/commit", tag = "models", operation_id = "commitModel",
    security(("key" = ["models:write"])),
    params(("id" = String, Path, description = "The draft", example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The model, ready", body = ModelOut)),
    extensions(("x-problem-codes" = json!(["not_found", "conflict", "model_rejected"])))
)]
pub async fn commit_model(
    May(state, ..): May<WriteModels>,
    Id(id): Id<ModelId>,
) -> Result<Json<ModelOut>, Problem> {
    let model = state.store.model(id).await.map_err(about("model", &id))?;
    if model.state == ModelState::Ready {
        return Ok(Json(ModelOut::from(&model)));
    }
    super::not_pulled(&model)?;
    if model.files.is_empty() {
        let detail = "the draft has no files; PUT them to /v1/models/{id}/files/{path} first";
        return Err(Problem::new(problem::MODEL_REJECTED, detail).with_code("no_files"));
    }
    Ok(Json(ModelOut::from(&super::commit(&state, &model).await?)))
}
