//! Bounds on requests: body size and time.
//!
//! Owns: which of tower-http's layers hold ordinary routes, and what their refusals say.
//! Must not know: which route is which; the table says where a bound applies.
//! Invariant: a request that is over its time gets an answer, not silence.
//!
//! Ours stay: the idle limit of uploads in `blobs`, because `RequestBodyTimeoutLayer` would end a silent upload like
//! one that broke off; and the count in `input`, because `POST /v1/models` takes small JSON and large forms on one path.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tower::ServiceBuilder;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use super::problem::{self, Problem};
use crate::config::Limits;

/// Holds ordinary routes to the largest JSON body and to the time until the response's head.
pub fn ordinary<S: Clone + Send + Sync + 'static>(routes: Router<S>, limits: &Limits) -> Router<S> {
    let (bytes, time) = (limits.body_bytes, limits.request);
    let most = usize::try_from(bytes).unwrap_or(usize::MAX);
    routes.layer(
        ServiceBuilder::new()
            .map_response(move |response: axum::http::Response<_>| {
                explained(response.map(Body::new), bytes, time)
            })
            .layer(TimeoutLayer::with_status_code(
                StatusCode::SERVICE_UNAVAILABLE,
                time,
            ))
            .layer(RequestBodyLimitLayer::new(most)),
    )
}

/// A handler that refuses has said why; a layer has only its status.
fn explained(response: Response, bytes: u64, time: Duration) -> Response {
    if response.extensions().get::<Problem>().is_some() {
        return response;
    }
    match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(bytes).into_response(),
        StatusCode::SERVICE_UNAVAILABLE => {
            let detail = format!("no answer within {} s", time.as_secs());
            Problem::new(problem::REQUEST_TIMEOUT, detail).into_response()
        }
        _ => response,
    }
}

/// The body is larger than JSON may be.
pub fn too_large(bytes: u64) -> Problem {
    Problem::new(
        problem::TOO_LARGE,
        format!("the body may have at most {bytes} bytes"),
    )
}
