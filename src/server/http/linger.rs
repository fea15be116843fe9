//! Reading on after a refusal, so that the client gets to see it.
//!
//! A client that is still sending when the server answers and closes gets a reset and often loses the answer
//! (RFC 9112 §9.6). So the rest of a refused body is read and thrown away for a while; tower-http has no such layer.
//!
//! Owns: the shared hold on a body, how long to linger.
//! Must not know: why a request was refused.
//! Invariant: a handler that reads its body sees exactly what it would see without this.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

const IN_ALL: Duration = Duration::from_secs(30);
const SILENT: Duration = Duration::from_secs(3);

/// A body that is held on to while a handler reads it.
#[derive(Debug, Clone)]
pub struct Held(Arc<Mutex<Body>>);

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

impl Held {
    /// Holds on to a request's body; none where there is none.
    pub fn of(request: &mut Request) -> Option<Self> {
        if request.body().is_end_stream() {
            return None;
        }
        let body = std::mem::take(request.body_mut());
        let held = Self(Arc::new(Mutex::new(body)));
        *request.body_mut() = Body::new(held.clone());
        Some(held)
    }

    /// Reads on, beside the answer, if that is a refusal.
    pub fn linger(self, response: &Response) {
        let status = response.status();
        let refused = status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT;
        if refused && !self.is_end_stream() {
            tokio::spawn(tokio::time::timeout(IN_ALL, throw_away(self)));
        }
    }
}

async fn throw_away(mut body: Held) {
    while let Ok(Some(Ok(_frame))) = tokio::time::timeout(SILENT, body.frame()).await {}
}
