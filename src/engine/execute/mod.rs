//! From a plan to artifacts and a report: calibrated stages block by block, then every tensor, then everything is read
//! back, then measured.
//!
//! Owns: the order of work. Must not know: techniques, formats by name.
//! Invariant: what is reported was measured on the values that were written.

mod budget;
mod calibrated;
mod course;
mod effects;
mod experts;
#[cfg(test)]
mod fisher_tests;
#[cfg(test)]
mod imatrix_tests;
mod made;
mod pieces;
mod provenance;
mod quality;
mod reshape;
mod resume;
mod settle;
mod shelf;
mod statistics;
mod survey;
mod tensors;
mod weigh;

use crate::checkpoint::{Checkpoint, SourceFile};
use crate::dataset::Datasets;
use crate::error::{Error, Result};
use crate::evaluate::missed;
use crate::formats::container::{Layout, Written, reread};
use crate::formats::{Request, Scales, Squares, Writer, writer};
use crate::network::Compute;
use crate::observe::{Level, Observer, Section};
use crate::plan::{self, Plan, TensorPlan};
use crate::report::{Allocation, FormatReport, Report};
use crate::tensor::TensorInfo;
use course::Course;
use made::Made;
use pieces::Pieces;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use tensors::compress;

pub use provenance::{MANIFEST, SIGNATURE};
pub use resume::kept_files;
pub use weigh::execute_analysis;

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Format.
    pub format: String,
    /// Files, with the card and `modelpress.json` at the end.
    pub files: Vec<ArtifactFile>,
}

impl Artifact {
    /// The folder that its files lie in; nothing where it has none.
    pub fn folder(&self) -> Option<&Path> {
        let manifest = self.files.iter().find(|file| file.name == MANIFEST)?;
        manifest.path.parent()
    }

    /// The files that the plan laid out: all but what is written about them.
    pub fn planned(&self) -> impl Iterator<Item = &ArtifactFile> {
        let about = [provenance::CARD, MANIFEST, provenance::SIGNATURE];
        self.files
            .iter()
            .filter(move |file| !about.contains(&file.name.as_str()))
    }
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

/// What calibrated stages saw, for writers.
#[derive(Clone, Copy)]
struct Seen<'a> {
    squares: &'a Squares<'a>,
    scales: &'a Scales<'a>,
}

struct Target<'a> {
    spec: &'a plan::FormatPlan,
    pointer: String,
    writer: &'static dyn Writer,
    layout: Layout,
}

impl Target<'_> {
    fn request<'a>(&'a self, plan: &'a Plan, model: &'a Checkpoint, seen: Option<Seen<'a>>) -> Request<'a> {
        let known = plan::request(
            &self.spec.options,
            &self.pointer,
            &plan.stages,
            &plan.tensors,
            model,
        );
        Request {
            squares: seen.map(|seen| seen.squares),
            scales: seen.map(|seen| seen.scales),
            ..known
        }
    }
}

/// Where a plan is executed.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// Artifacts go to `out/<format>/`.
    pub out: &'a Path,
    /// For what is needed in between. What an earlier attempt at the same plan left here is used again; it may be
    /// removed when the attempt succeeded.
    pub scratch: &'a Path,
    /// For what other plans on this very model can use too: what walks over calibration data found.
    pub statistics: Option<&'a Path>,
    /// What models run on; everything else is the CPU's.
    pub compute: Compute,
}

impl<'a> Site<'a> {
    /// Two folders and the CPU.
    pub fn on_cpu(out: &'a Path, scratch: &'a Path) -> Self {
        Self {
            out,
            scratch,
            statistics: None,
            compute: Compute::cpu(),
        }
    }
}

/// Runs a plan; nothing outside the site's two folders is touched.
pub fn execute(
    plan: &Plan,
    model: &Checkpoint,
    datasets: &Datasets,
    site: &Site<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    check_datasets(plan, datasets)?;
    let section = |at: usize| Section {
        whole: observer,
        at,
        of: 2,
    };
    if let Some((settled, looked)) = settle::settled(plan, model, datasets, site, &section(0))? {
        let mut outcome = execute(&settled, model, datasets, site, &section(1))?;
        outcome.report.stages.splice(0..0, looked);
        outcome.report.planned_peak_memory_bytes = plan.peak_memory_bytes;
        return Ok(outcome);
    }
    let mut course = Course::of(plan, observer);
    let uploaded = model;
    let first_untied = plan::untied(&plan.first().own_recipe(), uploaded);
    let (between, mut warnings) = reshape::before(plan, uploaded, datasets, site, &mut course)?;
    let model = between.last().unwrap_or(uploaded);
    let untied = plan::untied(&plan.own_recipe(), model);
    let model = untied.as_ref().unwrap_or(model);
    check_version(plan, model)?;
    let targets = match &plan.budget {
        None => layouts(plan, model)?,
        Some(_) => Vec::new(),
    };
    std::fs::create_dir_all(site.scratch).map_err(|e| Error::io("scratch space", &e))?;
    let made = Made::new(plan, model, site.scratch);
    warnings.extend(calibrated::run_all(&made, datasets, site, &mut course)?);
    let original = first_untied.as_ref().unwrap_or(uploaded);
    let original = Made::new(plan.first(), original, site.scratch);
    let run = Run {
        uploaded,
        original: &original,
        between: &between,
        datasets,
        site,
        warnings,
    };
    let Some(budget) = &plan.budget else {
        return finish(&made, &targets, run, &mut course);
    };
    let (chosen, allocation) = budget::choose([&original, &made], budget, datasets, site, &mut course)?;
    let chosen = chosen.in_place_of(plan);
    let targets = layouts(&chosen, model)?;
    let made = Made::new(&chosen, model, site.scratch);
    let mut outcome = finish(&made, &targets, run, &mut course)?;
    outcome.gate = (!allocation.held)
        .then(|| missed_budget(&allocation))
        .or(outcome.gate);
    outcome.report.planned_peak_memory_bytes = plan.peak_memory_bytes;
    outcome.report.allocation = Some(allocation);
    Ok(outcome)
}

