//! The one loop: for each tensor check stop → run its steps → measure → encode for each format → hand to the
//! writer; then read everything back.
//!
//! Owns: the order of work, the writer thread, provenance. Must not know: techniques, formats by name.
//! Invariant: one tensor is in memory at a time, plus the encoded previous one that is being written.

use crate::checkpoint::{Checkpoint, SourceFile};
use crate::dataset::Datasets;
use crate::digest;
use crate::error::{Error, Result};
use crate::formats::container::{Layout, Sink, Written, reread};
use crate::formats::{Request, Writer, writer};
use crate::observe::{Level, Observer, Usage};
use crate::plan::{self, Plan, TensorPlan};
use crate::report::{FormatReport, Report, StageReport, TensorReport, measure};
use crate::techniques::{self, Task};
use crate::tensor::{Rows, TensorInfo};
use crate::weight::{Dense, Kind, Weight};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Relative name.
    pub name: String,
    /// Where it was written.
    pub path: PathBuf,
    /// Length.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// One format's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Format.
    pub format: String,
    /// Files, `modelpress.json` last.
    pub files: Vec<ArtifactFile>,
}

/// What a job produced.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One for each format.
    pub artifacts: Vec<Artifact>,
    /// What it cost and what it changed.
    pub report: Report,
    /// Which quality gate was missed, in one sentence; none if there was none or all were kept.
    pub gate: Option<String>,
}

struct Target<'a> {
    spec: &'a plan::FormatPlan,
    pointer: String,
    writer: &'static dyn Writer,
    layout: Layout,
}

impl Target<'_> {
    fn request<'a>(&'a self, plan: &'a Plan, model: &'a Checkpoint) -> Request<'a> {
        let label = plan.stages.iter().rev().find_map(|s| s.label.as_deref());
        Request {
            model,
            tensors: &plan.tensors,
            label,
            options: &self.spec.options,
            pointer: &self.pointer,
        }
    }
}

type Encoded = (usize, usize, Vec<Vec<u8>>);

/// Runs a plan. Files go to `out/<format>/`; nothing outside `out` is touched.
pub fn execute(
    plan: &Plan,
    model: &Checkpoint,
    datasets: &Datasets,
    out: &Path,
    observer: &dyn Observer,
) -> Result<Outcome> {
    check_datasets(plan, datasets)?;
    check_version(plan, model)?;
    let targets = layouts(plan, model)?;
    let total = plan.source_bytes + plan.disk_bytes;
    let stage_count = 2;
    let start = observer.usage();
    observer.stage("compress", 0, stage_count);
    let (tensors, written) = compress(plan, model, out, observer, &targets, total)?;
    let compressed = observer.usage();
    observer.stage("verify", 1, stage_count);
    verify(plan, &targets, &written, observer, total)?;
    let verified = observer.usage();
    let stages = vec![
        stage_report("compress", start, compressed),
        stage_report("verify", compressed, verified),
    ];
    let formats = targets.iter().map(|t| FormatReport::of(t.spec)).collect();
    let report = Report::build(plan, model, tensors, formats, stages);
    for warning in &report.warnings {
        observer.event(Level::Warning, warning, json!({}));
    }
    let mut artifacts = Vec::new();
    for (target, files) in targets.iter().zip(written) {
        let dir = out.join(&target.spec.format);
        let mut files: Vec<ArtifactFile> = files.into_iter().map(artifact_file).collect();
        files.push(provenance(plan, &target.spec.format, &files, &dir)?);
        artifacts.push(Artifact {
            format: target.spec.format.clone(),
            files,
        });
    }
    Ok(Outcome {
        artifacts,
        report,
        gate: None,
    })
}

fn check_datasets(plan: &Plan, datasets: &Datasets) -> Result<()> {
    let mut names = plan.recipe.datasets().into_iter().map(|(name, _)| name);
    match names.find(|name| datasets.get(name).is_none()) {
        None => Ok(()),
        Some(name) => Err(Error::bad_input(
            "unknown_dataset",
            format!("no dataset is called {name:?}"),
        )),
    }
}

