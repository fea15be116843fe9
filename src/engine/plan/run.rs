//! What running the model takes: data, memory, and which layers are seen.
//!
//! Owns: the part of a plan that is about forward passes. Must not know: techniques by name.
//! Invariant: the bound on memory holds for what the walk keeps at a time: one block, its activations, one layer's
//! statistics.

use super::data::{self, DataPlan};
use super::{ImportanceSource, StagePlan, TensorPlan, memory};
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::network::{Cut, Network};
use crate::recipe::{Recipe, Refusal};
use crate::techniques;
use std::collections::HashSet;

/// What was planned about forward passes.
#[derive(Default)]
pub(super) struct RunPlan {
    pub calibration: Option<DataPlan>,
    pub evaluation: Option<DataPlan>,
    pub peak_bytes: u64,
}

/// Names of all linear layers within blocks, and apart from them those that are stored as `[in, out]`: no format holds
/// these quantized.
pub(super) fn readers(network: &dyn Network, blocks: &[Vec<Cut>]) -> (HashSet<String>, HashSet<String>) {
    let names = blocks
        .iter()
        .flatten()
        .flat_map(|cut| &cut.readers)
        .map(|r| &r.tensor);
    names.cloned().partition(|name| !network.stored_transposed(name))
}

/// The cuts of every block.
pub(super) fn cuts(network: &dyn Network) -> Vec<Vec<Cut>> {
    (0..network.sizes().blocks)
        .map(|block| network.cuts(block))
        .collect()
}

pub(super) fn plan(
    recipe: &Recipe,
    model: &Checkpoint,
    datasets: &Datasets,
    stages: &[StagePlan],
    tensors: &[TensorPlan],
) -> Result<RunPlan, Vec<Refusal>> {
    let blocks = |technique: &str| techniques::find(technique)?.work().by_blocks();
    let calibrated: Vec<_> = (0..)
        .zip(&recipe.stages)
        .filter_map(|(i, s)| Some((i, blocks(&s.technique)?)))
        .collect();
    let mut run = RunPlan {
        peak_bytes: imported_bytes(stages, datasets, tensors),
        ..RunPlan::default()
    };
    let walks = !calibrated.is_empty() || stages.iter().any(StagePlan::collects);
    if !walks && recipe.evaluation.is_none() {
        return Ok(run);
    }
    let network = data::network(model, if walks { "/stages" } else { "/evaluation" })?;
    let network = network.as_ref();
    if walks {
        let data = data::calibration(recipe, model, datasets, network)?;
        let mut statistics = memory::sums(stages, tensors);
        for (index, work) in &calibrated {
            let touched: Vec<&TensorPlan> = tensors.iter().filter(|t| t.has_step(*index)).collect();
            let options = &recipe.stages[*index].options;
            let working = work.working_bytes(options, &touched, &network.sizes(), data.longest);
            statistics = statistics.max(working);
        }
        let peak = memory::walk(tensors, network, &data, statistics);
        run.peak_bytes = run.peak_bytes.max(peak);
        if stages.iter().any(StagePlan::descends) {
            run.peak_bytes = run.peak_bytes.max(memory::descent(
                tensors,
                network,
                &data,
                stages.iter().any(StagePlan::knows_each),
            ));
        }
        run.calibration = Some(data);
    }
    if recipe.evaluation.is_some() {
        let data = data::evaluation(recipe, model, datasets, network)?;
        let peak = memory::walk(tensors, network, &data, 0) + memory::comparison(tensors, network, &data);
        run.peak_bytes = run.peak_bytes.max(peak);
        run.evaluation = Some(data);
    }
    Ok(run)
}

/// What reading imported importance matrices takes: the largest is in memory once as it is and once by tensor.
fn imported_bytes(stages: &[StagePlan], datasets: &Datasets, tensors: &[TensorPlan]) -> u64 {
    let bytes = |stage: &StagePlan| match &stage.importance()?.source {
        ImportanceSource::Dataset(name) => datasets.get(name).map(|dataset| dataset.bytes),
        _ => None,
    };
    let largest = stages.iter().filter_map(bytes).max();
    largest.map_or(0, |bytes| memory::base(tensors) + 2 * bytes)
}
