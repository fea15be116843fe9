//! `/v1/models`: what is said about a model, and the steps several verbs share.
//!
//! Owns: the model's wire form; adding checked files; inspecting and committing.
//! Must not know: how bytes or rows are kept.
//! Invariant: a model becomes ready only through `commit`, after the engine has opened it.

pub mod analyze;
pub mod commit;
pub mod create;
pub mod delete;
pub mod files;
pub mod get;
pub mod list;
pub mod pull;
pub mod source_path;
pub mod tensors;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::model::set_digest;
use crate::domain::ports::Commit;
use crate::domain::{FileRef, Model, ModelId, ModelState};
use crate::http::auth::Caller;
use crate::http::engine::inspect_files;
use crate::http::problem::{self, Problem};
use crate::http::refuse::about;
use crate::http::sets::FileOut;
use crate::http::state::Parts;
use pull::PullOut;

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelOut {
    /// Identifier.
    #[schema(example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `model`.
    #[schema(example = "model")]
    pub object: &'static str,
    /// `draft` takes files; `ready` is inspected and never changes; `pulling` and `failed` are models whose files are, or
    /// could not be, brought from a `source`.
    #[schema(example = "ready")]
    pub status: &'static str,
    /// What you call it.
    #[schema(example = "SmolLM2-135M")]
    pub name: Option<String>,
    /// Your own pairs.
    pub metadata: BTreeMap<String, String>,
    /// `huggingface`, `gguf` or `safetensors`; null for a draft.
    #[schema(example = "huggingface")]
    pub format: Option<String>,
    /// Architecture as the model names it.
    #[schema(example = "LlamaForCausalLM")]
    pub architecture: Option<String>,
    /// Number of weights; null for a draft.
    #[schema(example = 134_515_008)]
    pub parameter_count: Option<u64>,
    /// Number of tensors; null for a draft.
    #[schema(example = 272)]
    pub tensor_count: Option<u64>,
    /// Weights by stored type.
    #[schema(example = json!({"BF16": 134_515_008}))]
    pub dtypes: BTreeMap<String, u64>,
    /// Size of all files.
    #[schema(example = 271_375_304)]
    pub bytes: u64,
    /// SHA-256 over file digests and names; null for a draft.
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub digest: Option<String>,
    /// Its files.
    pub files: Vec<FileOut>,
    /// Where its files are brought from; null for a model that was uploaded.
    pub pull: Option<PullOut>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it became ready.
    #[serde(with = "time::serde::rfc3339::option")]
    pub committed_at: Option<OffsetDateTime>,
}

impl From<&Model> for ModelOut {
    fn from(model: &Model) -> Self {
        let found = |key: &str| model.summary.as_ref().and_then(|summary| summary.get(key));
        let text = |key: &str| found(key).and_then(Value::as_str).map(str::to_owned);
        let dtypes = found("dtypes").and_then(Value::as_object).into_iter().flatten();
        Self {
            id: model.id.to_string(),
            object: "model",
            status: model.status(),
            name: model.name.clone(),
            metadata: model.metadata.clone(),
            format: text("format"),
            architecture: text("architecture"),
            parameter_count: found("parameter_count").and_then(Value::as_u64),
            tensor_count: found("tensor_count").and_then(Value::as_u64),
            dtypes: dtypes
                .filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)))
                .collect(),
            bytes: model.files.iter().map(|file| file.bytes).sum(),
            digest: model.digest.as_ref().map(|digest| format!("sha256:{digest}")),
            files: model.files.iter().map(FileOut::from).collect(),
            pull: model.pull.as_ref().map(PullOut::from),
            created_at: model.created_at,
            committed_at: model.committed_at,
        }
    }
}

/// Files of a model that is brought from elsewhere are nobody else's business.
fn not_pulled(model: &Model) -> Result<(), Problem> {
    let Some(pull) = &model.pull else {
        return Ok(());
    };
    let detail = format!(
        "model {} is brought from {} and takes no other files; create another",
        model.id, pull.source
    );
    Err(Problem::new(problem::CONFLICT, detail).with_code("model_pulled"))
}

/// A draft with these files, not recorded yet.
fn draft(
    state: &Caller,
    name: Option<String>,
    metadata: BTreeMap<String, String>,
    files: Vec<FileRef>,
) -> Model {
    Model {
        id: ModelId::from_uuid(uuid::Uuid::now_v7()),
        name,
        metadata,
        state: ModelState::Draft,
        files,
        digest: None,
        summary: None,
        pull: None,
        created_at: state.clock.now(),
        committed_at: None,
    }
}

/// Inspects files and, if the engine can open them, records a model that is ready.
async fn create_ready(state: &Caller, model: Model) -> Result<Model, Problem> {
    let commit = inspected(state, &model.files).await?;
    state.store.insert_model(&model).await?;
    Ok(state.store.commit_model(model.id, &commit).await?)
}

/// Inspects a draft's files and makes it ready.
async fn commit(state: &Caller, model: &Model) -> Result<Model, Problem> {
    let commit = inspected(state, &model.files).await?;
    state
        .store
        .commit_model(model.id, &commit)
        .await
        .map_err(about("model", &model.id))
}

async fn inspected(state: &Parts, files: &[FileRef]) -> Result<Commit, Problem> {
    let found = inspect_files(state, files).await?;
    Ok(Commit {
        files: files.to_vec(),
        digest: set_digest(files),
        summary: found.summary,
        tensors: found.tensors,
        at: state.clock.now(),
    })
}
