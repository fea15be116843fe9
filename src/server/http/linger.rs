//! Reading on after a refusal, so that the client gets to see it.
//!
//! A client that is still sending when the server answers and closes gets a reset and often loses the answer
//! (RFC 9112 §9.6). So the rest of a refused body is read and thrown away for a while; tower-http has no such layer.
//!
//! Owns: the shared hold on a body, how long to linger.
//! Must not know: why a request was refused.
//! Invariant: a handler that reads its body sees exactly what it would see without this layer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

const IN_ALL: Duration = Duration::from_secs(30);
const SILENT: Duration = Duration::from_secs(3);

/// A body that the layer holds on to while a handler reads it.
#[derive(Debug, Clone)]
struct Held(Arc<Mutex<Body>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint()
    }
}

/// The layer.
pub async fn linger(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let held = Held(Arc::new(Mutex::new(body)));
    let response = next
        .run(Request::from_parts(parts, Body::new(held.clone())))
        .await;
    let refused = response.status().is_client_error() && response.status() != StatusCode::REQUEST_TIMEOUT;
    if refused && !held.is_end_stream() {
        tokio::spawn(tokio::time::timeout(IN_ALL, throw_away(held)));
    }
    response
}

async fn throw_away(mut body: Held) {
    while let Ok(Some(Ok(_frame))) = tokio::time::timeout(SILENT, body.frame()).await {}
}
