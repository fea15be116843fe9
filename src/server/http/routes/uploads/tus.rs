//! tus 1.0: the headers by which its clients know a server that speaks it.
//!
//! Owns: the version, the list of extensions, `Tus-Resumable` on every answer.
//! Must not know: what an upload is.
//! Invariant: a request of another version is refused before anything is done.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::limit;
use crate::http::problem::{self, Problem};
use crate::http::state::AppState;

const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const VERSIONS: HeaderName = HeaderName::from_static("tus-version");
const EXTENSIONS: HeaderValue = HeaderValue::from_static(
    "checksum,creation,creation-defer-length,creation-with-upload,expiration,termination",
);

/// The media type of an upload's bytes.
pub(super) const BYTES: &str = "application/offset+octet-stream";

/// True of a request of a tus client.
pub(super) fn speaks(headers: &axum::http::HeaderMap) -> bool {
    headers.contains_key(RESUMABLE)
}

/// Answers tus clients in tus; others never notice.
pub async fn dialect(request: Request, next: Next) -> Response {
    let asked = request.headers().get(RESUMABLE).cloned();
    let is_question = request.method() == Method::OPTIONS;
    let Some(asked) = asked.filter(|_| !is_question) else {
        return next.run(request).await;
    };
    let mut response = if asked == VERSION {
        next.run(request).await
    } else {
        let refusal = Problem::new(problem::TUS_VERSION, "this server speaks tus 1.0.0");
        refusal.with_header(VERSIONS, "1.0.0").into_response()
    };
    response.headers_mut().insert(RESUMABLE, VERSION);
    response
}

/// Ask what uploads may be
///
/// For clients of tus and of the IETF's resumable uploads: versions, extensions, largest size.
#[utoipa::path(
    options, path = "/v1/uploads", tag = "uploads", operation_id = "describeUploads",
    responses((status = 204, description = "In headers",
               headers(("Tus-Version" = String), ("Tus-Extension" = String), ("Tus-Max-Size" = u64),
                       ("Tus-Checksum-Algorithm" = String), ("Upload-Limit" = String)))),
    extensions(("x-problem-codes" = json!([])))
)]
pub async fn describe_uploads(State(state): State<AppState>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(RESUMABLE, VERSION);
    headers.insert(VERSIONS, VERSION);
    headers.insert(HeaderName::from_static("tus-extension"), EXTENSIONS);
    headers.insert(
        HeaderName::from_static("tus-max-size"),
        HeaderValue::from(state.limits.file_bytes),
    );
    headers.insert(
        HeaderName::from_static("tus-checksum-algorithm"),
        HeaderValue::from_static("sha1,sha256"),
    );
    limit(&mut response, &state, None);
    response
}
