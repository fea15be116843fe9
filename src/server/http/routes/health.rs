//! `/livez`, `/readyz`, `/metrics`, `/openapi.json`.
//!
//! Owns: what ready means.
//! Must not know: which database it is.
//! Invariant: a probe never writes to the database and never costs more than one look a second.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::JobState;
use crate::http::openapi as document;
use crate::http::problem::{self, Problem};
use crate::http::state::AppState;

/// State of the process.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthOut {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// Version of this process.
    #[schema(example = "0.1.0")]
    pub version: &'static str,
}

const OK: HealthOut = HealthOut {
    status: "ok",
    version: env!("CARGO_PKG_VERSION"),
};

/// Is the process alive?
///
/// Looks at nothing else: restart the process when this fails.
#[utoipa::path(
    get, path = "/livez", tag = "health", operation_id = "livez",
    responses((status = 200, description = "Alive", body = HealthOut))
)]
pub async fn livez() -> Json<HealthOut> {
    Json(OK)
}

/// Can it take requests?
///
/// The database answers with the current schema, the blob store can be written, and the server is not draining.
/// Send no traffic when this fails.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "readyz",
    responses((status = 200, description = "Ready", body = HealthOut))
)]
pub async fn readyz(State(state): State<AppState>) -> Result<Json<HealthOut>, Problem> {
    if state.drain.is_cancelled() {
        return Err(Problem::new(problem::UNAVAILABLE, "the server is draining").with_code("draining"));
    }
    match state.readiness.kept(look(&state)).await {
        Ok(()) => Ok(Json(OK)),
        Err(cause) => Err(Problem::new(problem::UNAVAILABLE, "a dependency is down").because(cause)),
    }
}

async fn look(state: &AppState) -> Result<(), String> {
    state.stores.ready().await.map_err(|error| error.to_string())?;
    state.blobs.probe().await.map_err(|error| error.to_string())
}

/// Metrics
///
/// Prometheus text; `modelpress_database_up` says whether the jobs could be counted. Off here when the configuration gives metrics an address of their own.
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")),
    extensions(("x-problem-codes" = json!(["not_found"])))
)]
pub async fn metrics(State(state): State<AppState>) -> Result<Response, Problem> {
    if state.metrics_elsewhere {
        return Err(Problem::new(
            problem::NOT_FOUND,
            "metrics have an address of their own on this server",
        ));
    }
    scrape(&state).await
}

/// The metrics text, with the gauges that the database knows read now.
pub async fn scrape(state: &AppState) -> Result<Response, Problem> {
    // A database that is away must not hide what the process knows by itself.
    let counts = match state.stores.counts().await {
        Ok(counts) => counts,
        Err(error) => {
            tracing::warn!(%error, "jobs not counted");
            state.metrics.database_up.set(0);
            return encoded(state);
        }
    };
    state.metrics.database_up.set(1);
    let count = |wanted: JobState| {
        counts
            .jobs
            .iter()
            .find(|(state, _)| *state == wanted)
            .map_or(0, |(_, n)| *n)
    };
    for wanted in JobState::ALL {
        state
            .metrics
            .jobs
            .with_label_values(&[wanted.as_str()])
            .set(count(wanted).cast_signed());
    }
    let oldest = counts
        .oldest_queued_at
        .map_or(0.0, |at| at.unix_timestamp_nanos() as f64 / 1e9);
    state.metrics.oldest_queued_timestamp.set(oldest);
    encoded(state)
}

fn encoded(state: &AppState) -> Result<Response, Problem> {
    let text = state.metrics.text().map_err(Problem::internal)?;
    Ok((
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response())
}

static DOCUMENT: LazyLock<String> = LazyLock::new(document::text);

/// This document
///
/// OpenAPI 3.1. `/docs` shows it to people.
#[utoipa::path(
    get, path = "/openapi.json", tag = "health", operation_id = "getOpenapi",
    responses((status = 200, description = "The document", body = Object, content_type = "application/json"))
)]
pub async fn openapi() -> Response {
    let mut response = (StatusCode::OK, DOCUMENT.as_str()).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
