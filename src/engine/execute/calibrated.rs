//! Stages that must know what layers read: the model runs over data, block by block, and weights are made on the way,
//! or what was seen is kept for those who make them later.
//!
//! Owns: one walk for each such stage, and going on where an earlier attempt ended. Must not know: which techniques
//! there are.
//! Invariant: a resumed stage makes the same bytes as one that was never interrupted. One that only looks starts over.

use super::Site;
use super::course::{Course, IMPORTANCE};
use super::experts::{Counting, underfed};
use super::made::Made;
use super::resume::Resume;
use crate::calibrate::{SquareSums, Stash, Walk};
use crate::dataset::Datasets;
use crate::error::{Error, Result};
use crate::kernels::linalg::splits;
use crate::models::network_of;
use crate::network::{Compute, Network, Ops};
use crate::observe::Level;
use crate::plan::{DataPlan, ImportancePlan, ImportanceSource, Use, imported, planned_sequences};
use crate::techniques::{self, BlockStage, Blocks};
use serde_json::json;

/// What walks go over.
struct Calibration<'a> {
    network: Box<dyn Network>,
    sequences: Vec<Vec<u32>>,
    plan: &'a DataPlan,
}

impl<'a> Calibration<'a> {
    fn of(made: &Made<'_>, plan: &'a DataPlan, datasets: &Datasets) -> Result<Self> {
        let network = network_of(made.model)?;
        let (recipe, of) = (&made.plan.recipe, Use::Calibration);
        let taken = planned_sequences(recipe, of, plan, made.model, datasets, network.as_ref())?;
        Ok(Self {
            network,
            sequences: taken.ids,
            plan,
        })
    }
}

/// Runs every such stage of the plan.
pub(super) fn run_all(
    made: &Made<'_>,
    datasets: &Datasets,
    site: &Site<'_>,
    course: &mut Course<'_>,
) -> Result<Vec<String>> {
    let planned = made.plan.calibration.as_ref();
    if planned.is_none() && made.plan.stages.iter().all(|stage| stage.needs.is_none()) {
        return Ok(Vec::new());
    }
    let mut warnings = Vec::new();
    let data = planned
        .map(|data| Calibration::of(made, data, datasets))
        .transpose()?;
    let data = || {
        data.as_ref()
            .ok_or_else(|| Error::internal("a walk without data"))
    };
    if planned.is_some() {
        tell_products(course, &site.compute);
    }
    let mut resume = Resume::open(made.plan, site)?;
    for (index, stage) in made.plan.stages.iter().enumerate() {
        let work = techniques::find(&stage.technique).and_then(|t| t.work().by_blocks());
        match (work, stage.importance()) {
            (Some(work), _) => {
                course.begin(&stage.technique);
                if !resume.has_ended(index) {
                    let (data, source) = (data()?, made.before(index, course.observer));
                    let walk = start(data, &source, course, site)?.with_all_experts(all_experts(made));
                    run(made, index, work, walk, &mut resume, course)?;
                }
                warnings.extend(routed(made, index, data()?)?);
                course.end();
            }
            (_, Some(importance)) => match &importance.source {
                ImportanceSource::Calibration => {
                    course.begin(IMPORTANCE);
                    if !resume.has_ended(index) {
                        let (data, source) = (data()?, made.before(index, course.observer));
                        collect(made, index, importance, start(data, &source, course, site)?)?;
                        resume.end(index)?;
                    }
                    course.end();
                }
                ImportanceSource::Dataset(name) => import(made, index, importance, name, datasets)?,
            },
            _ => {}
        }
    }
    Ok(warnings)
}

/// Which products calibration is made of: the one thing about the machine that bytes depend on.
fn tell_products(course: &Course<'_>, compute: &Compute) {
    let device = compute.device_name();
    let (products, message) = if compute.ops() == Ops::Composed {
        ("f32", "calibration multiplies in f32, by candle's operations")
    } else if splits() {
        (
            "bf16x3",
            "calibration multiplies floats split into bf16 parts, on the CPU's tile units",
        )
    } else {
        ("f32", "calibration multiplies in f32")
    };
    course.observer.event(
        Level::Info,
        message,
        json!({"products": products, "device": device}),
    );
}

