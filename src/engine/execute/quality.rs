//! The original and the compressed model over the same data.
//!
//! Owns: the two walks. Must not know: metrics.
//! Invariant: the compressed model's weights are those that were written.

use super::course::Course;
use super::made::Made;
use crate::calibrate::{Source, Stash, Visitor, Walk};
use crate::dataset::Datasets;
use crate::error::Result;
use crate::evaluate::{Ends, Quality, compare};
use crate::models::network_of;
use crate::network::{Cut, Network, State, Weights};
use crate::plan::{DataPlan, Use, planned_sequences};
use std::path::Path;

/// Nobody looks at the inputs.
struct Blind;

impl Visitor for Blind {
    fn replaces(&self) -> bool {
        false
    }
    fn see(&mut self, _at: usize, _cut: &Cut, _state: &State) -> Result<()> {
        Ok(())
    }
    fn settle(&mut self, _here: &mut crate::calibrate::Here<'_>) -> Result<()> {
        Ok(())
    }
}

/// Runs both and measures.
pub(super) fn measure(
    made: &Made<'_>,
    data: &DataPlan,
    datasets: &Datasets,
    scratch: &Path,
    course: &mut Course<'_>,
) -> Result<Quality> {
    let network = network_of(made.model)?;
    let network = network.as_ref();
    let recipe = &made.plan.recipe;
    let taken = planned_sequences(recipe, Use::Evaluation, data, made.model, datasets, network)?;
    let observer = course.observer;
    let (original, compressed) = (made.before(0, observer), made.before(usize::MAX, observer));
    course.begin("evaluate_before");
    let before = walked(
        network,
        &original,
        &taken.ids,
        Stash::new(scratch, data.activation_bytes),
        course,
    )?;
    course.end();
    course.begin("evaluate_after");
    let after = walked(
        network,
        &compressed,
        &taken.ids,
        Stash::new(scratch, data.activation_bytes),
        course,
    )?;
    course.end();
    course.begin("compare");
    let (head_before, head_after) = (head(network, &original)?, head(network, &compressed)?);
    let stop = |part: f64| {
        crate::calibrate::Pace::at(course, part);
        observer.should_stop()
    };
    let quality = compare(
        network,
        &before.0,
        &Ends {
            hidden: &|batch| before.1.read(batch),
            weights: &head_before,
        },
        &Ends {
            hidden: &|batch| after.1.read(batch),
            weights: &head_after,
        },
        recipe.evaluation.as_ref().map_or(&[], |e| e.metrics.as_slice()),
        recipe.seed,
        &stop,
    )?;
    course.end();
    Ok(Quality {
        dataset: data.dataset.clone(),
        sequences: data.sequences,
        tokens: data.tokens,
        max_seq_length: data.longest,
        ..quality
    })
}

fn head(network: &dyn Network, source: &dyn Source) -> Result<Weights> {
    let mut weights = Weights::default();
    for name in network.head_tensors() {
        source.load(&name, network.stored_transposed(&name), &mut weights)?;
    }
    Ok(weights)
}

/// The batches and their hidden states behind the last block.
fn walked(
    network: &dyn Network,
    source: &dyn Source,
    sequences: &[Vec<u32>],
    stash: Stash,
    course: &Course<'_>,
) -> Result<(Vec<crate::network::Batch>, Stash)> {
    let mut walk = Walk::start(network, source, course, sequences, stash)?;
    for block in 0..walk.blocks() {
        walk.block(block, &mut Blind)?;
    }
    walk.into_hidden()
}
