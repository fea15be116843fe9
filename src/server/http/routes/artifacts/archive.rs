//! `GET /v1/artifacts/{id}/archive`: all files as one tar, streamed.

use std::io;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::attachment;
use crate::domain::{Artifact, ArtifactId, FileRef};
use crate::http::auth::{Caller, May, ReadArtifacts};
use crate::http::conditional::{Answer, decide};
use crate::http::path::Id;
use crate::http::problem::{self, Problem};
use crate::http::refuse::about;
use crate::http::tar::{self, Entry};

/// Download an artifact as a tar archive
///
/// Made while it is sent, never on disk; the same artifact always gives the same bytes, with their
/// `Content-Length`. The files lie in a folder named after the artifact.
#[utoipa::path(
    get, path = "/v1/artifacts/{id}/archive", tag = "artifacts", operation_id = "getArtifactArchive",
    security(("key" = ["artifacts:read"])),
    params(("id" = String, Path, description = "The artifact", example = "art_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The archive", body = Vec<u8>, content_type = "application/x-tar",
               headers(("ETag" = String), ("Content-Length" = u64), ("Content-Disposition" = String))),
              (status = 304, description = "You have it")),
    extensions(("x-problem-codes" = json!(["not_found", "precondition_failed"])))
)]
pub async fn get_artifact_archive(
    May(state, ..): May<ReadArtifacts>,
    Id(id): Id<ArtifactId>,
    method: Method,
    mut headers: HeaderMap,
) -> Result<Response, Problem> {
    let artifact = state.store.artifact(id).await.map_err(about("artifact", &id))?;
    let etag = format!("\"tar:{}:{id}\"", artifact.digest);
    // Parts of an archive are not offered.
    headers.remove(header::RANGE);
    let status = match decide(&headers, &etag, 0) {
        Answer::NotModified => StatusCode::NOT_MODIFIED,
        Answer::Failed => {
            return Err(Problem::new(
                problem::PRECONDITION_FAILED,
                "the archive has another tag",
            ));
        }
        _ => StatusCode::OK,
    };
    let entries = entries(&artifact);
    let bytes = tar::total_bytes(&entries).map_err(Problem::internal)?;
    let body = if status == StatusCode::NOT_MODIFIED || method == Method::HEAD {
        Body::empty()
    } else {
        state.metrics.downloads_sent_bytes.inc_by(bytes);
        Body::from_stream(archive(state, entries, artifact.files))
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    if status == StatusCode::OK {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-tar"),
        );
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
        headers.insert(header::CONTENT_DISPOSITION, attachment(&format!("{id}.tar")));
    }
    Ok(response)
}

fn entries(artifact: &Artifact) -> Vec<Entry> {
    let modified = u64::try_from(artifact.created_at.unix_timestamp()).unwrap_or(0);
    let entry = |file: &FileRef| Entry {
        name: format!("{}/{}", artifact.id, file.name),
        bytes: file.bytes,
        modified,
    };
    artifact.files.iter().map(entry).collect()
}

/// A file that cannot be read breaks the body off: the client sees fewer bytes than announced, never wrong ones.
fn archive(state: Caller, entries: Vec<Entry>, files: Vec<FileRef>) -> impl Stream<Item = io::Result<Bytes>> {
    async_stream::try_stream! {
        for (entry, file) in entries.iter().zip(&files) {
            yield Bytes::from(tar::head(entry)?);
            let content = state.blobs.read(&file.digest, 0, file.bytes).await;
            let mut content = content.map_err(io::Error::other)?;
            while let Some(chunk) = content.next().await {
                yield chunk?;
            }
            yield Bytes::from_static(tar::padding(entry.bytes));
        }
        yield Bytes::from_static(&tar::END);
    }
}
