//! What a search found out so far, on disk.
//!
//! Owns: the file, what names a measurement. Must not know: what is done with it.
//! Invariant: a file of another plan counts for nothing; it is whole or not there.

use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::evaluate::Measure;
use crate::execute::Site;
use crate::execute::resume::{WEIGHTS, fingerprint};
use crate::plan::{Plan, Use};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = "budget";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    fingerprint: String,
    losses: Option<Vec<Vec<f64>>>,
    measured: BTreeMap<String, Vec<Measure>>,
}

/// The file.
pub(super) struct Memo {
    path: PathBuf,
    kept: Kept,
}

impl Memo {
    pub(super) fn open(plan: &Plan, site: &Site<'_>) -> Result<Self> {
        let path = site.scratch.join(WEIGHTS).join(FILE);
        let fingerprint = fingerprint(plan, site)?;
        let read = std::fs::read(&path).ok();
        let kept: Option<Kept> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Self {
            path,
            kept: kept
                .filter(|kept| kept.fingerprint == fingerprint)
                .unwrap_or(Kept {
                    fingerprint,
                    ..Kept::default()
                }),
        })
    }

    pub(super) fn losses(&self) -> Option<Vec<Vec<f64>>> {
        self.kept.losses.clone()
    }

    pub(super) fn keep_losses(&mut self, losses: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
        self.kept.losses = Some(losses.clone());
        self.write().map(|()| losses)
    }

    pub(super) fn measured(&self, key: &str) -> Option<Vec<Measure>> {
        self.kept.measured.get(key).cloned()
    }

    pub(super) fn keep_measured(&mut self, key: String, measures: Vec<Measure>) -> Result<Vec<Measure>> {
        self.kept.measured.insert(key, measures.clone());
        self.write().map(|()| measures)
    }

    fn write(&self) -> Result<()> {
        let io = |e: std::io::Error| Error::io("writing what a search found to scratch", &e);
        let bytes = serde_json::to_vec(&self.kept).map_err(|e| Error::internal(e.to_string()))?;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let part = self.path.with_extension("part");
        std::fs::write(&part, bytes).map_err(io)?;
        std::fs::rename(&part, &self.path).map_err(io)
    }
}

/// Names a measurement: the data, and what every tensor becomes.
pub(super) fn key_of(of: Use, plan: &Plan) -> String {
    let kinds: Vec<String> = plan.tensors.iter().map(|tensor| tensor.kind.label()).collect();
    sha256(format!("{of:?} {}", kinds.join(" ")).as_bytes())
}
