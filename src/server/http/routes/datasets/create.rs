//! `POST /v1/datasets`: a multipart form, a set of uploads, or one file as the body.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Brought, DatasetOut, record};
use crate::domain::{Dataset, FileRef};
use crate::http::auth::{Caller, May, WriteDatasets};
use crate::http::engine::check_metadata;
use crate::http::form;
use crate::http::headers;
use crate::http::input::{Input, not_encoded};
use crate::http::problem::Problem;
use crate::http::routes::models::files::stream;
use crate::http::sets::{UploadedFileIn, check_name, uploaded};
use crate::http::undo::Undo;

/// What to make a dataset from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "support tickets",
    "files": [{"name": "train.jsonl", "upload": "upl_0193d0a67c1e7bd08d532f5a9f1d1c11"}]}))]
pub struct DatasetIn {
    /// What you call it.
    pub name: Option<String>,
    /// Up to 16 pairs of your own.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Complete uploads that make up the dataset.
    pub files: Vec<UploadedFileIn>,
}

/// The fields of a multipart form.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it only describes the form")]
pub struct DatasetForm {
    /// The dataset's files, as many parts as there are files.
    #[schema(value_type = Vec<String>, format = Binary)]
    file: Vec<Vec<u8>>,
    /// What you call it.
    name: Option<String>,
    /// A JSON object of up to 16 pairs.
    metadata: Option<String>,
}

/// Bodies that are the dataset, and what the file is called then.
const RAW: [(&str, &str); 4] = [
    ("application/jsonl", "data.jsonl"),
    ("application/jsonlines", "data.jsonl"),
    ("application/x-ndjson", "data.jsonl"),
    ("text/plain", "data.txt"),
];

/// Create a dataset
///
/// Text (`.txt`, a document a file), JSON lines (`.jsonl`: `text`, or `messages`, or `input_ids`; `label` and
/// `text_pair` if you like), `NumPy` arrays (`.npy`) or safetensors (`input_ids`, `labels`); all files of one kind.
/// Every record is read before the answer: a wrong one is refused with its file and line, and nothing is kept.
/// With `text/plain` or `application/jsonl` the body is the dataset's only file:
/// `curl --data-binary @calibration.txt -H 'Content-Type: text/plain'`.
#[utoipa::path(
    post, path = "/v1/datasets", tag = "datasets", operation_id = "createDataset",
    security(("key" = ["datasets:write"])),
    params(("Repr-Digest" = Option<String>, Header,
            description = "`sha-256=:<base64>:` of a body that is the dataset; checked against what arrived")),
    request_body(content((DatasetIn = "application/json"), (DatasetForm = "multipart/form-data"),
                         (String = "text/plain"), (String = "application/jsonl"))),
    responses((status = 201, description = "The dataset", body = DatasetOut,
               headers(("Location" = String, description = "Where the dataset is")))),
    extensions(("x-problem-codes" = json!(["json_invalid", "header_invalid", "body_truncated", "digest_mismatch",
        "idle_timeout", "not_found", "conflict", "too_large", "unsupported_media_type", "fields_invalid", "file_name_invalid",
        "pickle_refused", "dataset_rejected", "quota_exceeded", "disk_full"])))
)]
pub async fn create_dataset(
    May(state, ..): May<WriteDatasets>,
    request: Request,
) -> Result<Response, Problem> {
    let kind = headers::media_type(request.headers());
    let raw = RAW.iter().find(|(raw, _)| *raw == kind);
    let dataset = match (kind.as_str(), raw) {
        ("multipart/form-data", _) => from_form(&state, request).await?,
        (_, Some((_, name))) => from_body(&state, request, name).await?,
        _ => from_json(&state, request).await?,
    };
    let location = format!("/v1/datasets/{}", dataset.id);
    let body = Json(DatasetOut::from(&dataset));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

async fn from_form(state: &Caller, request: Request) -> Result<Dataset, Problem> {
    let mut undo = Undo::new(state.blobs.clone());
    let made = match form::read(state, request, &mut undo).await {
        Ok(form) => {
            let brought = Brought {
                name: form.name,
                metadata: form.metadata,
                files: form.files,
            };
            record(state, brought).await
        }
        Err(problem) => Err(problem),
    };
    undo.settle(made).await
}

async fn from_body(state: &Caller, request: Request, name: &str) -> Result<Dataset, Problem> {
    not_encoded(request.headers())?;
    let expected = headers::repr_digest(request.headers())?;
    let announced = headers::content_length(request.headers());
    let bounds = state.bounds(u64::MAX, announced).await?;
    let body = stream(request.into_body());
    let stored = state.blobs.put(body, bounds, expected).await?;
    state.metrics.uploads_received_bytes.inc_by(stored.bytes);
    let file = FileRef {
        name: name.to_owned(),
        digest: stored.digest.clone(),
        bytes: stored.bytes,
    };
    let mut undo = Undo::new(state.blobs.clone());
    undo.add(stored);
    let brought = Brought {
        files: vec![file],
        ..Brought::default()
    };
    undo.settle(record(state, brought).await).await
}

async fn from_json(state: &Caller, request: Request) -> Result<Dataset, Problem> {
    let input: DatasetIn = Input::in_time(request, &state.app).await?.value;
    check_name(input.name.as_deref())?;
    check_metadata(&input.metadata)?;
    let (files, uploads) = uploaded(state, input.files).await?;
    let brought = Brought {
        name: input.name,
        metadata: input.metadata,
        files,
    };
    let dataset = record(state, brought).await?;
    for upload in uploads {
        state.store.delete_upload(upload).await?;
    }
    Ok(dataset)
}
