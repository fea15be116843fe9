//! Stages that must know what layers read: the model runs over data, block by block, and weights are made on the way,
//! or what was seen is kept for those who make them later.
//!
//! Owns: one walk for each such stage, and going on where an earlier attempt ended. Must not know: which techniques
//! there are.
//! Invariant: a resumed stage makes the same bytes as one that was never interrupted. One that only looks starts over.

use super::Site;
use super::course::{Course, FISHER, IMPORTANCE, SURVEY};
use super::experts::{Counting, underfed};
use super::made::Made;
use super::resume::Resume;
use super::settle::{looks_at_each, settles};
use super::statistics::Finding;
use super::survey::{look_at_all, look_at_each, surveys};
use crate::calibrate::{Descent, Pace, SquareSums, Stash, Walk};
use crate::dataset::Datasets;
use crate::error::{Error, Result};
use crate::kernels::linalg::Precision;
use crate::models::network_of;
use crate::network::{Compute, Network, Ops, read_all};
use crate::observe::Level;
use crate::plan::{DataPlan, ImportancePlan, ImportanceSource, Use, imported, planned_sequences};
use crate::techniques::{self, BlockStage, Blocks, Look, Maker, Settles};
use crate::weight::Fisher;
use serde_json::json;
use std::collections::{HashMap, HashSet};

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
    let stages = &made.plan.stages;
    if planned.is_none()
        && stages
            .iter()
            .all(|stage| stage.needs.is_none() && surveys(stage).is_none() && !looks_at_each(stage))
    {
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
    let mut resume = Resume::open(made.plan, site)?;
    for (index, stage) in made.plan.stages.iter().enumerate() {
        let work = match settles(stage).map(Settles::looks) {
            Some(Look::Blocks(look)) => Some(look),
            _ => techniques::find(&stage.technique).and_then(|t| t.work().by_blocks()),
        };
        match (work, stage.importance()) {
            (Some(work), importance) => {
                if let Some(importance) = importance {
                    let known = Knowing {
                        made,
                        index,
                        importance,
                        site,
                    };
                    known.look_before_blocks(data()?, course)?;
                }
                course.begin(&stage.technique);
                if !resume.has_ended(index) {
                    let kept = Finding::of_stage(made, index, site)?;
                    if kept.take_stage(&made.shelf) {
                        tell_known(course, index);
                        resume.end(index)?;
                    } else {
                        run(made, index, work, data()?, site, &mut resume, course)?;
                        kept.keep_stage(&made.shelf);
                    }
                }
                warnings.extend(routed(made, index, data()?)?);
                course.end();
            }
            (_, Some(importance)) => {
                let known = Knowing {
                    made,
                    index,
                    importance,
                    site,
                };
                known.look(&data, datasets, &mut resume, course)?;
            }
            _ => {}
        }
        if let Some(Look::Each(look)) = settles(stage).map(Settles::looks) {
            course.begin(SURVEY);
            look_at_each(made, index, look, course)?;
            course.end();
        }
        if let Some(survey) = surveys(stage) {
            course.begin(SURVEY);
            look_at_all(made, index, survey, course)?;
            course.end();
        }
    }
    Ok(warnings)
}

/// What a stage that works on single tensors is to know first.
struct Knowing<'a> {
    made: &'a Made<'a>,
    index: usize,
    importance: &'a ImportancePlan,
    site: &'a Site<'a>,
}

