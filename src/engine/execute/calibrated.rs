//! Calibrated stages: the model runs over data, block by block, and weights are made on the way.
//!
//! Owns: one walk for each such stage, and going on where an earlier attempt ended. Must not know: which techniques
//! there are.
//! Invariant: a resumed stage makes the same bytes as one that was never interrupted.

use super::course::Course;
use super::made::Made;
use super::resume::Resume;
use crate::calibrate::{Stash, Walk};
use crate::dataset::Datasets;
use crate::error::Result;
use crate::models::network_of;
use crate::observe::Level;
use crate::plan::{Use, planned_sequences};
use crate::techniques::{self, BlockStage, Blocks, Work};
use serde_json::json;
use std::path::Path;

/// Runs every calibrated stage of the plan.
pub(super) fn run_all(
    made: &Made<'_>,
    datasets: &Datasets,
    scratch: &Path,
    course: &mut Course<'_>,
) -> Result<()> {
    let Some(data) = &made.plan.calibration else {
        return Ok(());
    };
    let network = network_of(made.model)?;
    let recipe = &made.plan.recipe;
    let taken = planned_sequences(
        recipe,
        Use::Calibration,
        data,
        made.model,
        datasets,
        network.as_ref(),
    )?;
    let mut resume = Resume::open(made.plan, scratch)?;
    for (index, stage) in made.plan.stages.iter().enumerate() {
        let Some(Work::Blocks(work)) = techniques::find(&stage.technique).map(techniques::Technique::work)
        else {
            continue;
        };
        course.begin(&stage.technique);
        if !resume.has_ended(index) {
            let source = made.before(index, course.observer);
            let stash = Stash::new(scratch, data.activation_bytes);
            let walk = Walk::start(network.as_ref(), &source, course, &taken.ids, stash)?;
            run(made, index, work, walk, &mut resume, course)?;
        }
        course.end();
    }
    Ok(())
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
        walk.block(block, maker.as_mut())?;
        for (tensor, weight) in maker.made() {
            made.shelf.put(index, tensor, &weight)?;
        }
        for (tensor, factors) in maker.scaled() {
            made.shelf.put_factors(index, tensor, &factors)?;
        }
        resume.keep(index, block, &walk)?;
    }
    resume.end(index)
}
