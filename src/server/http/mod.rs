//! The HTTP face: from sockets to domain calls and back.
//!
//! Owns: routes, DTOs, problems, paging, conditional requests, limits, the listener.
//! Must not know: SQL, folders, which store it talks to.
//! Invariant: nothing enters unchecked; no error leaves as anything but a problem document.

pub mod conditional;
pub mod engine;
pub mod headers;
pub mod input;
pub mod limits;
pub mod linger;
pub mod listen;
pub mod observe;
pub mod openapi;
pub mod page;
pub mod path;
pub mod problem;
pub mod refuse;
pub mod routes;
pub mod state;
pub mod tar;
pub mod undo;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Router, routing::get};

use limits::Ordinary;
use problem::Problem;
use state::AppState;

/// The API, its pages, and what every request gets.
pub fn router(state: AppState) -> Router {
    let bounds = Ordinary {
        body_bytes: state.limits.body_bytes,
        time: state.limits.request,
    };
    let (ordinary, _) = routes::ordinary().split_for_parts();
    let (streaming, _) = routes::streaming().split_for_parts();
    let ordinary = ordinary
        .merge(routes::pages::routes())
        .layer(from_fn_with_state(bounds, limits::ordinary));
    let streaming = streaming.layer(from_fn_with_state(bounds, limits::streaming));
    let metrics = state.metrics.clone();
    ordinary
        .merge(streaming)
        .fallback(|| async { Problem::new(problem::NOT_FOUND, "no route has this path; see /docs") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                problem::METHOD_NOT_ALLOWED,
                "the path exists, but not for this method; see Allow",
            )
        })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(limits::no_cache_by_default))
        .layer(from_fn(linger::linger))
        .layer(from_fn_with_state(metrics, observe::observe))
        .with_state(state)
}

/// `/metrics` and the probes on a listener of their own.
pub fn metrics_router(state: AppState) -> Router {
    let metrics = state.metrics.clone();
    Router::new()
        .route(
            "/metrics",
            get(|state: axum::extract::State<AppState>| async move { routes::health::scrape(&state).await }),
        )
        .route("/livez", get(routes::health::livez))
        .route("/readyz", get(routes::health::readyz))
        .fallback(|| async { Problem::new(problem::NOT_FOUND, "only /metrics, /livez and /readyz are here") })
        .layer(from_fn_with_state(metrics, observe::observe))
        .with_state(state)
}
