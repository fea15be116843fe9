//! What walks over calibration data found, kept for other plans on the same model.
//!
//! Owns: what names a finding, the files. Must not know: what a finding is used for.
//! Invariant: a finding is taken only where model, data, earlier stages, seed and version are the same; it is whole or
//! not there, and nothing that happens here ends a job.

use super::made::Made;
use super::{Site, shelf};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::kernels::linalg::Precision;
use crate::plan::ImportancePlan;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What one stage may make and still be kept for other jobs.
const MOST_BYTES: u64 = 8 << 30;

/// What walks multiply in on this CPU: what they find depends on it.
fn products() -> [&'static str; 2] {
    [Precision::Split, Precision::Bf16].map(Precision::products)
}

/// A finding's folder; none where the site keeps none.
pub(super) struct Finding {
    folder: Option<PathBuf>,
    /// Ending of what is not whole yet: nobody else's, since it is named by where this job works.
    part: String,
    stage: usize,
    tensors: Vec<usize>,
}

impl Finding {
    pub(super) fn of(
        made: &Made<'_>,
        stage: usize,
        importance: &ImportancePlan,
        site: &Site<'_>,
    ) -> Result<Self> {
        let plan = made.plan;
        let names: Vec<_> = plan
            .tensors
            .iter()
            .map(|t| (&t.name, &t.shape, t.source_dtype))
            .collect();
        let before = &plan.recipe.stages[..plan.first_stage + stage];
        let (calibration, asked) = (&plan.calibration, &plan.recipe.calibration);
        let about = json!({
            "version": plan.engine_version, "source": importance.source, "tensors": importance.tensors, "model": names,
            "before": before, "calibration": calibration, "asked": asked, "seed": plan.recipe.seed,
            "device": site.compute.device_name(), "products": products(),
        });
        let bytes = serde_json::to_vec(&about).map_err(|e| Error::internal(e.to_string()))?;
        Ok(Self {
            part: format!("part-{}", sha256(site.scratch.as_os_str().as_encoded_bytes())),
            folder: site.statistics.map(|folder| folder.join(sha256(&bytes))),
            stage,
            tensors: importance.tensors.clone(),
        })
    }

    fn names(&self) -> impl Iterator<Item = (String, String)> {
        let stage = self.stage;
        self.tensors.iter().flat_map(move |tensor| {
            let kinds = ["fisher", "squares"].into_iter();
            kinds.map(move |kind| (format!("{stage}-{tensor}-{kind}"), format!("{tensor}-{kind}")))
        })
    }

    /// What a stage that works block by block made: weights, lists, scales.
    pub(super) fn of_stage(made: &Made<'_>, stage: usize, site: &Site<'_>) -> Result<Self> {
        let plan = made.plan;
        let names: Vec<_> = plan
            .tensors
            .iter()
            .map(|t| (&t.name, &t.shape, t.source_dtype))
            .collect();
        let stages = &plan.recipe.stages[..=plan.first_stage + stage];
        let about = json!({
            "version": plan.engine_version, "made": true, "model": names, "stages": stages,
            "calibration": plan.calibration, "asked": plan.recipe.calibration, "seed": plan.recipe.seed,
            "device": site.compute.device_name(), "products": products(),
        });
        let bytes = serde_json::to_vec(&about).map_err(|e| Error::internal(e.to_string()))?;
        Ok(Self {
            part: format!("part-{}", sha256(site.scratch.as_os_str().as_encoded_bytes())),
            folder: site.statistics.map(|folder| folder.join(sha256(&bytes))),
            stage,
            tensors: Vec::new(),
        })
    }

    /// Puts what an earlier job's stage made on the shelf; false where nothing whole is there.
    pub(super) fn take_stage(&self, shelf: &shelf::Shelf) -> bool {
        let Some(folder) = self.folder.as_deref().filter(|folder| folder.is_dir()) else {
            return false;
        };
        let copied = std::fs::read_dir(folder).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                shelf.bring(&format!("{}-{name}", self.stage), &entry.path())?;
            }
            Ok(())
        });
        copied.is_ok()
    }

    /// Keeps what the stage made for others, where it is no more than a cache should hold; where that fails, they make it
    /// themselves.
    pub(super) fn keep_stage(&self, shelf: &shelf::Shelf) {
        self.keep_whole(|part| self.fill_stage(shelf, part));
    }

    /// Fills a folder beside the finding's own and gives it that name once it is whole.
    fn keep_whole(&self, fill: impl FnOnce(&Path) -> std::io::Result<()>) {
        let Some(folder) = &self.folder else { return };
        let part = folder.with_extension(&self.part);
        let whole = std::fs::create_dir_all(&part)
            .and_then(|()| fill(&part))
            .and_then(|()| std::fs::rename(&part, folder));
        if whole.is_err() {
            let _gone = std::fs::remove_dir_all(&part);
        }
    }

    fn fill_stage(&self, shelf: &shelf::Shelf, part: &Path) -> std::io::Result<()> {
        let mut bytes = 0;
        for name in shelf.names_of(self.stage)? {
            let from = shelf.named(&format!("{}-{name}", self.stage));
            bytes += std::fs::metadata(&from)?.len();
            if bytes > MOST_BYTES {
                return Err(std::io::Error::other("more than a cache should hold"));
            }
            shelf::linked(&from, &part.join(&name))?;
        }
        Ok(())
    }

    /// Puts what was found before on the shelf; false where nothing whole was.
    pub(super) fn take(&self, shelf: &shelf::Shelf) -> bool {
        let Some(folder) = self.folder.as_deref().filter(|folder| folder.is_dir()) else {
            return false;
        };
        let copied = self.names().filter_map(|(own, kept)| {
            let kept = folder.join(kept);
            kept.is_file().then(|| shelf.bring(&own, &kept))
        });
        let copied: Vec<_> = copied.collect();
        copied.len() >= self.tensors.len() && copied.iter().all(std::io::Result::is_ok)
    }

    /// Keeps what is on the shelf for others; where that fails, they look for themselves.
    pub(super) fn keep(&self, shelf: &shelf::Shelf) {
        self.keep_whole(|part| self.fill(shelf, part));
    }

    fn fill(&self, shelf: &shelf::Shelf, part: &Path) -> std::io::Result<()> {
        for (own, kept) in self.names() {
            match std::fs::copy(shelf.named(&own), part.join(kept)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}
