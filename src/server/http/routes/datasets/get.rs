//! `GET /v1/datasets/{id}`.

use axum::Json;

use super::DatasetOut;
use crate::domain::DatasetId;
use crate::http::auth::{May, ReadDatasets};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Get a dataset
///
/// Format, what a record holds, number of records, size, digest and files.
#[utoipa::path(
    get, path = "/v1/datasets/{id}", tag = "datasets", operation_id = "getDataset",
    security(("key" = ["datasets:read"])),
    params(("id" = String, Path, description = "The dataset", example = "ds_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The dataset", body = DatasetOut)),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn get_dataset(
    May(state, ..): May<ReadDatasets>,
    Id(id): Id<DatasetId>,
) -> Result<Json<DatasetOut>, Problem> {
    let dataset = state.store.dataset(id).await.map_err(about("dataset", &id))?;
    Ok(Json(DatasetOut::from(&dataset)))
}
