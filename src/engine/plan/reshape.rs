//! Stages that change a model's structure: what follows them is planned on another model, of which only headers are known.
//!
//! Owns: [`Outline`], plans of what comes before. Must not know: techniques by name, how tensors are filled.
//! Invariant: shapes are known when a job is planned, whatever data decides later; a model that is made is the one outlined.

use super::schedule::at_stage;
use super::{Plan, SharedBlocks, data, plan_one};
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::recipe::{Recipe, Refusal};
use crate::techniques::{self, Work};
use crate::tensor::{DType, TensorInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Rows or columns of a tensor that become those of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// All of them, in order.
    All,
    /// Runs of `each`, in the order of a list that the stage finds out: `each` rows of every head that stays, for example.
    Listed {
        /// The list's name.
        list: String,
        /// Rows or columns of an item.
        each: usize,
    },
}

/// Which tensor of the model before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The one of this name.
    Named(String),
    /// The one of this name when `{}` is replaced by an item of a list that the stage finds out: a block that stays.
    Item {
        /// The name.
        pattern: String,
        /// The list's name.
        list: String,
        /// Which item.
        at: usize,
    },
}

/// Where the values of a tensor come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From a tensor as it is behind the stage.
    Tensor {
        /// Which.
        which: Which,
        /// Its rows that are taken.
        rows: Taken,
        /// Its columns that are taken.
        cols: Taken,
    },
    /// The stage makes it.
    Made,
}

/// A tensor of the model that a stage makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlinedTensor {
    /// Name.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Stored type: F32, F16 or BF16, or the source's where it is taken whole.
    pub dtype: DType,
    /// Where its values come from.
    pub origin: Origin,
}

/// The model that a stage makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    /// Its config.json.
    pub config: Value,
    /// Its tensors, in the order of their bytes.
    pub tensors: Vec<OutlinedTensor>,
    /// The list that says in which runs its blocks share matrices, where they do; what config.json says of it stands for it
    /// until the list is found.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shared: Option<String>,
}

impl OutlinedTensor {
    fn bytes(&self) -> u64 {
        let elements: usize = self.shape.iter().product();
        let cols = self.shape.last().copied().unwrap_or(1);
        self.dtype.bytes(elements / cols.max(1), cols).unwrap_or(0) as u64
    }
}

impl Outline {
    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(OutlinedTensor::bytes).sum()
    }

    /// The same once the stage has found the list of runs.
    pub(crate) fn found(&self, firsts: &[u32]) -> Self {
        let mut found = self.clone();
        if let Some(shared) = SharedBlocks::of(&self.config) {
            shared.in_runs(firsts).put(&mut found.config);
        }
        found
    }

    /// The headers of the model, with the side files of the one that it is made of.
    pub(crate) fn checkpoint(&self, before: &Checkpoint) -> Checkpoint {
        let mut offset = 0;
        let info = |tensor: &OutlinedTensor| {
            let bytes = tensor.bytes();
            offset += bytes;
            TensorInfo {
                name: tensor.name.clone(),
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                file: 0,
                offset: offset - bytes,
                bytes,
            }
        };
        let tensors = self.tensors.iter().map(info).collect();
        before.outlined(self.config.clone(), tensors)
    }
}

/// Index of the last stage of a recipe that changes the structure.
pub(super) fn last(recipe: &Recipe) -> Option<usize> {
    recipe.stages.iter().rposition(|stage| {
        techniques::find(&stage.technique).is_some_and(|t| matches!(t.work(), Work::Reshapes(_)))
    })
}

/// What a recipe asks for from one stage to another.
pub(super) fn part(recipe: &Recipe, stages: std::ops::Range<usize>) -> Recipe {
    Recipe {
        stages: recipe.stages[stages].to_vec(),
        ..recipe.clone()
    }
}

/// Plans all up to the stage `at`, which changes the structure; answers the headers of the model that it makes.
pub(super) fn until(
    recipe: &Recipe,
    at: usize,
    model: &Checkpoint,
    datasets: &Datasets,
) -> Result<(Plan, Checkpoint), Vec<Refusal>> {
    let before = Recipe {
        formats: Vec::new(),
        evaluation: None,
        gates: None,
        budget: None,
        ..part(recipe, 0..at + 1)
    };
    let (earlier, outlined) = match last(&part(&before, 0..at)) {
        None => (None, None),
        Some(stage) => {
            let (plan, outlined) = until(recipe, stage, model, datasets)?;
            (Some(plan), Some(outlined))
        }
    };
    let first = earlier.as_ref().map_or(0, Plan::end);
    let model = outlined.as_ref().unwrap_or(model);
    let mut plan = plan_one(&part(&before, first..at + 1), model, datasets, None)
        .map_err(|refusals| shifted(first, refusals))?;
    plan.earlier = earlier.map(Box::new);
    plan.first_stage = first;
    plan.recipe_hash = before.hash();
    plan.recipe = before;
    let outline = plan.stages.last().and_then(|stage| stage.outline.as_ref());
    let Some(outline) = outline else {
        let detail = "the stage was to change the model's structure and does not";
        let pointer = super::technique_at(&format!("/stages/{at}"));
        return Err(vec![Refusal::new(pointer, "internal", detail.to_owned())]);
    };
    let checkpoint = outline.checkpoint(model);
    data::network(&checkpoint, &format!("/stages/{at}"))?;
    Ok((plan, checkpoint))
}

/// Refusals of stages by their place in the whole recipe.
pub(super) fn shifted(by: usize, refusals: Vec<Refusal>) -> Vec<Refusal> {
    let moved = |refusal: Refusal| {
        let Some((index, rest)) = at_stage(&refusal.pointer) else {
            return refusal;
        };
        let pointer = format!("/stages/{}{rest}", index + by);
        Refusal { pointer, ..refusal }
    };
    refusals.into_iter().map(moved).collect()
}

impl Plan {
    /// Stages that are done behind it, counted from the recipe's first.
    pub fn end(&self) -> usize {
        self.first_stage + self.stages.len()
    }

    /// What its own stages are of the recipe.
    pub(crate) fn own_recipe(&self) -> Recipe {
        if self.first_stage == 0 {
            return self.recipe.clone();
        }
        part(&self.recipe, self.first_stage..self.recipe.stages.len())
    }

    /// What a budget's search chose, as a plan of the whole job.
    pub(crate) fn in_place_of(mut self, whole: &Self) -> Self {
        if whole.earlier.is_some() {
            self.earlier.clone_from(&whole.earlier);
            self.first_stage = whole.first_stage;
            self.source_bytes = whole.source_bytes;
            let mut stages = whole.recipe.stages[..whole.first_stage].to_vec();
            stages.append(&mut self.recipe.stages);
            self.recipe.stages = stages;
            self.recipe_hash = self.recipe.hash();
            for format in &mut self.formats {
                format.compression_ratio = self.source_bytes as f64 / format.weight_bytes.max(1) as f64;
            }
        }
        self
    }

    /// The plan that begins with the model as it was uploaded.
    pub fn first(&self) -> &Self {
        self.earlier.as_ref().map_or(self, |plan| plan.first())
    }

    /// All plans of a job, in the order of their work.
    pub fn all(&self) -> Vec<&Self> {
        let mut plans = self.earlier.as_ref().map_or_else(Vec::new, |plan| plan.all());
        plans.push(self);
        plans
    }
}