fn check_version(plan: &Plan, model: &Checkpoint) -> Result<()> {
    if plan.engine_version != crate::VERSION {
        return Err(Error::unsupported(
            "engine_version_changed",
            format!(
                "the plan was made by engine {}, this is {}: submit the job again",
                plan.engine_version,
                crate::VERSION
            ),
        ));
    }
    let same = |(planned, tensor): (&TensorPlan, &TensorInfo)| {
        planned.name == tensor.name && planned.shape == tensor.shape
    };
    if plan.tensors.len() != model.tensors.len() || !plan.tensors.iter().zip(&model.tensors).all(same) {
        return Err(Error::bad_input(
            "model_changed",
            "the model's tensors are not those the plan was made for",
        ));
    }
    Ok(())
}

fn layouts<'a>(plan: &'a Plan, model: &Checkpoint) -> Result<Vec<Target<'a>>> {
    let mut targets = Vec::new();
    for (index, spec) in plan.formats.iter().enumerate() {
        let pointer = format!("/formats/{index}");
        let format =
            writer(&spec.format).ok_or_else(|| Error::internal(format!("no writer {}", spec.format)))?;
        let mut target = Target {
            spec,
            pointer,
            writer: format,
            layout: Layout::default(),
        };
        target.layout = format.layout(&target.request(plan, model)).map_err(|refusals| {
            let first = refusals.first().map_or_else(String::new, |r| r.detail.clone());
            Error::internal(format!("planned, but refused now: {first}"))
        })?;
        if target.layout.bytes() != spec.bytes {
            return Err(Error::internal(format!(
                "{}: {} bytes planned, {} laid out",
                spec.format,
                spec.bytes,
                target.layout.bytes()
            )));
        }
        targets.push(target);
    }
    Ok(targets)
}

type Compressed = (Vec<TensorReport>, Vec<Vec<Written>>);

fn compress(
    plan: &Plan,
    model: &Checkpoint,
    out: &Path,
    observer: &dyn Observer,
    targets: &[Target<'_>],
    total: u64,
) -> Result<Compressed> {
    let mut sinks = Vec::new();
    for target in targets {
        sinks.push(Sink::new(&out.join(&target.spec.format), target.layout.clone())?);
    }
    // One tensor may wait while the one before it is written: more would only hold memory.
    let (send, receive) = sync_channel::<Encoded>(0);
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || write_all(sinks, &receive));
        let made = make_all(plan, model, observer, targets, total, &send);
        drop(send);
        let written = writing
            .join()
            .map_err(|_panic| Error::internal("the writer thread panicked"));
        // What stopped the making counts: all that the writer can say then is that something never came. Where the
        // writer went first (a full disk), it alone knows why.
        let Some(made) = made? else {
            written??;
            return Err(Error::internal("the writer stopped"));
        };
        Ok((made, written??))
    })
}

fn write_all(mut sinks: Vec<Sink>, receive: &Receiver<Encoded>) -> Result<Vec<Vec<Written>>> {
    for (format, index, parts) in receive {
        sinks[format].put(index, &parts)?;
    }
    sinks.into_iter().map(Sink::finish).collect()
}

/// `None` if the writer went away.
fn make_all(
    plan: &Plan,
    model: &Checkpoint,
    observer: &dyn Observer,
    targets: &[Target<'_>],
    total: u64,
    send: &SyncSender<Encoded>,
) -> Result<Option<Vec<TensorReport>>> {
    let mut reports = Vec::with_capacity(plan.tensors.len());
    let mut done = 0;
    for (index, (tensor, info)) in plan.tensors.iter().zip(&model.tensors).enumerate() {
        let rows = model.rows(info)?;
        let guarded = Guarded {
            inner: &rows,
            observer,
        };
        let named = |e: Error| Error {
            message: format!("tensor {}: {}", tensor.name, e.message),
            ..e
        };
        let weight = make(plan, tensor, &guarded, &rows).map_err(named)?;
        reports.push(measure(tensor, &guarded, &weight).map_err(named)?);
        for (format, target) in targets.iter().enumerate() {
            let parts = target
                .writer
                .encode(&target.request(plan, model), index, &weight)
                .map_err(named)?;
            if send.send((format, index, parts)).is_err() {
                return Ok(None);
            }
        }
        done += info.bytes;
        observer.advanced(done, total, &tensor.name);
    }
    Ok(Some(reports))
}

fn make(
    plan: &Plan,
    tensor: &TensorPlan,
    input: &dyn Rows,
    raw: &crate::tensor::SourceRows<'_>,
) -> Result<Weight> {
    let mut weight: Option<Weight> = None;
    for step in &tensor.steps {
        let stage = &plan.stages[step.stage];
        let technique = techniques::find(&stage.technique).ok_or_else(|| {
            Error::unsupported(
                "unknown_technique",
                format!("no technique {:?} in this version", stage.technique),
            )
        })?;
        let task = Task {
            stage,
            tensor,
            kind: step.kind,
        };
        let rows = weight.as_ref().map_or(input, Weight::as_rows);
        weight = Some(match step.kind {
            // Already what it shall be: the bytes pass through unchanged.
            Kind::Dense { dtype } if weight.is_none() && dtype == tensor.source_dtype => passed(tensor, raw)?,
            _ => technique.run(&task, rows)?,
        });
    }
    match weight {
        Some(weight) => Ok(weight),
        None => passed(tensor, raw),
    }
}

fn passed(tensor: &TensorPlan, raw: &crate::tensor::SourceRows<'_>) -> Result<Weight> {
    let mut bytes = vec![0; tensor.source_bytes as usize];
    raw.read_bytes(0, &mut bytes)?;
    Ok(Weight::Dense(Dense {
        rows: tensor.rows(),
        cols: tensor.cols(),
        dtype: tensor.source_dtype,
        bytes,
    }))
}

/// Rows that stop being readable once the observer says so: a cancel takes effect inside a large tensor too.
struct Guarded<'a> {
    inner: &'a dyn Rows,
    observer: &'a dyn Observer,
}

