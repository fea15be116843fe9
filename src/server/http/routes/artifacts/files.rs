//! `GET|HEAD /v1/artifacts/{id}/files/{path}`: one file, whole or in part.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::attachment;
use crate::domain::{ArtifactId, FileRef};
use crate::http::auth::{May, ReadArtifacts};
use crate::http::conditional::{Answer, decide};
use crate::http::headers::repr_digest_value;
use crate::http::path::{FileName, Id};
use crate::http::problem::{self, Problem, shorten};
use crate::http::refuse::about;

/// Download a file of an artifact
///
/// The entity tag is the digest and never changes. Ranges resume a broken download (`curl -C -`), `If-Range`
/// makes that safe, `If-None-Match` saves it. `HEAD` answers the same without the bytes.
#[utoipa::path(
    get, path = "/v1/artifacts/{id}/files/{*path}", tag = "artifacts", operation_id = "getArtifactFile",
    security(("key" = ["artifacts:read"])),
    params(
        ("id" = String, Path, description = "The artifact", example = "art_0193d0a67c1e7bd08d532f5a9f1d1c11"),
        ("path" = String, Path, description = "The file's name", example = "model-Q4_K_M.gguf"),
        ("Range" = Option<String>, Header, description = "`bytes=first-last`"),
        ("If-Range" = Option<String>, Header, description = "The `ETag` that the range is of"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` you have already"),
    ),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream",
         headers(("ETag" = String), ("Accept-Ranges" = String), ("Content-Disposition" = String), ("Repr-Digest" = String))),
        (status = 206, description = "The range", body = Vec<u8>, content_type = "application/octet-stream",
         headers(("Content-Range" = String))),
        (status = 304, description = "You have it"),
    ),
    extensions(("x-problem-codes" = json!(["not_found", "precondition_failed", "range_not_satisfiable"])))
)]
pub async fn get_artifact_file(
    May(state, ..): May<ReadArtifacts>,
    Id(id): Id<ArtifactId>,
    FileName(name): FileName,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let artifact = state.store.artifact(id).await.map_err(about("artifact", &id))?;
    let Some(file) = artifact.files.iter().find(|file| file.name == name) else {
        let detail = format!("artifact {id} has no file {}", shorten(&name));
        return Err(Problem::new(problem::NOT_FOUND, detail));
    };
    let etag = format!("\"sha256:{}\"", file.digest);
    let (status, first, length) = match decide(&headers, &etag, file.bytes) {
        Answer::Whole => (StatusCode::OK, 0, file.bytes),
        Answer::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Answer::NotModified => (StatusCode::NOT_MODIFIED, 0, 0),
        Answer::Failed => {
            return Err(Problem::new(
                problem::PRECONDITION_FAILED,
                "the file has another digest",
            ));
        }
        Answer::OutOfRange => {
            let problem = Problem::new(
                problem::RANGE_NOT_SATISFIABLE,
                format!("the file has {} bytes", file.bytes),
            );
            return Err(problem.with_header(header::CONTENT_RANGE, &format!("bytes */{}", file.bytes)));
        }
    };
    let body = if length == 0 || method == Method::HEAD {
        Body::empty()
    } else {
        state.metrics.downloads_sent_bytes.inc_by(length);
        Body::from_stream(state.blobs.read(&file.digest, first, length).await?)
    };
    let mut response = (status, body).into_response();
    describe(response.headers_mut(), file, &etag, status, first, length);
    Ok(response)
}

fn describe(
    headers: &mut HeaderMap,
    file: &FileRef,
    etag: &str,
    status: StatusCode,
    first: u64,
    length: u64,
) {
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    put(header::ETAG, etag.to_owned());
    put(
        header::CACHE_CONTROL,
        "private, max-age=31536000, immutable".to_owned(),
    );
    put(header::ACCEPT_RANGES, "bytes".to_owned());
    if status == StatusCode::NOT_MODIFIED {
        return;
    }
    if status == StatusCode::PARTIAL_CONTENT {
        put(
            header::CONTENT_RANGE,
            format!("bytes {first}-{}/{}", first + length - 1, file.bytes),
        );
    }
    put(header::CONTENT_LENGTH, length.to_string());
    put(
        HeaderName::from_static("repr-digest"),
        repr_digest_value(&file.digest),
    );
    put(header::CONTENT_TYPE, media_type(&file.name).to_owned());
    headers.insert(
        header::CONTENT_DISPOSITION,
        attachment(file.name.rsplit('/').next().unwrap_or(&file.name)),
    );
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("json") => "application/json",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
