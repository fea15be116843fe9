//! What every request gets: an id, a span, a measurement, a caught panic, a problem as its error.
//!
//! Owns: `X-Request-Id`, the access line, turning any 4xx/5xx into problem+json.
//! Must not know: what a route does.
//! Invariant: no response leaves without a request id; a failure is logged once, here.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::listen::Peer;
use super::problem::Problem;
use crate::telemetry::Metrics;

const HEADER: &str = "x-request-id";

/// The id of the request being served.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// The outermost layer.
pub async fn observe(State(metrics): State<Arc<Metrics>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let peer = request
        .extensions()
        .get::<Peer>()
        .map(|peer| peer.0.ip().to_string());
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!("request", request_id = %id, %method, %path, client = peer);

    metrics.http_requests_in_flight.inc();
    let caught = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span.clone())
        .await;
    metrics.http_requests_in_flight.dec();

    let response =
        caught.unwrap_or_else(|panic| Problem::internal(panic_text(panic.as_ref())).into_response());
    let mut response = span.in_scope(|| finish(response, &path, &id));
    let elapsed = begun.elapsed();
    metrics
        .http_request_duration
        .with_label_values(&[
            route.as_str(),
            method_label(&method),
            status_label(response.status()),
        ])
        .observe(elapsed.as_secs_f64());
    span.in_scope(|| {
        let status = response.status().as_u16();
        let elapsed_seconds = elapsed.as_secs_f64();
        if is_routine(&route) {
            tracing::debug!(status, elapsed_seconds, "request answered");
        } else {
            tracing::info!(status, elapsed_seconds, "request answered");
        }
    });
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(HEADER, value);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Renders the problem with what is known only here, and logs a failure of ours.
fn finish(mut response: Response, path: &str, id: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = response
        .extensions_mut()
        .remove::<Problem>()
        .unwrap_or_else(|| Problem::from_status(status));
    if status.is_server_error() {
        tracing::error!(code = problem.code(), cause = problem.cause(), "request failed");
    } else if let Some(cause) = problem.cause() {
        tracing::info!(code = problem.code(), cause, "request refused");
    }
    let mut rendered = problem.render(path, id);
    // A layer's own headers (Allow on a 405, for one) stay.
    for (name, value) in response.headers() {
        if !rendered.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered
}

/// The client's id when it is a plain word, a new one otherwise.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            (1..=128).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        });
    given.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("handler panicked: {}", text.unwrap_or("no message"))
}

fn is_routine(route: &str) -> bool {
    matches!(route, "/livez" | "/readyz" | "/metrics")
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
