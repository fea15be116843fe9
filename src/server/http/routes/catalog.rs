//! `/v1/formats`, `/v1/presets`, `/v1/techniques`: what this version can do.
//!
//! Owns: the list envelope around the engine's registries.
//! Must not know: the entries.
//! Invariant: what is listed is what the planner accepts, because both read the same slices.

use axum::Json;
use modelpress_engine::catalog;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::problem::Problem;

/// A list that fits one answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogOut {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    /// The entries, by name.
    #[schema(value_type = Vec<Object>)]
    pub data: Value,
    /// Always false.
    #[schema(example = false)]
    pub has_more: bool,
}

fn list(entries: impl Serialize) -> Result<Json<CatalogOut>, Problem> {
    let data = serde_json::to_value(entries).map_err(Problem::internal)?;
    Ok(Json(CatalogOut {
        object: "list",
        data,
        has_more: false,
    }))
}

/// List formats
///
/// What is read and what is written, and which kinds of weights each can hold.
#[utoipa::path(
    get, path = "/v1/formats", tag = "catalog", operation_id = "listFormats",
    responses((status = 200, description = "The formats", body = CatalogOut))
)]
pub async fn list_formats() -> Result<Json<CatalogOut>, Problem> {
    list(catalog::formats())
}

/// List presets
///
/// Named recipes: `Q4_K_M`, `W4A16`, `nf4`, …
#[utoipa::path(
    get, path = "/v1/presets", tag = "catalog", operation_id = "listPresets",
    responses((status = 200, description = "The presets", body = CatalogOut))
)]
pub async fn list_presets() -> Result<Json<CatalogOut>, Problem> {
    list(catalog::presets())
}

/// List techniques
///
/// Each with a JSON Schema of its options: description, default and example.
#[utoipa::path(
    get, path = "/v1/techniques", tag = "catalog", operation_id = "listTechniques",
    responses((status = 200, description = "The techniques", body = CatalogOut))
)]
pub async fn list_techniques() -> Result<Json<CatalogOut>, Problem> {
    list(catalog::techniques())
}
