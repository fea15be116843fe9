//! `/v1/datasets`: text and arrays for calibration and evaluation.
//!
//! Owns: the dataset's wire form; reading files through before they are recorded.
//! Must not know: how bytes or rows are kept.
//! Invariant: a dataset is recorded only after the engine has read every record of it.

pub mod create;
pub mod delete;
pub mod get;
pub mod list;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::model::set_digest;
use crate::domain::{Dataset, DatasetId, FileRef};
use crate::http::auth::Caller;
use crate::http::engine::read_dataset;
use crate::http::problem::Problem;
use crate::http::sets::FileOut;

/// A dataset.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatasetOut {
    /// Identifier; recipes name the dataset by it.
    #[schema(example = "ds_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `dataset`.
    #[schema(example = "dataset")]
    pub object: &'static str,
    /// What you call it.
    #[schema(example = "support tickets")]
    pub name: Option<String>,
    /// Your own pairs.
    pub metadata: BTreeMap<String, String>,
    /// How its files are written: `txt`, `jsonl`, `npy`, `safetensors` or `imatrix`.
    #[schema(example = "jsonl")]
    pub format: Option<String>,
    /// What a record holds: `text`, `messages`, `ids` (tokens) or `values` (numbers); `importance` has
    /// none, its `records` are the tensors it is of.
    #[schema(example = "text")]
    pub content: Option<String>,
    /// Number of records.
    #[schema(example = 512)]
    pub records: u64,
    /// Records with a label.
    #[schema(example = 0)]
    pub labelled: u64,
    /// Records with a second text.
    #[schema(example = 0)]
    pub paired: u64,
    /// Size of all files.
    #[schema(example = 1_048_576)]
    pub bytes: u64,
    /// SHA-256 over file digests and names.
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub digest: String,
    /// Its files.
    pub files: Vec<FileOut>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl From<&Dataset> for DatasetOut {
    fn from(dataset: &Dataset) -> Self {
        let text = |key: &str| dataset.summary[key].as_str().map(str::to_owned);
        let count = |key: &str| dataset.summary[key].as_u64().unwrap_or_default();
        Self {
            id: dataset.id.to_string(),
            object: "dataset",
            name: dataset.name.clone(),
            metadata: dataset.metadata.clone(),
            format: text("format"),
            content: text("content"),
            records: count("records"),
            labelled: count("labelled"),
            paired: count("paired"),
            bytes: dataset.files.iter().map(|file| file.bytes).sum(),
            digest: format!("sha256:{}", dataset.digest),
            files: dataset.files.iter().map(FileOut::from).collect(),
            created_at: dataset.created_at,
        }
    }
}

/// What a request brings.
#[derive(Debug, Default)]
struct Brought {
    name: Option<String>,
    metadata: BTreeMap<String, String>,
    files: Vec<FileRef>,
}

/// Reads the files through and, if they are a dataset, records it.
async fn record(state: &Caller, brought: Brought) -> Result<Dataset, Problem> {
    let summary: Value = read_dataset(state, &brought.files).await?;
    let mut files = brought.files;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let dataset = Dataset {
        id: DatasetId::from_uuid(uuid::Uuid::now_v7()),
        name: brought.name,
        metadata: brought.metadata,
        digest: set_digest(&files),
        files,
        summary,
        created_at: state.clock.now(),
    };
    state.store.insert_dataset(&dataset).await?;
    Ok(dataset)
}
