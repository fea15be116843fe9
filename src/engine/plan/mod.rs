//! Recipe + model → what will be done to every tensor, what will come out, and what it will take.
//!
//! Owns: [`Plan`], the only thing a worker needs beside the model's files. Must not know: clocks, threads.
//! Invariant: what is planned is what is written, to the byte; everything that can be refused is refused here.

mod budget;
mod cache;
mod data;
mod formats;
mod memory;
mod options;
mod reshape;
mod rotation;
mod run;
mod schedule;
mod shared;
mod stage;
mod statistics;
mod targets;
mod tensor;

use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::recipe::{Recipe, Refusal};
use crate::techniques::{self, Work};
use crate::tensor::{DType, TensorInfo};
use crate::weight::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use budget::{BudgetPlan, UnitPlan};
pub use cache::{CacheDtype, CachePlan};
pub use data::{DataPlan, named_datasets};
pub(crate) use data::{Use, planned_sequences};
use formats::plan_format;
pub(crate) use formats::request;
pub(crate) use options::check_options;
pub use reshape::{Origin, Outline, OutlinedTensor, Taken, Which};
pub(crate) use rotation::untied;
pub use rotation::{Orthogonal, Rotation, Turned};
pub use shared::SharedBlocks;
pub use stage::Context;
use stage::{plan_stage, technique_at};
pub(crate) use statistics::imported;
pub use statistics::{ImportancePlan, ImportanceSource, Statistic};
pub use tensor::{Step, TensorPlan};

/// A stage as it will run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Technique.
    pub technique: String,
    /// Its options as given.
    pub options: Value,
    /// Label of the mix, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
    /// What it must know of its layers' inputs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub needs: Option<Statistic>,
    /// The model that it makes, where it changes the structure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outline: Option<Outline>,
    /// Tensors it changes.
    pub tensors: usize,
    /// True where only weights or data tell what some of them become: before anything is made it is planned again.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_open: bool,
}

/// A file that will be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilePlan {
    /// Relative name.
    pub name: String,
    /// Exact length.
    pub bytes: u64,
}

/// A format that will be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatPlan {
    /// Format.
    pub format: String,
    /// Its options as given.
    pub options: Value,
    /// Files, exact to the byte (`README.md`, `modelpress.json` and its signature come on top).
    pub files: Vec<FilePlan>,
    /// True where all lengths are the most that they can be: how well something codes is known once it is coded.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub at_most: bool,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of the tensors in them.
    pub weight_bytes: u64,
    /// Bytes of weights that an engine holds once it has loaded them: packed and sparse files are dense in memory; 0 in plans
    /// of versions that did not say.
    #[serde(default)]
    pub memory_bytes: u64,
    /// `8 · weight_bytes / parameters`.
    pub bits_per_weight: f64,
    /// `source tensor bytes / weight_bytes`.
    pub compression_ratio: f64,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this structure: 1.
    pub version: u32,
    /// Engine that made it.
    pub engine_version: String,
    /// What is done before, to a model of another structure; its last stage makes the one that this plan begins with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub earlier: Option<Box<Plan>>,
    /// Stages of the recipe that are done before.
    #[serde(skip_serializing_if = "is_none_before", default)]
    pub first_stage: usize,
    /// The recipe.
    pub recipe: Recipe,
    /// Its hash.
    pub recipe_hash: String,
    /// Number of weights.
    pub parameter_count: u64,
    /// Bytes of the source's tensors.
    pub source_bytes: u64,
    /// Stages.
    pub stages: Vec<StagePlan>,
    /// Every tensor.
    pub tensors: Vec<TensorPlan>,
    /// Every format.
    pub formats: Vec<FormatPlan>,
    /// Data that the model is calibrated with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<DataPlan>,
    /// Data that it is evaluated on, before and after.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evaluation: Option<DataPlan>,
    /// What a budget chooses from. Sizes are then the most that a choice may have, kinds those of the largest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget: Option<BudgetPlan>,
    /// Upper bound of the process's resident memory while it runs.
    pub peak_memory_bytes: u64,
    /// Disk taken by the outputs.
    pub disk_bytes: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none_before(stages: &usize) -> bool {
    *stages == 0
}

/// Plans a recipe on a model, with the datasets that it names.
pub fn plan(recipe: &Recipe, model: &Checkpoint, datasets: &Datasets) -> Result<Plan, Vec<Refusal>> {
    let spelled = schedule::spelled(recipe);
    plan_spelled(&spelled.recipe, model, datasets).map_err(|refusals| spelled.given(refusals))
}

