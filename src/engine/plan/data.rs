//! The data of a plan: what a model is calibrated and evaluated with.
//!
//! Owns: turning a recipe's datasets into sequences, at plan time and again when the plan runs. Must not know: metrics.
//! Invariant: what cannot be run over the data is refused here, before anything runs; the sequences of the run are
//! those of the plan.

use crate::calibrate::{Choice, Sequences, sequences};
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::evaluate::{Subject, class_numbers};
use crate::models::network_of;
use crate::network::{HeadKind, Network};
use crate::recipe::{CalibrationSpec, EvaluationSpec, Metric, Recipe, Refusal};
use crate::techniques;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Data that a model runs over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlan {
    /// Name of the dataset.
    pub dataset: String,
    /// Sequences taken.
    pub sequences: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Tokens of the longest.
    pub longest: usize,
    /// SHA-256 of all token ids, and of the labels where it is measured with, hex.
    pub digest: String,
    /// Most bytes of activations in memory; what is more goes to scratch.
    pub activation_bytes: u64,
    /// What is measured on it; nothing for a calibration.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub metrics: Vec<Metric>,
}

/// What a recipe's data is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Calibration,
    Evaluation,
}

/// Every dataset that a recipe names, with the JSON pointer to its name: calibration, evaluation, and options of
/// stages that the techniques' schemas say are datasets.
pub fn named_datasets(recipe: &Recipe) -> Vec<(&str, String)> {
    let parts = recipe.datasets();
    let mut named: Vec<_> = parts
        .into_iter()
        .map(|(name, at)| (name, at.to_owned()))
        .collect();
    for (index, stage) in recipe.stages.iter().enumerate() {
        let Some(technique) = techniques::find(&stage.technique) else {
            continue;
        };
        let schema = technique.schema();
        let at = match recipe.preset {
            Some(_) => String::new(),
            None => format!("/stages/{index}"),
        };
        for (option, value) in stage.options.as_object().into_iter().flatten() {
            let name = value.as_str();
            if let Some(name) = name.filter(|name| is_dataset(&schema["properties"][option], name)) {
                named.push((name, format!("{at}/options/{option}")));
            }
        }
    }
    named
}

/// An option that takes a dataset has alternatives, and is one where it is none of the words of another.
fn is_dataset(property: &Value, given: &str) -> bool {
    let alternatives = property["anyOf"].as_array().map_or(&[][..], Vec::as_slice);
    let takes = alternatives.iter().any(|a| a["format"] == "dataset");
    let is_word = |a: &Value| {
        a["enum"]
            .as_array()
            .is_some_and(|words| words.iter().any(|w| w == given))
    };
    takes && !alternatives.iter().any(is_word)
}

/// The calibration that a recipe asks for, or that its techniques need.
pub(crate) fn calibration_of(recipe: &Recipe) -> CalibrationSpec {
    recipe.calibration.clone().unwrap_or_default()
}

fn choice(recipe: &Recipe, of: Use, network: &dyn Network) -> (String, Choice, u64) {
    let whole_rows = network.head_kind() != HeadKind::NextToken;
    let chosen = |num_samples: u32, max_seq_length: u32, shuffle| Choice {
        num_samples: num_samples as usize,
        max_seq_length: (max_seq_length as usize).min(network.sizes().context.unwrap_or(usize::MAX)),
        shuffle,
        seed: recipe.seed,
        whole_rows,
    };
    match of {
        Use::Calibration => {
            let spec = calibration_of(recipe);
            (
                spec.dataset,
                chosen(spec.num_samples, spec.max_seq_length, spec.shuffle),
                spec.max_activation_bytes,
            )
        }
        Use::Evaluation => {
            let spec: EvaluationSpec = recipe.evaluation.clone().unwrap_or_default();
            let chosen = chosen(spec.num_samples, spec.max_seq_length, false);
            (spec.dataset, chosen, spec.max_activation_bytes)
        }
    }
}

