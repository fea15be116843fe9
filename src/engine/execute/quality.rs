//! The original and the compressed model over the same data.
//!
//! Owns: the two walks, block by block beside each other. Must not know: metrics.
//! Invariant: the compressed model's weights are those that were written; one block of one model is loaded at a time.

use super::Site;
use super::course::Course;
use super::made::Made;
use crate::calibrate::{Pace, Source, Stash, Visitor, Walk};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Datasets, Label};
use crate::error::Result;
use crate::evaluate::{Comparison, Ends, Layers, Quality, check_hidden, class_numbers, compare};
use crate::models::network_of;
use crate::network::{Compute, Cut, Network, State, Weights};
use crate::plan::{DataPlan, Use, planned_sequences};
use crate::recipe::{Metric, Recipe};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Nobody looks at the inputs.
pub(super) struct Blind;

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

/// How far one of two walks is that take turns: never less than the other said before.
struct Turns<'a> {
    course: &'a Course<'a>,
    blocks: usize,
    /// Blocks that were begun, both models' counted.
    begun: &'a AtomicUsize,
    /// 0 for the original, 1 for the compressed model.
    side: usize,
}

impl Pace for Turns<'_> {
    fn at(&self, part: f64) {
        let begun = self.begun.load(Ordering::Relaxed);
        let block = begun.saturating_sub(self.side) / 2;
        let within = (part * self.blocks as f64 - block as f64).clamp(0.0, 1.0);
        self.course.at((begun as f64 + within) / (2 * self.blocks) as f64);
    }

    fn should_stop(&self) -> bool {
        self.course.should_stop()
    }
}

/// A model somewhere on its way.
pub(super) struct Behind<'a> {
    pub made: &'a Made<'a>,
    /// Before which of the plan's stages.
    pub until: usize,
    /// What asks for the measurement.
    pub recipe: &'a Recipe,
}

/// Runs both, the original and what a model has become, and measures.
pub(super) fn measure(
    original: &Made<'_>,
    Behind { made, until, recipe }: Behind<'_>,
    data: &DataPlan,
    datasets: &Datasets,
    site: &Site<'_>,
    course: &mut Course<'_>,
) -> Result<Quality> {
    let networks = [network_of(original.model)?, network_of(made.model)?];
    let networks: [&dyn Network; 2] = [networks[0].as_ref(), networks[1].as_ref()];
    let network = networks[1];
    let taken = planned_sequences(recipe, Use::Evaluation, data, made.model, datasets, network)?;
    let labels = numbers(made.model, network, &taken.labels, &data.metrics)?;
    let observer = course.observer;
    let models = [original.before(0, observer), made.before(until, observer)];
    course.begin("evaluate");
    let start = |side: usize, pace| {
        let stash = Stash::new(site.scratch, data.activation_bytes);
        Walk::start_beside(
            networks[side],
            &models[side],
            pace,
            &taken.ids,
            site.compute.clone(),
            stash,
            networks[1 - side],
        )
    };
    let begun = AtomicUsize::new(0);
    let pace = |side: usize| Turns {
        course,
        blocks: networks[side].sizes().blocks.max(1),
        begun: &begun,
        side,
    };
    let paces = [pace(0), pace(1)];
    let mut walks = [start(0, &paces[0])?, start(1, &paces[1])?];
    let layers = both(&mut walks, &begun, data.metrics.contains(&Metric::LayerError))?;
    let [before, after] = walks.map(Walk::into_hidden);
    let (before, after) = (before?, after?);
    course.end();
    course.begin("compare");
    let head = |side: usize| head(networks[side], &models[side], &site.compute);
    let heads = [head(0)?, head(1)?];
    let stop = |part: f64| {
        Pace::at(course, part);
        observer.should_stop()
    };
    let comparison = Comparison {
        networks,
        compute: &site.compute,
        batches: &before.0,
        ends: [
            Ends {
                hidden: &|batch| before.1.read(batch),
                weights: &heads[0],
            },
            Ends {
                hidden: &|batch| after.1.read(batch),
                weights: &heads[1],
            },
        ],
        layers: &layers,
        labels: &labels,
        metrics: &data.metrics,
        seed: recipe.seed,
    };
    let quality = compare(&comparison, &stop)?;
    course.end();
    Ok(Quality {
        dataset: data.dataset.clone(),
        sequences: data.sequences,
        tokens: data.tokens,
        max_seq_length: data.longest,
        ..quality
    })
}

/// The labels' classes, where they are measured with.
pub(super) fn numbers(
    model: &Checkpoint,
    network: &dyn Network,
    labels: &[Label],
    metrics: &[Metric],
) -> Result<Vec<usize>> {
    if metrics.contains(&Metric::Accuracy) {
        class_numbers(model, network.classes(), labels)
    } else {
        Ok(Vec::new())
    }
}

/// Both models through every block, the original first. Blocks are compared where both have as many, as wide.
fn both(walks: &mut [Walk<'_>; 2], begun: &AtomicUsize, compared: bool) -> Result<Layers> {
    let mut layers = Layers::default();
    let blocks = [walks[0].blocks(), walks[1].blocks()];
    for block in 0..blocks[0].max(blocks[1]) {
        for (side, walk) in walks
            .iter_mut()
            .enumerate()
            .filter(|(side, _)| block < blocks[*side])
        {
            begun.store(2 * block + side, Ordering::Relaxed);
            walk.block(block, &mut Blind)?;
        }
        for index in 0..walks[0].batches() {
            let (batch, before) = walks[0].hidden(index)?;
            let (_, after) = walks[1].hidden(index)?;
            check_hidden("original", block, &before)?;
            check_hidden("compressed", block, &after)?;
            if compared && blocks[0] == blocks[1] && before.dims() == after.dims() {
                layers.see(block, batch, &before, &after)?;
            }
        }
    }
    Ok(layers)
}

pub(super) fn head(network: &dyn Network, source: &dyn Source, compute: &Compute) -> Result<Weights> {
    let mut weights = compute.weights();
    for name in network.head_tensors() {
        source.load(&name, network.stored_transposed(&name), &mut weights)?;
    }
    Ok(weights)
}
