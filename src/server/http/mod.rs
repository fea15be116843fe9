//! The HTTP face: from sockets to domain calls and back.
//!
//! Owns: routes, DTOs, problems, paging, conditional requests, limits, the listener.
//! Must not know: SQL, folders, which store it talks to.
//! Invariant: nothing enters unchecked; no error leaves as anything but a problem document.

pub mod audit;
pub mod auth;
pub mod conditional;
pub mod drawn;
pub mod engine;
pub mod form;
pub mod headers;
pub mod hooks;
pub mod input;
pub mod limits;
pub mod linger;
pub mod listen;
pub mod observe;
pub mod openapi;
pub mod page;
pub mod path;
pub mod problem;
pub mod rates;
pub mod readiness;
pub mod refuse;
pub mod routes;
pub mod sets;
pub mod state;
pub mod tar;
pub mod undo;

use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Router, routing::get};
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;

use problem::Problem;
use state::AppState;

/// The API, its pages, and what every request gets.
pub fn router(state: AppState) -> Router {
    let (ordinary, _) = routes::ordinary().split_for_parts();
    let (streaming, _) = routes::streaming().split_for_parts();
    // Answers about things that change are not kept by caches unless the handler says otherwise.
    let uncached =
        SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let routes = limits::ordinary(ordinary.merge(routes::pages::routes()), &state.limits)
        .merge(streaming)
        .fallback(|| async { Problem::new(problem::NOT_FOUND, "no route has this path; see /docs") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                problem::METHOD_NOT_ALLOWED,
                "the path exists, but not for this method; see Allow",
            )
        })
        // One layer of many: each call of `layer` is a box more around every route, cloned with all it holds for each
        // request.
        .layer(
            ServiceBuilder::new()
                .layer(from_fn(around))
                .layer(uncached)
                .layer(DefaultBodyLimit::disable()),
        );
    observe::observed(routes, &state.metrics).with_state(state)
}

/// What every request of the API goes through, in one function for the reason above.
async fn around(mut request: Request, next: Next) -> Response {
    let held = linger::Held::of(&mut request);
    let told = rates::Told::of(&mut request);
    let change = audit::Change::of(&mut request);
    let mut response = next.run(request).await;
    if let Some(written) = change.and_then(|change| change.write(&response)) {
        written.await;
    }
    told.put(&mut response);
    if let Some(held) = held {
        held.linger(&response);
    }
    response
}

/// `/metrics` and the probes on a listener of their own.
pub fn metrics_router(state: AppState) -> Router {
    let routes = Router::new()
        .route(
            "/metrics",
            get(|state: axum::extract::State<AppState>| async move { routes::health::scrape(&state).await }),
        )
        .route("/livez", get(routes::health::livez))
        .route("/readyz", get(routes::health::readyz))
        .fallback(|| async {
            Problem::new(problem::NOT_FOUND, "only /metrics, /livez and /readyz are here")
        });
    observe::observed(routes, &state.metrics).with_state(state)
}
