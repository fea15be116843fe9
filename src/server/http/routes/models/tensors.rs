//! `GET /v1/models/{id}/tensors`.

use axum::extract::OriginalUri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::list::PageIn;
use crate::domain::{ModelId, ModelState, TensorRow};
use crate::http::auth::{May, ReadModels};
use crate::http::input::Params;
use crate::http::page::{self, PageOut};
use crate::http::path::Id;
use crate::http::problem::{self, Problem};
use crate::http::refuse::about;

/// A tensor of a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct TensorOut {
    /// Its name in the checkpoint.
    #[schema(example = "model.layers.0.self_attn.q_proj.weight")]
    pub name: String,
    /// Its stored type.
    #[schema(example = "BF16")]
    pub dtype: String,
    /// Its shape, outermost dimension first.
    #[schema(example = json!([576, 576]))]
    pub shape: Vec<u64>,
    /// Its stored size.
    #[schema(example = 663_552)]
    pub bytes: u64,
}

impl From<&TensorRow> for TensorOut {
    fn from(row: &TensorRow) -> Self {
        Self {
            name: row.name.clone(),
            dtype: row.dtype.clone(),
            shape: row.shape.clone(),
            bytes: row.bytes,
        }
    }
}

/// List a model's tensors
///
/// In the order of the file. A draft has none yet.
#[utoipa::path(
    get, path = "/v1/models/{id}/tensors", tag = "models", operation_id = "listModelTensors",
    security(("key" = ["models:read"])),
    params(("id" = String, Path, description = "The model", example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11"), PageIn),
    responses((status = 200, description = "A page of tensors", body = PageOut<TensorOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "not_found",
        "not_ready", "request_timeout"])))
)]
pub async fn list_tensors(
    May(state, ..): May<ReadModels>,
    Id(id): Id<ModelId>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<PageIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let filter = format!("tensors|{id}");
    let offset: u64 = state
        .cursors
        .open_id(&filter, asked.after.as_deref())?
        .unwrap_or(0);
    let model = state.store.model(id).await.map_err(about("model", &id))?;
    if model.state == ModelState::Draft {
        return Err(Problem::new(
            problem::NOT_READY,
            "a draft has no tensors yet; commit it first",
        ));
    }
    let rows = state.store.list_tensors(id, offset, limit + 1).await?;
    let next = offset + u64::from(limit);
    let page = PageOut::of(
        &rows,
        limit,
        |row| TensorOut::from(row),
        |_| state.cursors.seal(&filter, &next.to_string()),
    );
    Ok(page::render(&uri, &page))
}
