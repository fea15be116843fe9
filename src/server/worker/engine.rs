//! The engine as an attempt sees it.
//!
//! Owns: the [`Engine`] trait, the adapter to `modelpress_engine`, what its errors mean for a retry.
//! Must not know: queues, blobs.
//! Invariant: a plan is executed as it was stored, never made again.

use std::path::{Path, PathBuf};

use modelpress_engine::{
    Artifact, Class, Compute, Dataset, Datasets, Error, Level, Observer, Outcome, Plan, Site, SourceFile,
    Usage, catalog, execute, inspect,
};
use serde_json::Value;

use super::Watch;
use super::scratch::Kept;
use crate::domain::Document;
use crate::queue::retry::Hope;

/// What is to be done.
#[derive(Debug)]
pub struct Work {
    /// The stored plan.
    pub plan: Document,
    /// The model's files.
    pub files: Vec<SourceFile>,
    /// The files of each dataset, under the name that the recipe uses.
    pub datasets: Vec<(String, Vec<SourceFile>)>,
    /// Where the job's attempts leave what the next one goes on with; made when it is needed.
    pub kept: PathBuf,
    /// An empty folder for the outcome.
    pub out: PathBuf,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// One for each format; none if a quality gate was missed and the recipe does not keep them.
    pub artifacts: Vec<Artifact>,
    /// The report as JSON.
    pub report: Document,
    /// Original minus compressed bytes, over all artifacts.
    pub saved_bytes: u64,
    /// Which quality gate was missed; none if there was none or all were kept.
    pub gate: Option<String>,
}

/// Why it was not made.
#[derive(Debug)]
pub struct Fault {
    /// Stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// What became of it.
    pub kind: FaultKind,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It stopped because it was asked to.
    Stopped,
    /// It failed.
    Failed(Hope),
}

/// Something that executes plans.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// The techniques it knows.
    fn techniques(&self) -> Vec<String>;
    /// Executes a plan on the calling thread, and on the thread pool that it is installed in.
    fn run(&self, work: &Work, watch: &Watch) -> Result<Made, Fault>;
}

/// `modelpress_engine` on one device.
#[derive(Debug, Clone)]
pub struct Real {
    compute: Compute,
}

impl Real {
    /// Opens the device of that name, or says in one sentence why it cannot be used.
    pub fn on(device: &str) -> Result<Self, String> {
        let compute = Compute::open(device.parse()?).map_err(|error| error.message)?;
        Ok(Self { compute })
    }
}

impl Engine for Real {
    fn techniques(&self) -> Vec<String> {
        catalog::techniques()
            .into_iter()
            .map(|technique| technique.name.to_owned())
            .collect()
    }

    fn run(&self, work: &Work, watch: &Watch) -> Result<Made, Fault> {
        let plan: Plan = work.plan.read().map_err(|error| Fault {
            code: "plan_unreadable".to_owned(),
            message: format!("the stored plan cannot be read by this version: {error}; submit the job again"),
            kind: FaultKind::Failed(Hope::None),
        })?;
        let model = inspect(&work.files)?;
        let datasets = open_datasets(&work.datasets)?;
        let own = work.out.join(".scratch");
        // Held until the attempt is over.
        let kept = match plan.calibration {
            Some(_) => Kept::lock(&work.kept).map_err(|e| Error::io("scratch space", &e))?,
            None => None,
        };
        let site = Site {
            out: &work.out,
            scratch: if kept.is_some() { &work.kept } else { &own },
            compute: self.compute.clone(),
        };
        let outcome = execute(&plan, &model, &datasets, &site, watch)?;
        made(outcome, keeps_artifacts(&plan))
    }
}

fn open_datasets(named: &[(String, Vec<SourceFile>)]) -> Result<Datasets, Error> {
    let mut datasets = Datasets::new();
    for (name, files) in named {
        datasets.insert(name.clone(), Dataset::open(files)?);
    }
    Ok(datasets)
}

/// Whether what missed a gate is published even so.
fn keeps_artifacts(plan: &Plan) -> bool {
    plan.recipe.gates.as_ref().is_none_or(|gates| gates.keep_artifact)
}

fn made(outcome: Outcome, keep_if_missed: bool) -> Result<Made, Fault> {
    let source = outcome.report.totals.source_bytes;
    let report = Document::of(&outcome.report).map_err(|error| Fault {
        code: "internal".to_owned(),
        message: format!("the report cannot be written: {error}"),
        kind: FaultKind::Failed(Hope::None),
    })?;
    let is_kept = outcome.gate.is_none() || keep_if_missed;
    let formats = outcome.report.formats.iter().filter(|_| is_kept);
    Ok(Made {
        saved_bytes: formats
            .map(|format| source.saturating_sub(format.weight_bytes))
            .sum(),
        report,
        artifacts: if is_kept { outcome.artifacts } else { Vec::new() },
        gate: outcome.gate,
    })
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let kind = match error.class {
            Class::Cancelled => FaultKind::Stopped,
            Class::Resources => FaultKind::Failed(Hope::Passing),
            Class::BadInput | Class::Unsupported | Class::Numeric | Class::Internal => {
                FaultKind::Failed(Hope::None)
            }
        };
        Self {
            code: error.code.to_owned(),
            message: error.message,
            kind,
        }
    }
}

impl Observer for Watch {
    fn stage(&self, name: &str, index: usize, of: usize) {
        self.begin_stage(name, index, of);
    }

    fn advanced(&self, bytes_done: u64, bytes_total: u64, _detail: &str) {
        self.advance(bytes_done, bytes_total);
    }

    fn event(&self, level: Level, message: &str, data: Value) {
        let level = match level {
            Level::Info => "info",
            Level::Warning => "warning",
        };
        self.note(level, message, data);
    }

    fn should_stop(&self) -> bool {
        self.stopped().is_some()
    }

    fn usage(&self) -> Usage {
        let spent = self.spent();
        Usage {
            elapsed_seconds: spent.elapsed.as_secs_f64(),
            cpu_seconds: spent.cpu_seconds,
            peak_rss_bytes: spent.peak_rss_bytes,
        }
    }
}

/// A model's file under the name that the engine knows it by.
pub(super) fn source(name: &str, path: &Path) -> SourceFile {
    SourceFile {
        name: name.to_owned(),
        path: path.to_owned(),
    }
}
