//! The audit log: every change that came through the API.
//!
//! Owns: which requests are changes worth an entry; what an entry says.
//! Must not know: what handlers do.
//! Invariant: an entry is about a request that succeeded, by a caller who was let in. It is written after its effect: a
//! process that dies in between leaves an effect without one, never an entry without effect.

use std::sync::{Arc, OnceLock};

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, header};
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
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

/// A change that is asked for.
#[derive(Debug)]
pub struct Change {
    method: Method,
    route: MatchedPath,
    path: String,
    request_id: Option<RequestId>,
    client: Option<String>,
    actor: Actor,
}

impl Change {
    /// The change that a request asks for, if it asks for one.
    pub fn of(request: &mut Request) -> Option<Box<Self>> {
        let extensions = request.extensions();
        let route = extensions.get::<MatchedPath>()?;
        if !is_change(request.method(), route.as_str()) {
            return None;
        }
        let change = Self {
            method: request.method().clone(),
            route: route.clone(),
            path: request.uri().path().to_owned(),
            request_id: extensions.get::<RequestId>().cloned(),
            client: extensions.get::<Peer>().map(|peer| peer.0.ip().to_string()),
            actor: Actor::default(),
        };
        request.extensions_mut().insert(change.actor.clone());
        Some(Box::new(change))
    }

    /// Writes an entry, if the change came about.
    pub fn write(self, response: &Response) -> Option<BoxFuture<'static, ()>> {
        let caller = self.actor.0.get().filter(|_| response.status().is_success())?;
        let caller = caller.clone();
        let made = response.headers().get(header::LOCATION);
        let object = made.and_then(|made| made.to_str().ok()).unwrap_or(&self.path);
        let entry = Entry {
            id: EntryId::from_uuid(uuid::Uuid::now_v7()),
            key: caller.key.as_ref().map(|key| key.id),
            action: format!("{} {}", self.method, self.route.as_str()),
            object: object_of(object),
            request_id: self
                .request_id
                .and_then(|id| id.header_value().to_str().ok().map(str::to_owned))
                .unwrap_or_default(),
            client: self.client,
            at: caller.clock.now(),
        };
        let written = async move {
            if let Err(error) = caller.store.add_entry(&entry).await {
                tracing::error!(%error, action = entry.action, object = entry.object,
                    "change not written to the audit log");
            }
        };
        Some(written.boxed())
    }
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
