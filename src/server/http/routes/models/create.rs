//! `POST /v1/models`: an empty draft, a set of uploads, files of this machine, or a multipart form.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{ModelOut, check_name, check_new_file, create_ready, draft, multipart, source_path};
use crate::domain::{FileRef, Model, UploadId};
use crate::http::engine::check_metadata;
use crate::http::headers;
use crate::http::input::Input;
use crate::http::problem::{self, Problem, shorten};
use crate::http::refuse::about;
use crate::http::state::AppState;

/// What to make a model from. Without `files` and `source_path` it is a draft that takes files by `PUT`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "SmolLM2-135M"}))]
pub struct ModelIn {
    /// What you call it.
    pub name: Option<String>,
    /// Up to 16 pairs of your own.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Complete uploads that make up the model; it is inspected and committed at once.
    pub files: Option<Vec<UploadedFileIn>>,
    /// A file or folder on the server's machine, under a folder that its configuration allows.
    pub source_path: Option<String>,
}

/// An upload that becomes a file of the model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadedFileIn {
    /// Relative path with `/`.
    #[schema(example = "model.safetensors")]
    pub name: String,
    /// The upload's identifier.
    #[schema(example = "upl_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub upload: String,
}

/// The fields of a multipart form.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it only describes the form")]
pub struct ModelForm {
    /// The model's files, as many parts as there are files; each part's filename is the path in the model.
    #[schema(value_type = Vec<String>, format = Binary)]
    file: Vec<Vec<u8>>,
    /// What you call it.
    name: Option<String>,
    /// A JSON object of up to 16 pairs.
    metadata: Option<String>,
}

/// Create a model
///
/// With JSON: an empty draft (`{}`), a set of complete uploads (`files`), or a path on the server (`source_path`).
/// With `multipart/form-data`: all files in one call, `curl -F file=@config.json -F file=@model.safetensors`.
/// Except for the draft, the files are inspected before the answer: a set that is no model is refused
/// with the engine's own code and leaves nothing behind.
#[utoipa::path(
    post, path = "/v1/models", tag = "models", operation_id = "createModel",
    request_body(content((ModelIn = "application/json"), (ModelForm = "multipart/form-data"))),
    responses((status = 201, description = "The model, as a draft or ready", body = ModelOut,
               headers(("Location" = String, description = "Where the model is")))),
    extensions(("x-problem-codes" = json!(["json_invalid", "body_truncated", "path_not_allowed", "idle_timeout",
        "conflict", "too_large", "unsupported_media_type", "fields_invalid", "file_name_invalid", "pickle_refused",
        "model_rejected", "disk_full"])))
)]
pub async fn create_model(State(state): State<AppState>, request: Request) -> Result<Response, Problem> {
    let model = if headers::media_type(request.headers()) == "multipart/form-data" {
        multipart::create(&state, request).await?
    } else {
        let wait = tokio::time::timeout(
            state.limits.request,
            Input::<ModelIn>::from_request(request, &state),
        );
        let slow = |_e| Problem::new(problem::IDLE_TIMEOUT, "the body did not arrive in time");
        from_json(&state, wait.await.map_err(slow)??.value).await?
    };
    let location = format!("/v1/models/{}", model.id);
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(ModelOut::from(&model)),
    )
        .into_response())
}

async fn from_json(state: &AppState, input: ModelIn) -> Result<Model, Problem> {
    check_name(input.name.as_deref())?;
    check_metadata(&input.metadata)?;
    match (input.files, input.source_path) {
        (Some(_), Some(_)) => {
            let detail = "give either files or source_path, not both";
            Err(Problem::field("/source_path", "conflicting_fields", detail))
        }
        (None, None) => {
            let model = draft(state, input.name, input.metadata, Vec::new());
            state.store.insert_model(&model).await?;
            Ok(model)
        }
        (None, Some(path)) => {
            let files = source_path::register(state, &path).await?;
            create_ready(state, draft(state, input.name, input.metadata, files)).await
        }
        (Some(uploads), None) => {
            let (files, ids) = uploaded(state, uploads).await?;
            let model = create_ready(state, draft(state, input.name, input.metadata, files)).await?;
            for id in ids {
                state.store.delete_upload(id).await?;
            }
            Ok(model)
        }
    }
}

async fn uploaded(
    state: &AppState,
    given: Vec<UploadedFileIn>,
) -> Result<(Vec<FileRef>, Vec<UploadId>), Problem> {
    let mut files: Vec<FileRef> = Vec::new();
    let mut ids = Vec::new();
    if given.is_empty() {
        return Err(Problem::field(
            "/files",
            "missing_files",
            "name at least one file, or leave files out for a draft",
        ));
    }
    for (i, file) in given.into_iter().enumerate() {
        check_new_file(state, &files, &file.name)?;
        let pointer = format!("/files/{i}/upload");
        let unknown = || {
            Problem::field(
                pointer.clone(),
                "unknown_upload",
                format!("no upload {}", shorten(&file.upload)),
            )
        };
        let id: UploadId = file.upload.parse().map_err(|_e| unknown())?;
        let upload = state.store.upload(id).await.map_err(about("upload", &id))?;
        let Some((digest, bytes)) = upload.complete else {
            return Err(Problem::field(
                pointer,
                "upload_incomplete",
                format!("upload {id} is not complete"),
            ));
        };
        files.push(FileRef {
            name: file.name,
            digest,
            bytes,
        });
        ids.push(id);
    }
    Ok((files, ids))
}
