//! Errors on the wire: RFC 9457 problem documents.
//!
//! Owns: the table of kinds (code, status, title) and their rendering.
//! Must not know: handlers; where an error came from.
//! Invariant: every response with a 4xx or 5xx status is `application/problem+json` and 5xx shows no internals.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// One kind of problem: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Stable name, for programs.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Constant text, for people.
    pub title: &'static str,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:literal $code:literal $title:literal;)*) => {
        $($(#[$doc])* pub const $name: Kind = Kind { code: $code, status: $status, title: $title };)*
        /// Every kind, in the order of the table.
        pub const KINDS: &[Kind] = &[$($name),*];
    };
}

kinds! {
    /// The request cannot be read as HTTP asks.
    BAD_REQUEST = 400 "bad_request" "The request is malformed";
    /// The body is not JSON.
    JSON_INVALID = 400 "json_invalid" "The body is not valid JSON";
    /// A query parameter is unknown or wrong.
    QUERY_INVALID = 400 "query_invalid" "A query parameter is unknown or wrong";
    /// A header is missing or wrong.
    HEADER_INVALID = 400 "header_invalid" "A header is missing or wrong";
    /// The cursor was not made by this server.
    CURSOR_INVALID = 400 "cursor_invalid" "The page cursor is not one of ours";
    /// The cursor belongs to a list with other filters.
    CURSOR_MISMATCH = 400 "cursor_mismatch" "The page cursor belongs to another list";
    /// Less body than was announced.
    BODY_TRUNCATED = 400 "body_truncated" "The body ended before it was complete";
    /// The bytes do not have the digest that was promised.
    DIGEST_MISMATCH = 400 "digest_mismatch" "The bytes do not match the digest";
    /// No key, or none that opens anything.
    UNAUTHENTICATED = 401 "unauthenticated" "A valid API key is needed";
    /// The key may not do this.
    INSUFFICIENT_SCOPE = 403 "insufficient_scope" "The key does not allow this";
    /// `source_path` is outside the allowed folders.
    PATH_NOT_ALLOWED = 403 "path_not_allowed" "The server may not read this path";
    /// Models may not be brought from there.
    SOURCE_NOT_ALLOWED = 403 "source_not_allowed" "The server may not bring models from there";
    /// No such route or object.
    NOT_FOUND = 404 "not_found" "There is nothing here";
    /// The route exists for other methods.
    METHOD_NOT_ALLOWED = 405 "method_not_allowed" "The method is not allowed here";
    /// No representation that the client accepts.
    NOT_ACCEPTABLE = 406 "not_acceptable" "None of the accepted types is available";
    /// The client fell silent.
    IDLE_TIMEOUT = 408 "idle_timeout" "The client was silent or too slow for too long";
    /// The object's state does not allow this.
    CONFLICT = 409 "conflict" "The object is in another state";
    /// A model or dataset that jobs still use.
    IN_USE = 409 "in_use" "The object is still in use";
    /// Another upload position is expected.
    OFFSET_MISMATCH = 409 "offset_mismatch" "The upload is at another offset";
    /// Another request took the upload over.
    UPLOAD_SUPERSEDED = 409 "upload_superseded" "A newer request took this upload over";
    /// The first request with this key is still running.
    IDEMPOTENCY_RUNNING = 409 "idempotency_running" "The first request with this key is still running";
    /// The report is not there yet.
    NOT_READY = 409 "not_ready" "The result is not there yet";
    /// The upload expired.
    GONE = 410 "gone" "The object existed and was removed";
    /// `If-Match` names another version.
    PRECONDITION_FAILED = 412 "precondition_failed" "The object has another version";
    /// A version of tus that is not spoken here.
    TUS_VERSION = 412 "tus_version" "This version of tus is not supported";
    /// More bytes than allowed.
    TOO_LARGE = 413 "too_large" "The body is larger than allowed";
    /// The content type is not one that is read here.
    UNSUPPORTED_MEDIA_TYPE = 415 "unsupported_media_type" "The content type is not supported here";
    /// No byte of the range exists.
    RANGE_NOT_SATISFIABLE = 416 "range_not_satisfiable" "The range lies outside the file";
    /// A key asks too often.
    RATE_LIMITED = 429 "rate_limited" "Too many requests";
    /// The tenant has what it may have.
    QUOTA_EXCEEDED = 429 "quota_exceeded" "A quota of the tenant is used up";
    /// Fields are unknown, missing or wrong.
    FIELDS_INVALID = 422 "fields_invalid" "Some fields are unknown, missing or wrong";
    /// A file name that cannot be stored.
    FILE_NAME_INVALID = 422 "file_name_invalid" "The file name is not allowed";
    /// Pickle files can run code.
    PICKLE_REFUSED = 422 "pickle_refused" "Pickle files can run code; convert to safetensors";
    /// The key was used with another body.
    IDEMPOTENCY_MISMATCH = 422 "idempotency_mismatch" "The key was used with another request";
    /// The engine cannot read the files.
    MODEL_REJECTED = 422 "model_rejected" "The files are not a model that can be read";
    /// The engine cannot read the files as a dataset.
    DATASET_REJECTED = 422 "dataset_rejected" "The files are not a dataset that can be read";
    /// The recipe cannot work on this model.
    RECIPE_REFUSED = 422 "recipe_refused" "The recipe cannot be applied to this model";
    /// A piece of an upload is not what its checksum says (tus).
    CHECKSUM_MISMATCH = 460 "checksum_mismatch" "The piece does not match its checksum";
    /// Something broke; the log has it.
    INTERNAL = 500 "internal" "Something went wrong on our side";
    /// The request took too long.
    REQUEST_TIMEOUT = 503 "request_timeout" "The request took too long";
    /// Too many jobs or streams.
    OVERLOADED = 503 "overloaded" "Too much is waiting already";
    /// A dependency is down or the server is going away.
    UNAVAILABLE = 503 "unavailable" "The server cannot take requests now";
    /// The disk is full.
    DISK_FULL = 507 "disk_full" "There is no disk space left for this";
}