impl Knowing<'_> {
    fn look<'d>(
        &self,
        data: &dyn Fn() -> Result<&'d Calibration<'d>>,
        datasets: &Datasets,
        resume: &mut Resume,
        course: &mut Course<'_>,
    ) -> Result<()> {
        let Self {
            made,
            index,
            importance,
            site,
        } = *self;
        let down = |course: &Course<'_>| descend(made, index, importance, data()?, course, site);
        let along = |course: &Course<'_>| self.collect(data()?, course);
        let leg = match &importance.source {
            ImportanceSource::Dataset(name) => return import(made, index, importance, name, datasets),
            ImportanceSource::Calibration => IMPORTANCE,
            ImportanceSource::Fisher | ImportanceSource::Diagonal | ImportanceSource::Gradients => FISHER,
        };
        course.begin(leg);
        if !resume.has_ended(index) {
            match importance.source {
                ImportanceSource::Calibration => known_or(made, index, importance, site, course, &along)?,
                ImportanceSource::Fisher => known_or(made, index, importance, site, course, &down)?,
                // Too large to be kept for others.
                _ => down(course)?,
            }
            resume.end(index)?;
        }
        course.end();
        Ok(())
    }

    /// The same for a stage that goes through the model block by block afterwards.
    fn look_before_blocks(&self, data: &Calibration<'_>, course: &mut Course<'_>) -> Result<()> {
        let Self {
            made,
            index,
            importance,
            site,
        } = *self;
        if importance.source.descends() {
            course.begin(FISHER);
            if !made.shelf.has_diagonals(index, importance) {
                descend(made, index, importance, data, course, site)?;
            }
        } else {
            course.begin(IMPORTANCE);
            if !made.shelf.has_squares(index, importance) {
                let along = |course: &Course<'_>| self.collect(data, course);
                known_or(made, index, importance, site, course, &along)?;
            }
        }
        course.end();
        Ok(())
    }

    /// Sums the squares of what the layers read, for all that the plan says it will know.
    fn collect(&self, data: &Calibration<'_>, course: &Course<'_>) -> Result<()> {
        let (made, index, site) = (self.made, self.index, self.site);
        let named = |at: &usize| (made.plan.tensors[*at].name.as_str(), *at);
        let mut sums = SquareSums::new(self.importance.tensors.iter().map(named));
        let (source, compute) = (
            made.before(index, course.observer),
            calibrating(site, Precision::Split, course),
        );
        let mut walk = start(data, &source, course, compute, site.scratch)?;
        for block in 0..walk.blocks() {
            walk.block(block, &mut sums)?;
            for (tensor, squares) in sums.done() {
                made.shelf.put_squares(index, tensor, &squares)?;
            }
        }
        Ok(())
    }
}

/// Where calibration multiplies and what its products are of: the one thing about the machine that bytes depend on.
fn calibrating(site: &Site<'_>, precision: Precision, course: &Course<'_>) -> Compute {
    let (compute, device) = (site.compute.calibrating(precision), site.compute.device_name());
    let (products, message) = match precision.products() {
        _ if compute.ops() == Ops::Composed => {
            ("f32", "calibration multiplies in f32, by candle's operations")
        }
        "bf16" => (
            "bf16",
            "calibration multiplies in bf16, by the CPU's units for that, and adds up in f32",
        ),
        "bf16x3" => (
            "bf16x3",
            "calibration multiplies floats split into bf16 parts, on the CPU's tile units",
        ),
        products => (products, "calibration multiplies in f32"),
    };
    course.observer.event(
        Level::Info,
        message,
        json!({"products": products, "device": device}),
    );
    compute
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
    pace: &'a dyn Pace,
    compute: Compute,
    scratch: &std::path::Path,
) -> Result<Walk<'a>> {
    let stash = Stash::new(scratch, data.plan.activation_bytes);
    let network = data.network.as_ref();
    Walk::start(network, source, pace, &data.sequences, compute, stash)
}

/// One of several walks of a stage.
struct Lap<'a> {
    course: &'a Course<'a>,
    at: usize,
    of: usize,
}

impl Pace for Lap<'_> {
    fn at(&self, part: f64) {
        self.course.at((self.at as f64 + part) / self.of as f64);
    }

    fn should_stop(&self) -> bool {
        self.course.should_stop()
    }
}

fn run(
    made: &Made<'_>,
    index: usize,
    work: &dyn Blocks,
    data: &Calibration<'_>,
    site: &Site<'_>,
    resume: &mut Resume,
    course: &Course<'_>,
) -> Result<()> {
    let network = data.network.as_ref();
    let transposed = transposed(made, network);
    let observer = course.observer;
    let before = |at: usize| read_all(made.weight(at, index, observer)?.as_rows());
    let squares = |at: usize| made.shelf.squares(index, at);
    let diagonal = |at: usize| made.shelf.diagonal(index, at);
    let mut maker = work.visitor(BlockStage {
        index,
        stage: &made.plan.stages[index],
        tensors: &made.plan.tensors,
        blocks: network.sizes().blocks,
        transposed: &transposed,
        before: &before,
        squares: &squares,
        diagonal: &diagonal,
        seed: made.plan.recipe.seed,
        observer: course.observer,
    });
    let (source, of) = (made.before(index, observer), maker.walks().max(1));
    let precision = work.precision(&made.plan.stages[index].options);
    let compute = calibrating(site, precision, course);
    for at in 0..of {
        let lap = Lap { course, at, of };
        let walk =
            start(data, &source, &lap, compute.clone(), site.scratch)?.with_all_experts(all_experts(made));
        go(made, index, maker.as_mut(), walk, resume, course)?;
    }
    resume.end(index)
}

