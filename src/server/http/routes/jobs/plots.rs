//! `GET /v1/jobs/{id}/plots` and below: the drawings of a report, one by one.
//!
//! Owns: their names in URLs.
//! Must not know: what they show.
//! Invariant: a drawing refers to nothing and runs nothing.

use axum::Json;
use axum::response::Response;
use modelpress_engine::report::Plot;
use serde::Serialize;
use utoipa::ToSchema;

use super::report::{find, plots_of};
use crate::domain::JobId;
use crate::http::auth::{May, ReadJobs};
use crate::http::drawn;
use crate::http::engine::blocking;
use crate::http::path::{Id, Word};
use crate::http::problem::{self, Problem};

/// A plot.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlotOut {
    /// Its name.
    #[schema(example = "sizes")]
    pub name: &'static str,
    /// Where it is as SVG.
    #[schema(example = "/v1/jobs/job_0193d0a67c1e7bd08d532f5a9f1d1c11/plots/sizes.svg")]
    pub svg: String,
    /// Where it is as PNG.
    #[schema(example = "/v1/jobs/job_0193d0a67c1e7bd08d532f5a9f1d1c11/plots/sizes.png")]
    pub png: String,
}

/// The plots of a report.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlotListOut {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    /// All of them.
    pub data: Vec<PlotOut>,
    /// Always false.
    pub has_more: bool,
}

/// List the plots of a job's report
///
/// Those that this report has: sizes stage by stage, signal to noise, entropy, bits and errors by tensor, errors by layer,
/// what a budget would lose at other sizes; of an analysis, the rate–distortion plane.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/plots", tag = "jobs", operation_id = "listJobPlots",
    security(("key" = ["jobs:read"])),
    params(("id" = String, Path, description = "The job", example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The plots", body = PlotListOut)),
    extensions(("x-problem-codes" = json!(["not_found", "not_ready", "request_timeout"])))
)]
pub async fn list_plots(
    May(state, ..): May<ReadJobs>,
    Id(id): Id<JobId>,
) -> Result<Json<PlotListOut>, Problem> {
    let (job, found) = find(&state, id).await?;
    let plots = blocking(move || plots_of(&job, &found)).await?;
    let address = |name: &str, kind: &str| format!("/v1/jobs/{id}/plots/{name}.{kind}");
    Ok(Json(PlotListOut {
        object: "list",
        data: plots
            .iter()
            .map(|plot| PlotOut {
                name: plot.name,
                svg: address(plot.name, "svg"),
                png: address(plot.name, "png"),
            })
            .collect(),
        has_more: false,
    }))
}

/// Get a plot of a job's report
///
/// `{plot}` is a name and how it is wanted: `sizes.svg`, `sizes.png`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/plots/{plot}", tag = "jobs", operation_id = "getJobPlot",
    security(("key" = ["jobs:read"])),
    params(("id" = String, Path, description = "The job", example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11"),
           ("plot" = String, Path, description = "Name and kind", example = "sizes.svg")),
    responses((status = 200, description = "The plot", content((String = "image/svg+xml"), (Vec<u8> = "image/png")))),
    extensions(("x-problem-codes" = json!(["not_found", "not_ready", "request_timeout"])))
)]
pub async fn get_plot(
    May(state, ..): May<ReadJobs>,
    Id(id): Id<JobId>,
    Word(wanted): Word,
) -> Result<Response, Problem> {
    let (job, found) = find(&state, id).await?;
    blocking(move || chosen(&plots_of(&job, &found)?, &wanted)).await
}

fn chosen(plots: &[Plot], wanted: &str) -> Result<Response, Problem> {
    let found = drawn::wanted(wanted).and_then(|(name, kind)| {
        let plot = plots.iter().find(|plot| plot.name == name)?;
        Some(drawn::plot(plot, kind))
    });
    found.unwrap_or_else(|| {
        let names: Vec<&str> = plots.iter().map(|plot| plot.name).collect();
        let detail = format!(
            "no plot is called {}; this report has {}, each as .svg and .png",
            problem::shorten(wanted),
            names.join(", ")
        );
        Err(Problem::new(problem::NOT_FOUND, detail))
    })
}