/// One field or file that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer into the request body (or `/parameter` of the query).
    #[schema(example = "/recipe/stages/0/group_size")]
    pub pointer: String,
    /// Stable name of what is wrong.
    #[schema(example = "group_size_does_not_divide")]
    pub code: String,
    /// For people: what is wrong and what would be right.
    #[schema(example = "576 is not a multiple of 128; 64 would fit")]
    pub detail: String,
}

/// A problem document (RFC 9457).
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Problem, title = "Problem")]
pub struct ProblemOut {
    /// Where this kind of problem is described.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", example = "/docs#problem-not_found")]
    kind: String,
    /// Constant text of the kind.
    #[schema(example = "There is nothing here")]
    title: &'static str,
    /// The HTTP status again.
    #[schema(minimum = 400, maximum = 599, example = 404)]
    status: u16,
    /// What happened this time, for people.
    #[schema(example = "no job has the id job_0193…")]
    detail: String,
    /// The path that was asked for.
    #[schema(required = false, example = "/v1/jobs/job_0193")]
    #[serde(skip_serializing_if = "String::is_empty")]
    instance: String,
    /// Stable name, for programs.
    #[schema(example = "not_found")]
    code: String,
    /// The request's id, as in the log and in `X-Request-Id`.
    #[schema(required = false, example = "0193d0a6-7c1e-7bd0-8d53-2f5a9f1d1c11")]
    #[serde(skip_serializing_if = "String::is_empty")]
    request_id: String,
    /// Each wrong field or file.
    #[schema(required = false)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// The offset the upload is really at (only `offset_mismatch`).
    #[schema(required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_offset: Option<u64>,
}

/// A problem on its way out: what a handler returns as its error.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    code: String,
    detail: String,
    errors: Vec<FieldError>,
    expected_offset: Option<u64>,
    headers: HeaderMap,
    cause: Option<String>,
}