fn missed_budget(allocation: &Allocation) -> String {
    let best = allocation.rounds.iter().find(|round| round.kept);
    let found = best.map_or_else(String::new, |round| {
        let upper = round.interval.map_or(round.measured, |[_, high]| high);
        format!(": the nearest, of {} bytes, may lose {upper:.5}", round.bytes)
    });
    format!(
        "budget {}: no choice that was tried keeps it{found}; allow more, add larger candidates, or raise max_rounds",
        allocation.budget.limit.field()
    )
}

/// What finishing a plan needs beside it.
struct Run<'a> {
    uploaded: &'a Checkpoint,
    /// The uploaded model, before any stage.
    original: &'a Made<'a>,
    /// Models that stages made which change the structure.
    between: &'a [Checkpoint],
    datasets: &'a Datasets,
    site: &'a Site<'a>,
    warnings: Vec<String>,
}

/// Everything behind the calibrated stages.
fn finish(made: &Made<'_>, targets: &[Target<'_>], run: Run<'_>, course: &mut Course<'_>) -> Result<Outcome> {
    let Run {
        uploaded,
        original,
        between,
        datasets,
        site,
        warnings,
    } = run;
    let (plan, observer) = (made.plan, course.observer);
    course.begin("compress");
    let pieces = Pieces::at(site.scratch, resume::fingerprint(plan, site)?);
    let (tensors, written) = compress(made, &pieces, site.out, targets, course)?;
    course.end();
    course.begin("verify");
    let found = verify(targets, &written, course)?;
    course.end();
    let quality = match &plan.evaluation {
        Some(data) => {
            let effects = effects::Effects {
                original,
                made,
                between,
            };
            Some(effects.measure(data, datasets, site, course)?)
        }
        None => None,
    };
    let measured = targets.iter().zip(&written).zip(found);
    let formats = measured
        .map(|((target, files), weights)| {
            let bytes = files.iter().map(|file| file.bytes).sum();
            FormatReport::of(target.spec).written(bytes, weights, plan)
        })
        .collect();
    let mut report = Report::build(plan, uploaded, tensors, formats, course.stages(), quality);
    report.warnings.extend(warnings);
    for warning in &report.warnings {
        observer.event(Level::Warning, warning, json!({}));
    }
    let origins = provenance::origins(uploaded, observer)?;
    let mut artifacts = Vec::new();
    for (target, files) in targets.iter().zip(written) {
        let dir = site.out.join(&target.spec.format);
        artifacts.push(provenance::complete(
            target, files, plan, uploaded, &report, &origins, &dir,
        )?);
    }
    let gates = plan.recipe.gates.as_ref().zip(report.quality.as_ref());
    Ok(Outcome {
        gate: gates.and_then(|(gates, quality)| missed(gates, quality)),
        artifacts,
        report,
    })
}

fn check_datasets(plan: &Plan, datasets: &Datasets) -> Result<()> {
    let named = plan::named_datasets(&plan.recipe);
    let mut names = named.into_iter().map(|(name, _)| name);
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
        target.layout = format
            .layout(&target.request(plan, model, None))
            .map_err(|refusals| {
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

/// Reads everything back; answers the bytes of each format's tensors.
fn verify(targets: &[Target<'_>], written: &[Vec<Written>], course: &Course<'_>) -> Result<Vec<u64>> {
    let (mut done, mut weights) = (0, Vec::new());
    for (target, files) in targets.iter().zip(written) {
        for file in files {
            if course.observer.should_stop() {
                return Err(Error::cancelled());
            }
            reread(file)?;
            done += file.bytes;
            course.advanced(done, &file.name);
        }
        weights.push(reopen(target, files)?);
    }
    Ok(weights)
}

/// Parses what was written like an upload, and compares every entry with the layout.
fn reopen(target: &Target<'_>, files: &[Written]) -> Result<u64> {
    let source = |file: &Written| SourceFile::new(file.name.clone(), file.path.clone());
    let sources: Vec<SourceFile> = files.iter().map(source).collect();
    let checked = target
        .writer
        .reopen(&sources)
        .and_then(|found| target.layout.check(&found).map(|()| found));
    let ours = |e: Error| Error::internal(format!("our own {} does not read back: {e}", target.spec.format));
    let found = checked.map_err(ours)?;
    Ok(found.iter().map(|entry| entry.bytes).sum())
}

#[cfg(test)]
mod tests;
