//! `GET /v1/models/{id}`.

use axum::Json;

use super::ModelOut;
use crate::domain::ModelId;
use crate::http::auth::{May, ReadModels};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Get a model
///
/// Format, architecture, number of weights, stored types, size, digest and files.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "models", operation_id = "getModel",
    security(("key" = ["models:read"])),
    params(("id" = String, Path, description = "The model", example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The model", body = ModelOut)),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn get_model(
    May(state, ..): May<ReadModels>,
    Id(id): Id<ModelId>,
) -> Result<Json<ModelOut>, Problem> {
    let model = state.store.model(id).await.map_err(about("model", &id))?;
    Ok(Json(ModelOut::from(&model)))
}