impl Problem {
    /// A problem of a kind, with what happened this time.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            code: kind.code.to_owned(),
            detail: detail.into(),
            errors: Vec::new(),
            expected_offset: None,
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// Our fault: the cause goes to the log, not to the client.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let mut problem = Self::new(
            INTERNAL,
            "the server met an error; the log has it under this request id",
        );
        problem.0.cause = Some(cause.to_string());
        problem
    }

    /// No such object.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(NOT_FOUND, format!("no {what} has the id {}", shorten(id)))
    }

    /// One wrong field.
    pub fn field(pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self::new(FIELDS_INVALID, detail.clone()).with_error(pointer, code, detail)
    }

    /// Replaces the code by a more precise one of the same kind.
    #[must_use]
    pub fn with_code(mut self, code: &str) -> Self {
        code.clone_into(&mut self.0.code);
        self
    }

    /// Adds a wrong field.
    #[must_use]
    pub fn with_error(mut self, pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        self.0.errors.push(FieldError {
            pointer: pointer.into(),
            code: code.to_owned(),
            detail: detail.into(),
        });
        self
    }

    /// Moves the fields below a pointer: what was read alone is part of something larger.
    #[must_use]
    pub fn below(mut self, pointer: &str) -> Self {
        for error in &mut self.0.errors {
            error.pointer.insert_str(0, pointer);
        }
        self
    }

    /// States the offset an upload is really at, in the body and as a header.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.0.expected_offset = Some(offset);
        self.with_header(HeaderName::from_static("upload-offset"), &offset.to_string())
    }

    /// Adds a response header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// The kind's status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What the log says and the client does not see.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// What happened, for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Each wrong field.
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// Whether it is of this kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.0.kind.code == kind.code
    }

    /// Its stable name.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// A bare status from some layer or extractor, made into the problem nearest to it.
    pub fn from_status(status: StatusCode) -> Self {
        let code = status.as_u16();
        let kind = match KINDS.iter().find(|kind| kind.status == code) {
            Some(kind) => *kind,
            None if status.is_client_error() => BAD_REQUEST,
            None => INTERNAL,
        };
        Self::new(
            kind,
            status.canonical_reason().unwrap_or("error").to_ascii_lowercase(),
        )
    }

    /// The document, with what only the outermost layer knows.
    pub fn document(&self, instance: &str, request_id: &str) -> ProblemOut {
        let inner = &self.0;
        ProblemOut {
            kind: format!("/docs#problem-{}", inner.kind.code),
            title: inner.kind.title,
            status: inner.kind.status,
            detail: inner.detail.clone(),
            instance: instance.to_owned(),
            code: inner.code.clone(),
            request_id: request_id.to_owned(),
            errors: inner.errors.clone(),
            expected_offset: inner.expected_offset,
        }
    }

    /// The response.
    pub fn render(&self, instance: &str, request_id: &str) -> Response {
        let inner = &self.0;
        // Plain strings and numbers: this cannot fail, and an empty body would still carry the status.
        let body = serde_json::to_vec(&self.document(instance, request_id)).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        *response.headers_mut() = inner.headers.clone();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if inner.kind.status == 503 && !headers.contains_key(header::RETRY_AFTER) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render("", "");
        response.extensions_mut().insert(self);
        response
    }
}

/// Client text that goes back into a message: bounded and printable.
pub fn shorten(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        for (i, kind) in KINDS.iter().enumerate() {
            assert!((400..600).contains(&kind.status), "{}", kind.code);
            assert!(
                !KINDS[..i].iter().any(|other| other.code == kind.code),
                "{} twice",
                kind.code
            );
        }
    }

    #[test]
    fn any_status_becomes_a_problem() {
        for status in 400..600u16 {
            let status = StatusCode::from_u16(status).expect("in range");
            let problem = Problem::from_status(status);
            assert_eq!(
                problem.status().is_client_error(),
                status.is_client_error(),
                "{status}"
            );
        }
    }
}
