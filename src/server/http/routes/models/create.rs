//! `POST /v1/models`: an empty draft, a set of uploads, files of this machine, or a multipart form.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{ModelOut, create_ready, draft, pull, source_path};
use crate::domain::Model;
use crate::http::auth::{Caller, May, WriteModels};
use crate::http::engine::check_metadata;
use crate::http::form;
use crate::http::headers;
use crate::http::input::Input;
use crate::http::problem::Problem;
use crate::http::sets::{UploadedFileIn, check_name, uploaded};
use crate::http::undo::Undo;

/// What to make a model from. Without `files`, `source` and `source_path` it is a draft that takes files by `PUT`.
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
    /// Where the server brings the files from: `hf://org/name@revision` (a branch, tag or commit; `main` unless given), or,
    /// where its operator allows it, `https://…`: a file, or a list of files named `SHA256SUMS`; or `s3://bucket/prefix`.
    #[schema(example = "hf://HuggingFaceTB/SmolLM2-135M@main")]
    pub source: Option<String>,
    /// Names of the files to bring, in which `*` stands for anything; the safetensors with what lies beside them, or the one
    /// GGUF file, unless given. Only with `source`.
    #[serde(default)]
    pub include: Vec<String>,
    /// What opens a private or gated `source`. It is sent to that host only, kept sealed while the files are brought, and
    /// then forgotten.
    pub token: Option<Token>,
}

/// A secret of the client's.
#[derive(Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
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
/// With JSON: an empty draft (`{}`), a set of complete uploads (`files`), a path on the server (`source_path`), or a place
/// from which the server brings the files (`source`): that answers 202 and a model that is `pulling`; `GET` shows how far it
/// is, `DELETE` ends it.
/// With `multipart/form-data`: all files in one call, `curl -F file=@config.json -F file=@model.safetensors`.
/// Except for the draft and what is brought, the files are inspected before the answer: a set that is no model is refused
/// with the engine's own code and leaves nothing behind.
#[utoipa::path(
    post, path = "/v1/models", tag = "models", operation_id = "createModel",
    security(("key" = ["models:write"])),
    request_body(content((ModelIn = "application/json"), (ModelForm = "multipart/form-data"))),
    responses((status = 201, description = "The model, as a draft or ready", body = ModelOut,
               headers(("Location" = String, description = "Where the model is"))),
              (status = 202, description = "The model, whose files will be brought", body = ModelOut,
               headers(("Location" = String, description = "Where the model is")))),
    extensions(("x-problem-codes" = json!(["json_invalid", "body_truncated", "path_not_allowed",
        "source_not_allowed", "idle_timeout", "not_found",
        "conflict", "too_large", "unsupported_media_type", "fields_invalid", "file_name_invalid", "pickle_refused",
        "model_rejected", "quota_exceeded", "disk_full"])))
)]
pub async fn create_model(May(state, ..): May<WriteModels>, request: Request) -> Result<Response, Problem> {
    let model = if headers::media_type(request.headers()) == "multipart/form-data" {
        from_form(&state, request).await?
    } else {
        from_json(&state, Input::in_time(request, &state.app).await?.value).await?
    };
    let location = format!("/v1/models/{}", model.id);
    let status = if model.is_pulling() {
        StatusCode::ACCEPTED
    } else {
        StatusCode::CREATED
    };
    Ok((
        status,
        [(header::LOCATION, location)],
        Json(ModelOut::from(&model)),
    )
        .into_response())
}

async fn from_form(state: &Caller, request: Request) -> Result<Model, Problem> {
    let mut undo = Undo::new(state.blobs.clone());
    let made = match form::read(state, request, &mut undo).await {
        Ok(form) => create_ready(state, draft(state, form.name, form.metadata, form.files)).await,
        Err(problem) => Err(problem),
    };
    undo.settle(made).await
}

async fn from_json(state: &Caller, input: ModelIn) -> Result<Model, Problem> {
    check_name(input.name.as_deref())?;
    check_metadata(&input.metadata)?;
    if input.source.is_none() && (!input.include.is_empty() || input.token.is_some()) {
        let at = if input.token.is_some() {
            "/token"
        } else {
            "/include"
        };
        return Err(Problem::field(at, "conflicting_fields", "it goes with a source"));
    }
    match (input.files, input.source_path, input.source) {
        (None, None, Some(source)) => {
            let model = draft(state, input.name, input.metadata, Vec::new());
            pull::begin(state, model, &source, input.include, input.token).await
        }
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            let detail = "give one of files, source_path and source";
            Err(Problem::field("/source", "conflicting_fields", detail))
        }
        (Some(_), Some(_), None) => {
            let detail = "give either files or source_path, not both";
            Err(Problem::field("/source_path", "conflicting_fields", detail))
        }
        (None, None, None) => {
            let model = draft(state, input.name, input.metadata, Vec::new());
            state.store.insert_model(&model).await?;
            Ok(model)
        }
        (None, Some(path), None) => {
            let files = source_path::register(state, &path).await?;
            create_ready(state, draft(state, input.name, input.metadata, files)).await
        }
        (Some(uploads), None, None) => {
            let (files, ids) = uploaded(state, uploads).await?;
            let model = create_ready(state, draft(state, input.name, input.metadata, files)).await?;
            for id in ids {
                state.store.delete_upload(id).await?;
            }
            Ok(model)
        }
    }
}
