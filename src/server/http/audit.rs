//! The audit log: every change that came through the API.
//!
//! Owns: which requests are changes worth an entry; what an entry says.
//! Must not know: what handlers do.
//! Invariant: an entry is about a request that succeeded, by a caller who was let in. It is written after its effect: a
//! process that dies in between leaves an effect without one, never an entry without effect.

use std::sync::{Arc, OnceLock};

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::request_id::RequestId;

use super::auth::Caller;
use super::listen::Peer;
use crate::domain::{Entry, EntryId};

/// Requests that change nothing, or a little of what another one's entry is about.
const NOT_WORTH_IT: [(Method, &str); 3] = [
    (Method::POST, "/v1/plans"),
    (Method::PATCH, "/v1/uploads/{id}"),
    (Method::POST, "/v1/uploads/{id}"),
];

/// Who turned out to ask.
#[derive(Debug, Clone, Default)]
pub struct Actor(Arc<OnceLock<Caller>>);

impl Actor {
    /// Says who asks.
    pub fn is(&self, caller: &Caller) {
        let _first = self.0.set(caller.clone());
    }
}

/// Writes an entry for a change that came about.
pub async fn audited(mut request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let Some(route) = route.filter(|route| is_change(&method, route.as_str())) else {
        return next.run(request).await;
    };
    let actor = Actor::default();
    let path = request.uri().path().to_owned();
    let id = request.extensions().get::<RequestId>().cloned();
    let peer = request
        .extensions()
        .get::<Peer>()
        .map(|peer| peer.0.ip().to_string());
    request.extensions_mut().insert(actor.clone());
    let response = next.run(request).await;
    let (true, Some(caller)) = (response.status().is_success(), actor.0.get()) else {
        return response;
    };
    let made = response.headers().get(header::LOCATION);
    let object = made.and_then(|made| made.to_str().ok()).unwrap_or(&path);
    let entry = Entry {
        id: EntryId::from_uuid(uuid::Uuid::now_v7()),
        key: caller.key.as_ref().map(|key| key.id),
        action: format!("{method} {}", route.as_str()),
        object: object_of(object),
        request_id: id
            .and_then(|id| id.header_value().to_str().ok().map(str::to_owned))
            .unwrap_or_default(),
        client: peer,
        at: caller.clock.now(),
    };
    if let Err(error) = caller.store.add_entry(&entry).await {
        tracing::error!(%error, action = entry.action, object = entry.object, "change not written to the audit log");
    }
    response
}

fn is_change(method: &Method, route: &str) -> bool {
    let listed = NOT_WORTH_IT
        .iter()
        .any(|(verb, path)| verb == method && *path == route);
    !method.is_safe() && !listed
}

/// The identifier in a path: what stands behind the resource's name.
fn object_of(path: &str) -> Option<String> {
    path.split('/').nth(3).map(str::to_owned)
}
