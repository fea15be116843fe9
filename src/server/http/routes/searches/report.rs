//! `GET /v1/searches/{id}/report.html` and `/plots/{plot}`: a search for people.
//!
//! Owns: how a search becomes the engine's points.
//! Must not know: how they are drawn.
//! Invariant: the same numbers as `GET /v1/searches/{id}`.

use axum::response::Response;
use modelpress_engine::report::{ParetoPoint, pareto_html, pareto_plot};
use serde_json::Value;

use super::{PointOut, SearchOut};
use crate::domain::SearchId;
use crate::http::auth::{Caller, May, ReadJobs};
use crate::http::drawn;
use crate::http::engine::blocking;
use crate::http::path::{Id, Word};
use crate::http::problem::{self, Problem};
use crate::http::refuse::about;

/// Get a search as a page
///
/// Size against loss with the front, and the table: technique, compression, quality loss, best for. One file without scripts.
#[utoipa::path(
    get, path = "/v1/searches/{id}/report.html", tag = "searches", operation_id = "getSearchReportHtml",
    security(("key" = ["jobs:read"])),
    params(("id" = String, Path, description = "The search", example = "srch_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn get_search_report_html(
    May(state, ..): May<ReadJobs>,
    Id(id): Id<SearchId>,
) -> Result<Response, Problem> {
    let search = found(&state, id).await?;
    let title = format!("Search on {}", search.model);
    let html = pareto_html(&title, search.loss_metric.as_deref(), &points(&search));
    Ok(drawn::page(html))
}

/// Get a search's front as a plot
///
/// `{plot}` is `front.svg` or `front.png`; there is none before a recipe has ended with a measure.
#[utoipa::path(
    get, path = "/v1/searches/{id}/plots/{plot}", tag = "searches", operation_id = "getSearchPlot",
    security(("key" = ["jobs:read"])),
    params(("id" = String, Path, description = "The search", example = "srch_0193d0a67c1e7bd08d532f5a9f1d1c11"),
           ("plot" = String, Path, description = "Name and kind", example = "front.svg")),
    responses((status = 200, description = "The plot", content((String = "image/svg+xml"), (Vec<u8> = "image/png")))),
    extensions(("x-problem-codes" = json!(["not_found", "not_ready", "request_timeout"])))
)]
pub async fn get_search_plot(
    May(state, ..): May<ReadJobs>,
    Id(id): Id<SearchId>,
    Word(wanted): Word,
) -> Result<Response, Problem> {
    let search = found(&state, id).await?;
    let Some(("front", kind)) = drawn::wanted(&wanted) else {
        let detail = format!(
            "no plot is called {}; a search has front.svg and front.png",
            problem::shorten(&wanted)
        );
        return Err(Problem::new(problem::NOT_FOUND, detail));
    };
    let plot = pareto_plot(search.loss_metric.as_deref(), &points(&search));
    let plot = plot.ok_or_else(|| {
        let detail = format!("no recipe of search {id} has ended with a measure yet");
        Problem::new(problem::NOT_READY, detail)
    })?;
    blocking(move || drawn::plot(&plot, kind)).await
}

async fn found(state: &Caller, id: SearchId) -> Result<SearchOut, Problem> {
    let search = state.store.search(id).await.map_err(about("search", &id))?;
    SearchOut::read(&search, state).await
}

fn points(search: &SearchOut) -> Vec<ParetoPoint> {
    search.points.iter().map(point).collect()
}

fn point(point: &PointOut) -> ParetoPoint {
    let result = point.result.as_ref();
    ParetoPoint {
        name: point.name.clone(),
        technique: techniques(&point.recipe),
        status: match &point.error {
            Some(error) => format!("{}: {}", point.status, error.message),
            None => point.status.to_owned(),
        },
        bytes: result.map(|result| result.bytes),
        bits_per_weight: result.map(|result| result.bits_per_weight),
        compression_ratio: result.map(|result| result.compression_ratio),
        loss: result.and_then(|result| result.loss),
        decode_tokens_per_second: result.and_then(|result| result.decode_tokens_per_second),
        seconds: result.map(|result| result.seconds),
        on_front: point.on_front,
        best_for: point.best_for.map(str::to_owned),
    }
}

/// Of a recipe as it was asked for: a preset's own, or those of its stages.
fn techniques(recipe: &Value) -> String {
    let preset = recipe.as_str().or_else(|| recipe["preset"].as_str());
    let known = preset.and_then(modelpress_engine::presets::find);
    let own = |recipe: &Value| -> Vec<String> {
        let stages = recipe["stages"].as_array().into_iter().flatten();
        stages
            .filter_map(|stage| stage["technique"].as_str().map(str::to_owned))
            .collect()
    };
    let names = match known {
        Some(recipe) => recipe.stages.into_iter().map(|stage| stage.technique).collect(),
        None => own(recipe),
    };
    names.join(" + ")
}
