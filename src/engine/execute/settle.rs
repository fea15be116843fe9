//! What a plan leaves open, found out before anything is made.
//!
//! Owns: the look at tensors, the plan that follows. Must not know: which techniques there are.
//! Invariant: what follows is a recipe with all said, planned like any other; it makes the same bytes without this.

use super::course::Course;
use super::made::Made;
use super::{Site, calibrated, check_version, reshape, resume};
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::plan::{self, Plan, StagePlan, TensorPlan};
use crate::recipe::Refusal;
use crate::report::StageReport;
use crate::techniques::{self, Look, Settles, seen_name, seen_numbers};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The folder of what was seen.
const FOLDER: &str = "settle";
/// The file of what was decided.
const DECIDED: &str = "decided.json";

/// What was decided, of a plan of this fingerprint.
#[derive(Serialize, Deserialize)]
struct Decided {
    fingerprint: String,
    options: Value,
}

/// How a stage finds out what it leaves open.
pub(super) fn settles(stage: &StagePlan) -> Option<&'static dyn Settles> {
    let technique = techniques::find(&stage.technique)?;
    technique.settles().filter(|_| stage.is_open)
}

/// The plan with what its first open stage was to find out, and what that cost; none where nothing is open.
pub(super) fn settled(
    plan: &Plan,
    model: &Checkpoint,
    datasets: &Datasets,
    site: &Site<'_>,
    observer: &dyn Observer,
) -> Result<Option<(Plan, Vec<StageReport>)>> {
    let Some(first) = plan.until_open() else {
        return Ok(None);
    };
    let mut course = Course::weighing(&first, observer);
    let (reshaped, _) = reshape::before(&first, model, datasets, site, &mut course)?;
    let model = reshaped.last().unwrap_or(model);
    let untied = plan::untied(&first.own_recipe(), model);
    let seen = untied.as_ref().unwrap_or(model);
    check_version(&first, seen)?;
    let scratch = site.scratch.join(FOLDER);
    let own = Site {
        scratch: &scratch,
        ..site.clone()
    };
    std::fs::create_dir_all(&scratch).map_err(|e| Error::io("scratch space", &e))?;
    let options = match known(&first, &own)? {
        Some(options) => options,
        None => keep(&first, look(&first, seen, datasets, &own, &mut course)?, &own)?,
    };
    let mut recipe = plan.own_recipe();
    recipe.stages[first.stages.len() - 1].options = options;
    recipe.preset = None;
    let refused = |refusals: Vec<Refusal>| {
        let first = refusals.first().map_or_else(String::new, |r| r.detail.clone());
        Error::bad_input("cannot_be_settled", first)
    };
    let settled = plan::plan(&recipe, model, datasets).map_err(refused)?;
    Ok(Some((settled.in_place_of(plan), course.stages())))
}

fn look(
    first: &Plan,
    model: &Checkpoint,
    datasets: &Datasets,
    site: &Site<'_>,
    course: &mut Course<'_>,
) -> Result<Value> {
    let made = Made::new(first, model, site.scratch);
    calibrated::run_all(&made, datasets, site, course)?;
    let at = first.stages.len() - 1;
    let stage = &first.stages[at];
    let settles = settles(stage).ok_or_else(|| Error::internal("an open stage that settles nothing"))?;
    let mut seen: Vec<(&TensorPlan, Vec<f64>)> = Vec::new();
    for (index, tensor) in first.tensors.iter().enumerate().filter(|(_, t)| t.has_step(at)) {
        let words = made.shelf.list(at, &seen_name(index))?;
        seen.push((tensor, seen_numbers(&words)));
    }
    settles.settle(&stage.options, &seen)
}

/// How a stage looks at one tensor after another, where it does.
pub(super) fn looks_at_each(stage: &StagePlan) -> bool {
    settles(stage).is_some_and(|settles| matches!(settles.looks(), Look::Each(_)))
}

fn known(first: &Plan, site: &Site<'_>) -> Result<Option<Value>> {
    let fingerprint = resume::fingerprint(first, site)?;
    let read = std::fs::read(site.scratch.join(DECIDED)).ok();
    let decided: Option<Decided> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let decided = decided.filter(|decided| decided.fingerprint == fingerprint);
    Ok(decided.map(|decided| decided.options))
}

fn keep(first: &Plan, options: Value, site: &Site<'_>) -> Result<Value> {
    let io = |e: std::io::Error| Error::io("writing what was decided to scratch", &e);
    let decided = Decided {
        fingerprint: resume::fingerprint(first, site)?,
        options,
    };
    let bytes = serde_json::to_vec(&decided).map_err(|e| Error::internal(e.to_string()))?;
    let path = site.scratch.join(DECIDED);
    let part = path.with_extension("part");
    std::fs::write(&part, bytes).map_err(io)?;
    std::fs::rename(&part, &path).map_err(io)?;
    Ok(decided.options)
}
