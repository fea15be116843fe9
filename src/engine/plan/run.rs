//! What running the model takes: data, memory, and which layers are seen.
//!
//! Owns: the part of a plan that is about forward passes. Must not know: techniques by name.
//! Invariant: the bound on memory holds for what the walk keeps at a time: one block, its activations, one layer's
//! statistics.

use super::data::{self, DataPlan, Use};
use super::{TensorPlan, memory};
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::network::{Cut, Network};
use crate::recipe::{Recipe, Refusal};
use crate::techniques::{self, Work};
use std::collections::HashSet;

/// What was planned about forward passes.
#[derive(Default)]
pub(super) struct RunPlan {
    pub calibration: Option<DataPlan>,
    pub evaluation: Option<DataPlan>,
    pub peak_bytes: u64,
}

/// Names of all linear layers within blocks, but those that are stored as `[in, out]`: no format holds these quantized.
pub(super) fn readers(network: &dyn Network, blocks: &[Vec<Cut>]) -> HashSet<String> {
    let names = blocks
        .iter()
        .flatten()
        .flat_map(|cut| &cut.readers)
        .map(|r| &r.tensor);
    names
        .filter(|name| !network.stored_transposed(name))
        .cloned()
        .collect()
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
    tensors: &[TensorPlan],
) -> Result<RunPlan, Vec<Refusal>> {
    let blocks = |technique: &str| match techniques::find(technique).map(techniques::Technique::work) {
        Some(Work::Blocks(work)) => Some(work),
        _ => None,
    };
    let calibrated: Vec<_> = (0..)
        .zip(&recipe.stages)
        .filter_map(|(i, s)| Some((i, blocks(&s.technique)?)))
        .collect();
    if calibrated.is_empty() && recipe.evaluation.is_none() {
        return Ok(RunPlan::default());
    }
    let network = data::network(
        model,
        if calibrated.is_empty() {
            "/evaluation"
        } else {
            "/stages"
        },
    )?;
    let network = network.as_ref();
    let mut run = RunPlan::default();
    let mut statistics = 0;
    for (index, work) in &calibrated {
        let touched: Vec<&TensorPlan> = tensors.iter().filter(|t| t.has_step(*index)).collect();
        statistics = statistics.max(work.working_bytes(&recipe.stages[*index].options, &touched));
    }
    if !calibrated.is_empty() {
        let data = data::plan(recipe, Use::Calibration, model, datasets, network)?;
        run.peak_bytes = memory::walk(tensors, network, &data) + statistics;
        run.calibration = Some(data);
    }
    if recipe.evaluation.is_some() {
        let data = data::plan(recipe, Use::Evaluation, model, datasets, network)?;
        let peak = memory::walk(tensors, network, &data) + memory::comparison(tensors, network, &data);
        run.peak_bytes = run.peak_bytes.max(peak);
        run.evaluation = Some(data);
    }
    Ok(run)
}