impl Rows for Guarded<'_> {
    fn rows(&self) -> usize {
        self.inner.rows()
    }
    fn cols(&self) -> usize {
        self.inner.cols()
    }
    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        if self.observer.should_stop() {
            return Err(Error::cancelled());
        }
        self.inner.read(first_row, out)
    }
}

fn verify(
    plan: &Plan,
    targets: &[Target<'_>],
    written: &[Vec<Written>],
    observer: &dyn Observer,
    total: u64,
) -> Result<()> {
    let mut done = plan.source_bytes;
    for (target, files) in targets.iter().zip(written) {
        for file in files {
            if observer.should_stop() {
                return Err(Error::cancelled());
            }
            reread(file)?;
            done += file.bytes;
            observer.advanced(done, total, &file.name);
        }
        reopen(target, files)?;
    }
    Ok(())
}

/// Parses what was written like an upload, and compares every entry with the layout.
fn reopen(target: &Target<'_>, files: &[Written]) -> Result<()> {
    let source = |file: &Written| SourceFile {
        name: file.name.clone(),
        path: file.path.clone(),
    };
    let sources: Vec<SourceFile> = files.iter().map(source).collect();
    let checked = target
        .writer
        .reopen(&sources)
        .and_then(|found| target.layout.check(&found));
    let ours = |e: Error| Error::internal(format!("our own {} does not read back: {e}", target.spec.format));
    checked.map_err(ours)
}

fn stage_report(name: &str, before: Usage, after: Usage) -> StageReport {
    StageReport {
        name: name.to_owned(),
        seconds: after.elapsed_seconds - before.elapsed_seconds,
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        peak_rss_bytes: after.peak_rss_bytes,
    }
}

fn artifact_file(file: Written) -> ArtifactFile {
    ArtifactFile {
        name: file.name,
        path: file.path,
        bytes: file.bytes,
        sha256: file.sha256,
    }
}

/// `modelpress.json`: what made these files. No times, so that the artifact is the same whenever it is made.
fn provenance(plan: &Plan, format: &str, files: &[ArtifactFile], dir: &Path) -> Result<ArtifactFile> {
    let list: Vec<_> = files
        .iter()
        .map(|f| json!({"name": f.name, "bytes": f.bytes, "sha256": f.sha256}))
        .collect();
    let body = json!({
        "generator": "modelpress", "engine_version": plan.engine_version, "format": format, "recipe": plan.recipe,
        "recipe_hash": plan.recipe_hash, "seed": plan.recipe.seed, "files": list,
    });
    let bytes = crate::formats::hf_output::pretty(&body);
    let path = dir.join("modelpress.json");
    std::fs::write(&path, &bytes).map_err(|e| Error::io("writing modelpress.json", &e))?;
    Ok(ArtifactFile {
        name: "modelpress.json".into(),
        path,
        bytes: bytes.len() as u64,
        sha256: digest::sha256(&bytes),
    })
}