fn plan_spelled(recipe: &Recipe, model: &Checkpoint, datasets: &Datasets) -> Result<Plan, Vec<Refusal>> {
    known_datasets(recipe, datasets)?;
    let Some(at) = reshape::last(recipe) else {
        return plan_rest(recipe, model, datasets);
    };
    let (earlier, reshaped) = reshape::until(recipe, at, model, datasets)?;
    let first = earlier.end();
    let rest = reshape::part(recipe, first..recipe.stages.len());
    let plan = plan_rest(&rest, &reshaped, datasets).map_err(|refusals| reshape::shifted(first, refusals))?;
    Ok(plan.behind(
        earlier,
        recipe,
        (model, &reshaped),
        original_peak(recipe, model, datasets)?,
    ))
}

/// Plans stages that leave the structure as it is.
fn plan_rest(recipe: &Recipe, model: &Checkpoint, datasets: &Datasets) -> Result<Plan, Vec<Refusal>> {
    match &recipe.budget {
        None => plan_one(recipe, model, datasets, None),
        Some(budget) => budget::plan(recipe, budget, model, datasets),
    }
}

/// Memory that evaluating the model as it was uploaded takes.
fn original_peak(recipe: &Recipe, model: &Checkpoint, datasets: &Datasets) -> Result<u64, Vec<Refusal>> {
    let alone = Recipe {
        stages: Vec::new(),
        formats: Vec::new(),
        budget: None,
        gates: None,
        ..recipe.clone()
    };
    plan_one(&alone, model, datasets, None).map(|plan| plan.peak_memory_bytes)
}

impl Plan {
    /// The stages up to the first that leaves something open, if there is one, and what they make of tensors.
    pub(crate) fn until_open(&self) -> Option<Self> {
        let open = self.stages.iter().position(|stage| stage.is_open)?;
        let mut first = self.clone();
        first.stages.truncate(open + 1);
        for tensor in &mut first.tensors {
            tensor.steps.retain(|step| step.stage <= open);
        }
        Some(first)
    }

    /// The same behind another plan, as one of the whole recipe. `model` is the one that was uploaded, and the one that the
    /// other plan makes of it.
    fn behind(
        mut self,
        earlier: Self,
        recipe: &Recipe,
        (uploaded, reshaped): (&Checkpoint, &Checkpoint),
        original_peak: u64,
    ) -> Self {
        self.first_stage = earlier.end();
        self.recipe_hash = recipe.hash();
        self.recipe = recipe.clone();
        self.source_bytes = uploaded.tensor_bytes();
        for format in &mut self.formats {
            format.compression_ratio = self.source_bytes as f64 / format.weight_bytes.max(1) as f64;
        }
        let before = earlier.peak_memory_bytes.max(original_peak);
        self.peak_memory_bytes = self.peak_memory_bytes.max(before);
        self.disk_bytes += earlier.disk_bytes + reshaped.tensor_bytes();
        self.warnings.splice(0..0, earlier.warnings.iter().cloned());
        self.earlier = Some(Box::new(earlier));
        self
    }
}

