//! `GET /v1/artifacts/{id}`.

use axum::Json;

use super::ArtifactOut;
use crate::domain::ArtifactId;
use crate::http::auth::{May, ReadArtifacts};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Get an artifact
///
/// Format, size, digest and files.
#[utoipa::path(
    get, path = "/v1/artifacts/{id}", tag = "artifacts", operation_id = "getArtifact",
    security(("key" = ["artifacts:read"])),
    params(("id" = String, Path, description = "The artifact", example = "art_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The artifact", body = ArtifactOut)),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn get_artifact(
    May(state, ..): May<ReadArtifacts>,
    Id(id): Id<ArtifactId>,
) -> Result<Json<ArtifactOut>, Problem> {
    let artifact = state.store.artifact(id).await.map_err(about("artifact", &id))?;
    Ok(Json(ArtifactOut::from(&artifact)))
}
