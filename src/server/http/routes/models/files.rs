//! `PUT /v1/models/{id}/files/{path}`: one file of a draft, streamed.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::domain::model::check_file_name;
use crate::domain::ports::Body as Bytes;
use crate::domain::{FileRef, Model, ModelId, ModelState};
use crate::http::auth::{Caller, May, WriteModels};
use crate::http::headers;
use crate::http::path::{FileName, Id};
use crate::http::problem::{self, Problem};
use crate::http::refuse::about;
use crate::http::sets::{FileOut, check_room, release};
use crate::http::undo::Undo;

/// Put a file into a draft
///
/// The body is the file, raw: `curl -T model.safetensors …/files/model.safetensors`. It goes straight to disk and
/// is hashed on the way; a broken, oversized or mismatching body leaves nothing behind. Putting the same path
/// again replaces the file.
#[utoipa::path(
    put, path = "/v1/models/{id}/files/{*path}", tag = "models", operation_id = "putModelFile",
    security(("key" = ["models:write"])),
    params(
        ("id" = String, Path, description = "The draft", example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11"),
        ("path" = String, Path, description = "Relative path in the model; may hold `/`", example = "model.safetensors"),
        ("Repr-Digest" = Option<String>, Header, description = "`sha-256=:<base64>:`; checked against what arrived"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The file"),
    responses((status = 201, description = "The file is stored", body = FileOut),
              (status = 200, description = "The file replaced an earlier one", body = FileOut)),
    extensions(("x-problem-codes" = json!(["header_invalid", "body_truncated", "digest_mismatch", "not_found",
        "idle_timeout", "conflict", "too_large", "file_name_invalid", "pickle_refused", "quota_exceeded", "disk_full"])))
)]
pub async fn put_model_file(
    May(state, ..): May<WriteModels>,
    Id(id): Id<ModelId>,
    FileName(name): FileName,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let expected = headers::repr_digest(&headers)?;
    let model = state.store.model(id).await.map_err(about("model", &id))?;
    may_take(&state, &model, &name)?;
    let announced = headers::content_length(&headers);
    let bounds = state.bounds(u64::MAX, announced).await?;
    let stored = state.blobs.put(stream(body), bounds, expected).await?;
    state.metrics.uploads_received_bytes.inc_by(stored.bytes);

    let file = FileRef {
        name,
        digest: stored.digest.clone(),
        bytes: stored.bytes,
    };
    let mut undo = Undo::new(state.blobs.clone());
    undo.add(stored);
    let replaced = state
        .store
        .put_model_file(id, &file)
        .await
        .map_err(about("model", &id))?;
    undo.keep();
    let status = if replaced.is_some() {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    if let Some(old) = replaced.filter(|old| old.digest != file.digest) {
        release(&state, vec![old.digest]).await?;
    }
    let digest = headers::repr_digest_value(&file.digest);
    let headers = [(header::HeaderName::from_static("repr-digest"), digest)];
    Ok((status, headers, Json(FileOut::from(&file))).into_response())
}

/// Checked before a byte is read: the client of a large file should learn at once.
fn may_take(state: &Caller, model: &Model, name: &str) -> Result<(), Problem> {
    if model.state != ModelState::Draft {
        let detail = format!(
            "model {} is committed and takes no files; create another",
            model.id
        );
        return Err(Problem::new(problem::CONFLICT, detail).with_code("model_committed"));
    }
    super::not_pulled(model)?;
    check_file_name(name)?;
    let others = model.files.iter().filter(|file| file.name != name).count();
    check_room(state, others)
}

/// A request's body as the stores take it.
pub(in crate::http) fn stream(body: Body) -> Bytes {
    body.into_data_stream().map_err(io::Error::other).boxed()
}