/// One walk, or the rest of one.
fn go(
    made: &Made<'_>,
    index: usize,
    maker: &mut dyn Maker,
    mut walk: Walk<'_>,
    resume: &mut Resume,
    course: &Course<'_>,
) -> Result<()> {
    let first = if maker.starts_over() {
        0
    } else {
        resume.restore(index, &mut walk)?
    };
    if first > 0 {
        let message = format!("goes on behind block {first}, where an earlier attempt ended");
        course
            .observer
            .event(Level::Info, &message, json!({"stage": index, "block": first}));
    }
    for block in first..walk.blocks() {
        let mut counting = Counting::beside(maker);
        walk.block(block, &mut counting)?;
        made.shelf.put_routed(index, block, &counting.routed())?;
        for (tensor, weight) in maker.made() {
            made.shelf.put(index, tensor, &weight)?;
        }
        for (tensor, which, scale) in maker.found() {
            made.shelf.put_scale(index, tensor, which, scale)?;
        }
        for (name, list) in maker.listed() {
            made.shelf.put_list(index, &name, &list)?;
        }
        for (tensor, factors) in maker.scaled() {
            made.shelf.put_factors(index, tensor, &factors)?;
        }
        if !maker.starts_over() {
            resume.keep(index, block, &walk)?;
        }
    }
    Ok(())
}

/// Layers that the checkpoint stores as `[in, out]`.
fn transposed(made: &Made<'_>, network: &dyn Network) -> HashSet<String> {
    let names = made.plan.tensors.iter().map(|t| &t.name);
    names
        .filter(|name| network.stored_transposed(name))
        .cloned()
        .collect()
}

fn tell_known(course: &Course<'_>, index: usize) {
    let message = "what calibration finds is known from an earlier job on this model and data";
    course
        .observer
        .event(Level::Info, message, json!({"stage": index}));
}

/// Takes what another plan on this model found, or looks for it and keeps it for others.
fn known_or(
    made: &Made<'_>,
    index: usize,
    importance: &ImportancePlan,
    site: &Site<'_>,
    course: &Course<'_>,
    look: &dyn Fn(&Course<'_>) -> Result<()>,
) -> Result<()> {
    let finding = Finding::of(made, index, importance, site)?;
    if finding.take(&made.shelf) {
        tell_known(course, index);
        return Ok(());
    }
    look(course)?;
    finding.keep(&made.shelf);
    Ok(())
}

/// Sums the squares of the loss' gradients, for all that the plan says it will know. What the loss does not depend on
/// counts as nothing.
fn descend(
    made: &Made<'_>,
    index: usize,
    importance: &ImportancePlan,
    data: &Calibration<'_>,
    course: &Course<'_>,
    site: &Site<'_>,
) -> Result<()> {
    let source = made.before(index, course.observer);
    let descent = Descent {
        network: data.network.as_ref(),
        source: &source,
        pace: course,
        compute: calibrating(site, Precision::Split, course),
        sequences: &data.sequences,
        all_experts: all_experts(made),
        seed: made.plan.recipe.seed,
        each: importance.source.knows_each(),
        on_data: importance.source == ImportanceSource::Gradients,
    };
    let tensors = &made.plan.tensors;
    let mut left: HashMap<&str, usize> = importance
        .tensors
        .iter()
        .map(|at| (tensors[*at].name.as_str(), *at))
        .collect();
    let wanted = left.keys().copied().collect();
    let stash = Stash::new(site.scratch, data.plan.activation_bytes);
    descent.run(&wanted, stash, &mut |name, fisher| {
        let Some(tensor) = left.remove(name) else {
            return Err(Error::internal(format!("gradients by {name} were not asked for")));
        };
        let is_turned = data.network.stored_transposed(name);
        let fisher = if is_turned { fisher.turned() } else { fisher };
        made.shelf.put_fisher(index, tensor, &fisher)
    })?;
    for tensor in left.into_values() {
        let none = Fisher {
            rows: vec![0.0; tensors[tensor].rows()],
            cols: vec![0.0; tensors[tensor].cols()],
            each: descent.each.then(|| vec![0.0; tensors[tensor].elements()]),
        };
        made.shelf.put_fisher(index, tensor, &none)?;
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