/// The sequences of a recipe.
pub(crate) fn sequences_of(
    recipe: &Recipe,
    of: Use,
    model: &Checkpoint,
    datasets: &Datasets,
    network: &dyn Network,
) -> Result<(Sequences, DataPlan)> {
    let (name, choice, most) = choice(recipe, of, network);
    let dataset = match of {
        // What comes with us is parted, so that nothing is measured on the text it was calibrated with.
        Use::Evaluation => datasets.held_out(&name),
        Use::Calibration => datasets.get(&name),
    };
    let dataset = dataset.ok_or_else(|| Error::internal(format!("no dataset {name}")))?;
    let taken = sequences(model, dataset, choice, network.sizes().vocab)?;
    let mut bytes: Vec<u8> = taken
        .ids
        .iter()
        .flat_map(|ids| std::iter::once(ids.len() as u32).chain(ids.iter().copied()))
        .flat_map(u32::to_le_bytes)
        .collect();
    if of == Use::Evaluation {
        for label in &taken.labels {
            bytes.extend(format!("{label:?}\n").bytes());
        }
    }
    let plan = DataPlan {
        dataset: name,
        sequences: taken.ids.len(),
        tokens: taken.tokens(),
        longest: taken.ids.iter().map(Vec::len).max().unwrap_or(0),
        digest: sha256(&bytes),
        activation_bytes: waiting(taken.tokens() as u64, network).min(most),
        metrics: Vec::new(),
    };
    Ok((taken, plan))
}

/// The sequences of a plan, or an error where they are no longer the same.
pub(crate) fn planned_sequences(
    recipe: &Recipe,
    of: Use,
    plan: &DataPlan,
    model: &Checkpoint,
    datasets: &Datasets,
    network: &dyn Network,
) -> Result<Sequences> {
    let (taken, now) = sequences_of(recipe, of, model, datasets, network)?;
    if now.digest != plan.digest {
        return Err(Error::bad_input(
            "dataset_changed",
            format!(
                "dataset {} is not the one the plan was made with: submit the job again",
                plan.dataset
            ),
        ));
    }
    Ok(taken)
}

/// Bytes of activations that would wait at the widest cut, were they all in memory.
fn waiting(tokens: u64, network: &dyn Network) -> u64 {
    let sizes = network.sizes();
    4 * tokens * (sizes.hidden + sizes.widest) as u64
}

/// The forward pass of a model, or a refusal at `pointer`.
pub(crate) fn network(model: &Checkpoint, pointer: &str) -> Result<Box<dyn Network>, Vec<Refusal>> {
    network_of(model).map_err(|e| vec![Refusal::new(pointer, e.code, e.message)])
}

/// Plans a calibration.
pub(super) fn calibration(
    recipe: &Recipe,
    model: &Checkpoint,
    datasets: &Datasets,
    network: &dyn Network,
) -> Result<DataPlan, Vec<Refusal>> {
    sequences_of(recipe, Use::Calibration, model, datasets, network)
        .map(|(_, plan)| plan)
        .map_err(|e| refused("/calibration", e))
}

/// Plans an evaluation, with what will be measured.
pub(super) fn evaluation(
    recipe: &Recipe,
    model: &Checkpoint,
    datasets: &Datasets,
    network: &dyn Network,
) -> Result<DataPlan, Vec<Refusal>> {
    let refused = |e: Error| refused("/evaluation", e);
    let (taken, mut plan) =
        sequences_of(recipe, Use::Evaluation, model, datasets, network).map_err(refused)?;
    let subject = Subject {
        head: network.head_kind(),
        classes: network.classes(),
        sequences: plan.sequences,
        longest: plan.longest,
        is_labelled: !taken.labels.is_empty(),
    };
    let asked = recipe.evaluation.as_ref().map_or(&[][..], |e| &e.metrics);
    plan.metrics = subject.metrics(asked)?;
    if let Some(gates) = &recipe.gates {
        subject.check_gates(gates, &plan.metrics)?;
    }
    if plan.metrics.contains(&Metric::Accuracy) {
        class_numbers(model, subject.classes, &taken.labels).map_err(refused)?;
    }
    Ok(plan)
}

fn refused(pointer: &str, error: Error) -> Vec<Refusal> {
    let field = match error.code {
        "dataset_too_short" => "/max_seq_length",
        _ => "/dataset",
    };
    vec![Refusal::new(
        format!("{pointer}{field}"),
        error.code,
        error.message,
    )]
}
