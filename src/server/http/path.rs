//! Path parameters.
//!
//! Owns: identifiers and file names in URLs.
//! Must not know: what they lead to.
//! Invariant: an identifier that cannot exist is a 404, like one that does not.

use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::problem::{self, Problem, shorten};
use crate::domain::DeliveryId;

/// The `{id}` of a route.
#[derive(Debug, Clone, Copy)]
pub struct Id<T>(pub T);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        identifier(parts, state, "id").await.map(Self)
    }
}

/// The `{delivery}` of a route below a webhook.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryOf(pub DeliveryId);

impl<S: Send + Sync> FromRequestParts<S> for DeliveryOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        identifier(parts, state, "delivery").await.map(Self)
    }
}

/// The `{plot}` of a route below a job or a search.
#[derive(Debug, Clone)]
pub struct Word(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Word {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(Problem::internal)?;
        let found = params.iter().find(|(name, _)| *name == "plot");
        Ok(Self(found.map_or_else(String::new, |(_, word)| word.to_owned())))
    }
}

async fn identifier<T: FromStr, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Result<T, Problem> {
    let text = parameter(parts, state, name).await?;
    text.parse().map_err(|_wrong| {
        let detail = format!("{} is not an identifier of this kind", shorten(&text));
        Problem::new(problem::NOT_FOUND, detail)
    })
}

/// The `{path}` of a route: a relative file name, slashes included, percent-decoded.
#[derive(Debug, Clone)]
pub struct FileName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for FileName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        parameter(parts, state, "path").await.map(Self)
    }
}

async fn parameter<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, Problem> {
    let parameters = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|error| Problem::new(problem::BAD_REQUEST, error.body_text()))?;
    let value = parameters
        .iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned());
    value.ok_or_else(|| Problem::internal(format!("the route has no {{{name}}}")))
}
