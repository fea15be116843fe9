//! Datasets: text and arrays that jobs are calibrated and evaluated with.
//!
//! Owns: the dataset and its file references.
//! Must not know: what the engine reads in them.
//! Invariant: a dataset is complete when it is recorded and never changes.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;

use super::{DatasetId, FileRef};

/// A dataset.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its id; the name that recipes use.
    pub id: DatasetId,
    /// What the user calls it.
    pub name: Option<String>,
    /// The user's own pairs.
    pub metadata: BTreeMap<String, String>,
    /// Its files, by name.
    pub files: Vec<FileRef>,
    /// Digest over names and file digests.
    pub digest: String,
    /// What the engine found (its `DatasetSummary` as JSON).
    pub summary: Value,
    /// When it was made.
    pub created_at: OffsetDateTime,
}
