//! Bounds on requests: body size and time.
//!
//! Owns: the layers that set them.
//! Must not know: which route is which; the table says where a bound applies.
//! Invariant: a request that is over its time gets an answer, not silence.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::{self, Problem};

/// Largest small body; carried in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct MaxBody(pub u64);

/// What ordinary requests are held to.
#[derive(Debug, Clone, Copy)]
pub struct Ordinary {
    /// Largest JSON body.
    pub body_bytes: u64,
    /// Time until the response's head.
    pub time: Duration,
}

/// The layer of ordinary routes.
pub async fn ordinary(State(bounds): State<Ordinary>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(MaxBody(bounds.body_bytes));
    match tokio::time::timeout(bounds.time, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let seconds = bounds.time.as_secs();
            Problem::new(problem::REQUEST_TIMEOUT, format!("no answer within {seconds} s")).into_response()
        }
    }
}

/// The layer of routes that move files: their own idle limits instead of a total one.
pub async fn streaming(State(bounds): State<Ordinary>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(MaxBody(bounds.body_bytes));
    next.run(request).await
}

/// Answers about things that change are not kept by caches unless the handler says otherwise.
pub async fn no_cache_by_default(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
