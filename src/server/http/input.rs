//! Reading what clients send: JSON bodies and query parameters, strictly.
//!
//! Owns: content type, size, syntax and field checks, each with its own problem.
//! Must not know: what the fields mean.
//! Invariant: an unknown or wrong field is named by its JSON pointer.

use std::error::Error;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::limits::too_large;
use super::problem::{self, Problem, shorten};
use super::state::AppState;

/// A JSON body, with the digest of its bytes (the fingerprint of an idempotent request).
#[derive(Debug)]
pub struct Input<T> {
    /// The parsed value.
    pub value: T,
    /// SHA-256 of the body.
    pub fingerprint: [u8; 32],
}

impl<T: DeserializeOwned> FromRequest<AppState> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        must_be_json(request.headers())?;
        let bytes = read(request.into_body(), state.limits.body_bytes).await?;
        Ok(Self {
            value: parse(&bytes)?,
            fingerprint: Sha256::digest(&bytes).into(),
        })
    }
}

impl<T: DeserializeOwned> Input<T> {
    /// Reads it within the time of an ordinary request, on a route that has no such bound.
    pub async fn in_time(request: Request, state: &AppState) -> Result<Self, Problem> {
        let read = tokio::time::timeout(state.limits.request, Self::from_request(request, state));
        let slow = |_elapsed| Problem::new(problem::IDLE_TIMEOUT, "the body did not arrive in time");
        read.await.map_err(slow)?
    }
}

/// A JSON body that may be left out, and then says nothing.
#[derive(Debug)]
pub struct Perhaps<T>(pub Input<T>);

impl<T: DeserializeOwned + Default> FromRequest<AppState> for Perhaps<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        if request.headers().contains_key(header::CONTENT_TYPE) {
            return Input::from_request(request, state).await.map(Self);
        }
        let (head, body) = request.into_parts();
        if !read(body, state.limits.body_bytes).await?.is_empty() {
            must_be_json(&head.headers)?;
        }
        Ok(Self(Input {
            value: T::default(),
            fingerprint: Sha256::digest([]).into(),
        }))
    }
}

/// Query parameters.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|error| {
                let text = Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                let name = named(&text).or_else(|| prefixed(&text));
                let pointer = name.map(|name| format!("/{name}")).unwrap_or_default();
                Problem::new(problem::QUERY_INVALID, text.clone()).with_error(
                    pointer,
                    "parameter_invalid",
                    text,
                )
            })
    }
}

/// Reads a whole small body.
async fn read(body: Body, limit: u64) -> Result<Bytes, Problem> {
    let body = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if is_over_the_limit(error.as_ref()) => Err(too_large(limit)),
        Err(error) => Err(Problem::new(problem::BODY_TRUNCATED, "the body broke off").because(error)),
    }
}

/// The count here or the layer's below it, which comes wrapped.
fn is_over_the_limit(error: &(dyn Error + 'static)) -> bool {
    error.is::<LengthLimitError>() || error.source().is_some_and(is_over_the_limit)
}

/// Bodies are read as they come: nothing is unpacked.
pub fn not_encoded(headers: &HeaderMap) -> Result<(), Problem> {
    let coding = headers.get(header::CONTENT_ENCODING);
    let Some(coding) = coding.filter(|coding| *coding != "identity") else {
        return Ok(());
    };
    let shown = shorten(&String::from_utf8_lossy(coding.as_bytes()));
    let detail = format!("the body is encoded as {shown}; send it as it is");
    Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail))
}

fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    not_encoded(headers)?;
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let shown = if given.is_empty() {
        "none".to_owned()
    } else {
        shorten(given)
    };
    let detail = format!("the content type is {shown}; send application/json");
    Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail))
}

/// Parses JSON; a wrong field is named by its pointer.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = pointer(error.path());
        let inner = error.into_inner();
        if inner.is_syntax() || inner.is_eof() {
            return Problem::new(problem::JSON_INVALID, shorten_message(&inner.to_string()));
        }
        wrong_field(path, &inner.to_string())
    })?;
    reader
        .end()
        .map_err(|error| Problem::new(problem::JSON_INVALID, error.to_string()))?;
    Ok(value)
}

fn wrong_field(path: String, message: &str) -> Problem {
    let message = message.split(" at line ").next().unwrap_or(message);
    let (code, name) = if message.starts_with("unknown field") {
        ("unknown_field", named(message))
    } else if message.starts_with("missing field") {
        ("missing_field", named(message))
    } else if message.starts_with("duplicate field") {
        ("duplicate_field", named(message))
    } else {
        ("invalid_value", None)
    };
    // The deserializer may or may not count the field itself into the path.
    let pointer = match name {
        Some(name) if !path.ends_with(&format!("/{}", escape(&name))) => format!("{path}/{}", escape(&name)),
        _ => path,
    };
    Problem::field(pointer, code, shorten_message(message))
}

fn shorten_message(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The first name between backticks.
fn named(message: &str) -> Option<String> {
    let (_, rest) = message.split_once('`')?;
    let (name, _) = rest.split_once('`')?;
    Some(shorten(name))
}

/// The name before the first colon, as in `limit: invalid digit found in string`.
fn prefixed(message: &str) -> Option<String> {
    let (name, _) = message.split_once(": ")?;
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    plain.then(|| shorten(name))
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escape(key)),
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}

/// RFC 6901.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// What a query parameter names, if it is there; `what` says what a wrong one is not.
pub fn wanted<T: std::str::FromStr>(
    text: Option<&str>,
    name: &str,
    what: &str,
) -> Result<Option<T>, Problem> {
    let wrong = |text: &str| {
        let detail = format!("{name}: {} {what}", shorten(text));
        Problem::new(problem::QUERY_INVALID, detail.clone()).with_error(
            format!("/{name}"),
            "invalid_value",
            detail,
        )
    };
    text.map(|text| text.parse().map_err(|_e| wrong(text)))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its shape is tested")]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its shape is tested")]
        number: u32,
    }

    fn first_error(text: &str) -> (String, String) {
        let problem = parse::<Outer>(text.as_bytes()).expect_err(text);
        let error = problem.errors().first().cloned();
        error.map_or_else(
            || (problem.code().to_owned(), String::new()),
            |e| (e.code, e.pointer),
        )
    }

    #[test]
    fn wrong_fields_are_named_by_pointer() {
        for (text, code, at) in [
            (
                r#"{"inner":[{"number":1,"bogus":2}]}"#,
                "unknown_field",
                "/inner/0/bogus",
            ),
            (r#"{"inner":[],"a/b":2}"#, "unknown_field", "/a~1b"),
            (
                r#"{"inner":[{"number":"x"}]}"#,
                "invalid_value",
                "/inner/0/number",
            ),
            (r#"{"inner":[{"number":-1}]}"#, "invalid_value", "/inner/0/number"),
            (r#"{"inner":[{}]}"#, "missing_field", "/inner/0/number"),
            (r#"{"inner":[],"inner":[]}"#, "duplicate_field", "/inner"),
            ("[]", "invalid_value", ""),
            (r#"{"inner":"#, "json_invalid", ""),
            (r#"{"inner":[]} x"#, "json_invalid", ""),
            ("", "json_invalid", ""),
        ] {
            assert_eq!(first_error(text), (code.to_owned(), at.to_owned()), "{text}");
        }
    }
}