fn routed(made: &Made<'_>, index: usize, data: &Calibration<'_>) -> Result<Option<String>> {
    let (sizes, all) = (data.network.sizes(), all_experts(made));
    let technique = &made.plan.stages[index].technique;
    underfed(&made.shelf, index, technique, (sizes.blocks, sizes.hidden), all)
}

fn all_experts(made: &Made<'_>) -> bool {
    let asked = made.plan.recipe.calibration.as_ref();
    asked.is_none_or(|spec| spec.moe_calibrate_all_experts)
}

fn start<'a>(
    data: &'a Calibration<'_>,
    source: &'a dyn crate::calibrate::Source,
    course: &'a Course<'_>,
    site: &Site<'_>,
) -> Result<Walk<'a>> {
    let stash = Stash::new(site.scratch, data.plan.activation_bytes);
    let (network, compute) = (data.network.as_ref(), site.compute.calibrating());
    Walk::start(network, source, course, &data.sequences, compute, stash)
}

fn run(
    made: &Made<'_>,
    index: usize,
    work: &dyn Blocks,
    mut walk: Walk<'_>,
    resume: &mut Resume,
    course: &Course<'_>,
) -> Result<()> {
    let mut maker = work.visitor(BlockStage {
        index,
        stage: &made.plan.stages[index],
        tensors: &made.plan.tensors,
        seed: made.plan.recipe.seed,
        observer: course.observer,
    });
    let first = resume.restore(index, &mut walk)?;
    if first > 0 {
        let message = format!("goes on behind block {first}, where an earlier attempt ended");
        course
            .observer
            .event(Level::Info, &message, json!({"stage": index, "block": first}));
    }
    for block in first..walk.blocks() {
        let mut counting = Counting::beside(maker.as_mut());
        walk.block(block, &mut counting)?;
        made.shelf.put_routed(index, block, &counting.routed())?;
        for (tensor, weight) in maker.made() {
            made.shelf.put(index, tensor, &weight)?;
        }
        for (tensor, which, scale) in maker.found() {
            made.shelf.put_scale(index, tensor, which, scale)?;
        }
        for (tensor, factors) in maker.scaled() {
            made.shelf.put_factors(index, tensor, &factors)?;
        }
        resume.keep(index, block, &walk)?;
    }
    resume.end(index)
}

/// Sums the squares of what the layers read, for all that the plan says it will know.
fn collect(made: &Made<'_>, index: usize, importance: &ImportancePlan, mut walk: Walk<'_>) -> Result<()> {
    let named = |at: &usize| (made.plan.tensors[*at].name.as_str(), *at);
    let mut sums = SquareSums::new(importance.tensors.iter().map(named));
    for block in 0..walk.blocks() {
        walk.block(block, &mut sums)?;
        for (tensor, squares) in sums.done() {
            made.shelf.put_squares(index, tensor, &squares)?;
        }
    }
    Ok(())
}

/// Puts an importance matrix from elsewhere where one that was collected here would be.
fn import(
    made: &Made<'_>,
    index: usize,
    planned: &ImportancePlan,
    name: &str,
    datasets: &Datasets,
) -> Result<()> {
    let dataset = datasets
        .get(name)
        .ok_or_else(|| Error::internal(format!("no dataset {name}")))?;
    let (now, squares) = imported(made.model, &made.plan.tensors, name, dataset)?;
    if now != *planned {
        return Err(Error::bad_input(
            "dataset_changed",
            format!("dataset {name} is not the one the plan was made with: submit the job again"),
        ));
    }
    for (tensor, squares) in squares {
        made.shelf.put_squares(index, tensor, &squares)?;
    }
    Ok(())
}