/// Plans a recipe without a budget; before `weighed` it is to be known how much the output depends on each weight.
fn plan_one(
    recipe: &Recipe,
    model: &Checkpoint,
    datasets: &Datasets,
    weighed: Option<usize>,
) -> Result<Plan, Vec<Refusal>> {
    let untied = untied(recipe, model);
    let model = untied.as_ref().unwrap_or(model);
    let (mut stages, tensors) = staged(recipe, model, datasets)?;
    if let Some(stage) = weighed.and_then(|stage| stages.get_mut(stage)) {
        let fisher = statistics::computed(model, &tensors, ImportanceSource::Fisher, "/budget")?;
        stage.needs = Some(Statistic::Importance(fisher));
    }
    let run = run::plan(recipe, model, datasets, &stages, &tensors)?;
    for (stage, data) in stages.iter_mut().zip(run.calibration.iter().cycle()) {
        stage.calibrated_with(data);
    }
    let mut refusals = Vec::new();
    let (mut planned, mut encoded) = (Vec::new(), Vec::new());
    for (index, spec) in recipe.formats.iter().enumerate() {
        match plan_format(index, spec, &stages, &tensors, model) {
            Ok((format, bytes)) => {
                planned.push(format);
                encoded.push(bytes);
            }
            Err(more) => refusals.extend(more),
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let making = memory::peak(&tensors, &encoded) + memory::importance(&stages, &tensors);
    Ok(Plan {
        version: 1,
        engine_version: crate::VERSION.to_owned(),
        earlier: None,
        first_stage: 0,
        recipe: recipe.clone(),
        recipe_hash: recipe.hash(),
        parameter_count: tensors.iter().map(|t| t.elements() as u64).sum(),
        source_bytes: model.tensor_bytes(),
        calibration: run.calibration,
        evaluation: run.evaluation,
        budget: None,
        peak_memory_bytes: making
            .max(run.peak_bytes)
            .max(memory::reshaping(&stages, &tensors)),
        disk_bytes: planned.iter().map(|f| f.bytes).sum(),
        warnings: warnings(&tensors),
        stages,
        tensors,
        formats: planned,
    })
}

/// What every stage makes of every tensor.
fn staged(
    recipe: &Recipe,
    model: &Checkpoint,
    datasets: &Datasets,
) -> Result<(Vec<StagePlan>, Vec<TensorPlan>), Vec<Refusal>> {
    let mut tensors: Vec<TensorPlan> = model.tensors.iter().map(|t| untouched(model, t)).collect();
    let mut stages = Vec::new();
    for (index, spec) in recipe.stages.iter().enumerate() {
        let stage = plan_stage(index, spec, recipe, (model, datasets), &mut tensors)?;
        stages.push(stage);
    }
    for tensor in &mut tensors {
        own_type_at_the_end(tensor, &stages);
    }
    Ok((stages, tensors))
}

fn known_datasets(recipe: &Recipe, datasets: &Datasets) -> Result<(), Vec<Refusal>> {
    let unknown = |(name, pointer): (&str, String)| {
        let detail = format!(
            "no dataset is called {name:?}; there are {}",
            datasets.names().join(", ")
        );
        datasets
            .get(name)
            .is_none()
            .then(|| Refusal::new(pointer, "unknown_dataset", detail))
    };
    let refusals: Vec<Refusal> = named_datasets(recipe).into_iter().filter_map(unknown).collect();
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

pub(crate) fn untouched(model: &Checkpoint, tensor: &TensorInfo) -> TensorPlan {
    let place = model.place(tensor);
    TensorPlan {
        name: tensor.name.clone(),
        role: place.role,
        layer: place.layer,
        shape: tensor.shape.clone(),
        source_dtype: tensor.dtype,
        source_bytes: tensor.bytes,
        steps: Vec::new(),
        kind: Kind::Dense { dtype: tensor.dtype },
        cache: None,
    }
}

/// Stages that work block by block or turn weights hand plain ones on as f32, so that no stage after them sees them
/// rounded; where none changes them further, they end in the model's own type.
fn own_type_at_the_end(tensor: &mut TensorPlan, stages: &[StagePlan]) {
    let Some(last) = tensor.steps.last() else { return };
    let technique = techniques::find(&stages[last.stage].technique);
    let by_blocks = technique.is_some_and(|t| matches!(t.work(), Work::Blocks(_)));
    if (by_blocks || last.rotation.is_some()) && !last.kind.is_compressed() {
        tensor.kind = Kind::Dense {
            dtype: tensor.source_dtype,
        };
    }
}

fn warnings(tensors: &[TensorPlan]) -> Vec<String> {
    let mut warnings = Vec::new();
    let fallback = tensors
        .iter()
        .filter(|t| matches!(t.kind, Kind::Block { ggml_type: _ }))
        .count();
    let odd = tensors
        .iter()
        .filter(|t| {
            matches!(t.kind, Kind::Block { ggml_type } if ggml_type.block_size() == 32) && t.cols() % 256 != 0
        })
        .count();
    if fallback > 0 && odd * 2 > fallback {
        warnings.push(format!(
            "{odd} of {fallback} matrices have rows that are no multiple of 256: k-quants fall back to types with blocks of 32"
        ));
    }
    let is_filled = |t: &&TensorPlan| {
        let had = |step: &Step| step.sparsity.is_some();
        t.steps.iter().any(had) && !t.steps.last().is_some_and(had)
    };
    let filled = tensors.iter().filter(is_filled).count();
    if filled > 0 {
        warnings.push(format!(
            "{filled} pruned matrices are quantized to types that have no exact zero in every block: their zeros become small \
             numbers"
        ));
    }
    if tensors
        .iter()
        .any(|t| t.kind.is_compressed() && matches!(t.source_dtype, DType::Ggml(_)))
    {
        warnings.push("the source is already quantized: quantizing it again adds to its error".into());
    }
    warnings
}
