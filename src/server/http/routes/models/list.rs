//! `GET /v1/models`.

use axum::extract::OriginalUri;
use axum::response::Response;
use serde::Deserialize;

use super::ModelOut;
use crate::domain::ModelId;
use crate::http::auth::{May, ReadModels};
use crate::http::input::Params;
use crate::http::page::{self, PageOut};
use crate::http::problem::Problem;

/// Page parameters.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageIn {
    /// Items a page, 1 to 100 (20 unless given).
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub after: Option<String>,
}

/// List models
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/models", tag = "models", operation_id = "listModels",
    security(("key" = ["models:read"])),
    params(PageIn),
    responses((status = 200, description = "A page of models", body = PageOut<ModelOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "request_timeout"])))
)]
pub async fn list_models(
    May(state, ..): May<ReadModels>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<PageIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let after: Option<ModelId> = state.cursors.open_id("models", asked.after.as_deref())?;
    let models = state.store.list_models(after, limit + 1).await?;
    let page = PageOut::of(
        &models,
        limit,
        |row| ModelOut::from(row),
        |last| state.cursors.seal("models", &last.id.to_string()),
    );
    Ok(page::render(&uri, &page))
}
