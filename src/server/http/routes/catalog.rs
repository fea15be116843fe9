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

/// What is read and what is written.
#[derive(Debug, Serialize, ToSchema)]
pub struct FormatListOut {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    /// The formats, by name.
    pub data: Vec<FormatOut>,
    /// Always false.
    #[schema(example = false)]
    pub has_more: bool,
}

/// A format.
#[derive(Debug, Serialize, ToSchema)]
pub struct FormatOut {
    /// As models (`format`) and recipes (`formats`) spell it.
    #[schema(example = "gguf")]
    pub name: &'static str,
    /// What is written; what is read, where nothing is written.
    #[schema(example = "One GGUF v3 file with weights, configuration and tokenizer")]
    pub summary: &'static str,
    /// Whether a model can be uploaded in it.
    #[schema(example = true)]
    pub readable: bool,
    /// Whether a recipe may ask for it.
    #[schema(example = true)]
    pub writable: bool,
    /// What to upload; null unless it is readable.
    #[schema(example = "One GGUF file, v2 or v3")]
    pub input_summary: Option<&'static str>,
    /// Engines known to load what is written.
    #[schema(example = json!(["llama.cpp"]))]
    pub engines: &'static [&'static str],
    /// JSON Schema of the options that a recipe may give; null unless it is writable.
    #[schema(value_type = Option<Object>)]
    pub options: Option<Value>,
}

impl From<catalog::FormatEntry> for FormatOut {
    fn from(entry: catalog::FormatEntry) -> Self {
        Self {
            name: entry.name,
            summary: entry.summary,
            readable: entry.input_summary.is_some(),
            writable: entry.writable,
            input_summary: entry.input_summary,
            engines: entry.engines,
            options: entry.options,
        }
    }
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
/// What can be uploaded (`readable`) and what a recipe may ask for (`writable`), with a JSON Schema of its options.
#[utoipa::path(
    get, path = "/v1/formats", tag = "catalog", operation_id = "listFormats",
    responses((status = 200, description = "The formats", body = FormatListOut))
)]
pub async fn list_formats() -> Json<FormatListOut> {
    Json(FormatListOut {
        object: "list",
        data: catalog::formats().into_iter().map(FormatOut::from).collect(),
        has_more: false,
    })
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
