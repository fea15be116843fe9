//! Stages that turn the model's hidden states and heads, so that the network computes the same from other weights.
//!
//! Owns: [`Rotation`], what becomes of one tensor; the model with a head of its own where a stage needs that. Must not
//! know: which matrices there are, techniques by name.
//! Invariant: whoever plans and whoever executes see the same tensors.

use super::{Context, TensorPlan, data};
use crate::checkpoint::Checkpoint;
use crate::models::network_of;
use crate::network::Residual;
use crate::recipe::{Recipe, Refusal};
use crate::techniques;
use serde::{Deserialize, Serialize};

/// An orthogonal matrix: blocks on the diagonal, each a Hadamard matrix over the root of its size, that repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orthogonal {
    /// Channels after which it repeats.
    pub period: usize,
    /// Size of a block; divides the period.
    pub block: usize,
    /// Seed of the signs that its rows are multiplied by, where they are: a period of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<u64>,
}

/// How a stage turns a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Rotation {
    /// A norm's weight that its readers take over: ones are left.
    Folded,
    /// Turned on one side or on both.
    Turned(Turned),
}

/// What becomes of a weight `W`: `Rᵀ · W · diag(g) · S`, each factor where there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    /// The norm whose weight as it is before the stage is `g`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub norm: Option<String>,
    /// `R`, the turn of what the layer writes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows: Option<Orthogonal>,
    /// `S`, the turn of what it reads. A bias is one row of what its layer writes, so that this is its layer's `R`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub columns: Option<Orthogonal>,
}

impl Rotation {
    /// True where rows are mixed, so that a tensor is held whole while it is made.
    pub fn mixes_rows(&self) -> bool {
        matches!(self, Self::Turned(turned) if turned.rows.is_some())
    }

    /// True where the layer's inputs are others than before.
    pub fn turns_inputs(&self) -> bool {
        matches!(self, Self::Turned(turned) if turned.columns.is_some())
    }
}

impl TensorPlan {
    /// The last stage that turned it, if one did.
    pub fn last_rotation(&self) -> Option<usize> {
        let step = self.steps.iter().rfind(|step| step.rotation.is_some());
        step.map(|step| step.stage)
    }

    /// True where a stage turned what the layer reads.
    pub fn reads_turned_inputs(&self) -> bool {
        let mut rotations = self.steps.iter().filter_map(|step| step.rotation.as_ref());
        rotations.any(Rotation::turns_inputs)
    }
}

impl Context<'_> {
    /// The residual stream of the model, or why it cannot be turned.
    pub fn residual(&self) -> Result<Residual, Vec<Refusal>> {
        let pointer = format!("{}/technique", self.pointer);
        let network = data::network(self.model, &pointer)?;
        network.residual().ok_or_else(|| {
            let detail = format!(
                "{} turns hidden states between RMS norms, which the norms do not notice; in a {} model the norms \
                 subtract a mean: models that can be turned are llama, mistral, qwen2, qwen3, smollm3, mixtral, \
                 qwen2_moe and qwen3_moe",
                self.spec.technique,
                self.model.architecture().unwrap_or_default()
            );
            vec![Refusal::new(pointer, "no_rotatable_residual", detail)]
        })
    }
}

/// The model as a recipe's stages see it, where that is not how it is stored: with a head of its own.
pub(crate) fn untied(recipe: &Recipe, model: &Checkpoint) -> Option<Checkpoint> {
    let unties = |technique: &str, options| techniques::find(technique).is_some_and(|t| t.unties(options));
    let mut stages = recipe.stages.iter();
    stages.find(|stage| unties(&stage.technique, &stage.options))?;
    // Where the model does not run, the stage says so when it is planned.
    let residual = network_of(model).ok()?.residual()?;
    Some(model.untied(&residual.embedding, &residual.untied_head))
}
