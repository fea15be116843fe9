//! What each preset would make of a model: bytes, and where no data is needed, how near it comes to the bound.
//!
//! Owns: planning every preset, the error of what it makes on samples of the tensors.
//! Must not know: any technique, preset or format by name.
//! Invariant: bytes are those of the plan, exact; errors are estimates on the same rows for every preset.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::compute::Active;
use super::gaussian;
use super::sample::Sample;
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::error::{Class, Error, Result};
use crate::models::Role;
use crate::observe::Observer;
use crate::plan::{self, Plan, StagePlan, TensorPlan};
use crate::presets;
use crate::techniques::{self, Each, Task, Work};
use crate::tensor::{MemoryRows, Rows};
use crate::weight::{Activations, Kind, Weight};

/// A preset on this model. A scheme's point on the rate–distortion plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PresetOutlook {
    /// Its name.
    pub preset: String,
    /// The format that it writes.
    pub format: String,
    /// Bytes of all files, exact (`README.md`, `modelpress.json` and its signature come on top).
    pub bytes: u64,
    /// Bytes of the tensors in them.
    pub weight_bytes: u64,
    /// `8 · weight_bytes / parameters`.
    pub bits_per_weight: f64,
    /// Bytes of the model's tensors over `weight_bytes`.
    pub compression_ratio: f64,
    /// Upper bound of the memory that the job takes.
    pub peak_memory_bytes: u64,
    /// Floating-point operations a token, attention over what came before it not counted.
    #[serde(default)]
    pub flops_per_token: u64,
    /// Bytes of weights, with their scales, that one stream of tokens reads for each: what bounds its speed.
    #[serde(default)]
    pub bytes_per_token: u64,
    /// What matrices are multiplied in while the model answers.
    #[serde(default)]
    pub arithmetic: Arithmetic,
    /// Whether it runs the model over calibration data: then nothing is said of its error here.
    pub calibrated: bool,
    /// Power of all weights over the mean square error of what they become, decibels, estimated on 65,536 of each tensor.
    /// None where nothing is lost, and where it cannot be told.
    pub snr_db: Option<f64>,
    /// What a Gaussian source of the tensors' variances allows at this rate: no code does better on it.
    pub bound_db: Option<f64>,
    /// `bound_db − snr_db`.
    pub gap_db: Option<f64>,
}

/// What an engine multiplies in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Weights are turned back into 16-bit floats.
    #[default]
    Float16,
    /// 8-bit integers, inputs quantized on the way: about twice the operations a second of 16-bit floats where there are
    /// units for it.
    Int8,
    /// 8-bit floats, likewise.
    Float8,
}

impl Arithmetic {
    /// Of most of a plan's linear weights.
    fn of(plan: &Plan) -> Self {
        let linear = || plan.tensors.iter().filter(|tensor| tensor.role.is_linear());
        let all: usize = linear().map(TensorPlan::elements).sum();
        let quantized = linear().filter(|tensor| tensor.kind.activations() != Activations::None);
        let (mut int8, mut float8) = (0, 0);
        for tensor in quantized {
            match tensor.kind {
                Kind::Float8 { .. } => float8 += tensor.elements(),
                _ => int8 += tensor.elements(),
            }
        }
        if 2 * int8 > all {
            Self::Int8
        } else if 2 * float8 > all {
            Self::Float8
        } else {
            Self::Float16
        }
    }
}

/// A preset that this model cannot have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresetRefusal {
    /// Its name.
    pub preset: String,
    /// Stable code of the first reason.
    pub code: String,
    /// The first reason, in one sentence.
    pub detail: String,
}

/// Every preset, in the order of the catalogue: those that the model can have, and those that it cannot.
pub(super) fn all(
    model: &Checkpoint,
    sources: &[(u64, f64)],
    observer: &dyn Observer,
) -> Result<(Vec<PresetOutlook>, Vec<PresetRefusal>)> {
    let names = presets::names();
    // As much again as the walk over the tensors: progress is counted in bytes.
    let bytes: u64 = model.tensor_bytes();
    let told =
        |done: usize, name: &str| observer.advanced(bytes * done as u64 / names.len() as u64, bytes, name);
    let active = Active::of(model);
    let (mut outlooks, mut refused) = (Vec::new(), Vec::new());
    for (done, name) in names.iter().enumerate() {
        super::go_on(observer)?;
        told(done, name);
        let Some(recipe) = presets::find(name) else {
            continue;
        };
        match plan::plan(&recipe, model, &Datasets::new()) {
            Ok(plan) => outlooks.extend(outlook(name, &plan, &active, sources, observer)?),
            Err(reasons) => refused.extend(reasons.into_iter().next().map(|reason| PresetRefusal {
                preset: (*name).to_owned(),
                code: reason.code.to_owned(),
                detail: reason.detail,
            })),
        }
    }
    told(names.len(), "");
    Ok((outlooks, refused))
}

/// None if the preset writes nothing.
fn outlook(
    name: &str,
    plan: &Plan,
    active: &Active<'_>,
    sources: &[(u64, f64)],
    observer: &dyn Observer,
) -> Result<Option<PresetOutlook>> {
    let Some(format) = plan.formats.first() else {
        return Ok(None);
    };
    let work = work_of(&plan.stages);
    let sums = match &work {
        Some(work) => distortion(plan, work, active.model, observer)?,
        None => None,
    };
    let snr_db = sums
        .filter(|sums| sums.power > 0.0 && sums.error > 0.0)
        .map(|sums| 10.0 * (sums.power / sums.error).log10());
    let bound = gaussian::curve(sources, &[format.bits_per_weight]);
    let cost = cost(plan, active);
    let bound_db = bound.first().map(|point| point.snr_db);
    Ok(Some(PresetOutlook {
        preset: name.to_owned(),
        format: format.format.clone(),
        bytes: format.bytes,
        weight_bytes: format.weight_bytes,
        bits_per_weight: format.bits_per_weight,
        compression_ratio: format.compression_ratio,
        peak_memory_bytes: plan.peak_memory_bytes,
        flops_per_token: cost.flops,
        bytes_per_token: cost.bytes,
        arithmetic: Arithmetic::of(plan),
        calibrated: work.is_none(),
        snr_db,
        bound_db,
        gap_db: snr_db.zip(bound_db).map(|(snr, bound)| bound - snr),
    }))
}

/// Of a token.
struct Cost {
    flops: u64,
    bytes: u64,
}

fn cost(plan: &Plan, active: &Active<'_>) -> Cost {
    let untied = plan.tensors.iter().any(|tensor| tensor.role == Role::Output);
    let mut cost = Cost { flops: 0, bytes: 0 };
    for tensor in &plan.tensors {
        let share = active.share(&tensor.name, tensor.role, untied);
        cost.flops += 2 * (tensor.elements() as f64 * share) as u64;
        cost.bytes += (tensor.kind.payload_bytes(tensor.rows(), tensor.cols()) as f64 * share) as u64;
    }
    cost
}

/// The work of every stage, if none needs data.
fn work_of(stages: &[StagePlan]) -> Option<Vec<&'static dyn Each>> {
    let each = |stage: &StagePlan| match techniques::find(&stage.technique)?.work() {
        Work::Each(each) if stage.needs.is_none() && stage.importance().is_none() => Some(each),
        _ => None,
    };
    stages.iter().map(each).collect()
}

#[derive(Clone, Copy, Default)]
struct Sums {
    power: f64,
    error: f64,
}

/// Sums over all weights, from samples; none if the numbers do not allow the preset, which its job would say.
fn distortion(
    plan: &Plan,
    work: &[&'static dyn Each],
    model: &Checkpoint,
    observer: &dyn Observer,
) -> Result<Option<Sums>> {
    let of = |(index, tensor): (usize, &TensorPlan)| -> Result<Sums> {
        super::go_on(observer)?;
        let info = &model.tensors[index];
        if !info.dtype.is_float() {
            return Ok(Sums::default());
        }
        let sample = Sample::of(model, info)?;
        let scale = tensor.elements() as f64 / sample.values.len().max(1) as f64;
        let sums = lost(plan, work, tensor, &sample)?;
        Ok(Sums {
            power: scale * sums.power,
            error: scale * sums.error,
        })
    };
    // Tensors side by side: their samples are too small to be worth several threads each.
    let parts: Result<Vec<Sums>> = plan.tensors.par_iter().enumerate().map(of).collect();
    match parts {
        Ok(parts) => Ok(Some(parts.into_iter().fold(Sums::default(), |sum, part| Sums {
            power: sum.power + part.power,
            error: sum.error + part.error,
        }))),
        Err(error) if error.class == Class::Numeric => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a sample through the stages of its tensor.
fn lost(plan: &Plan, work: &[&'static dyn Each], tensor: &TensorPlan, sample: &Sample) -> Result<Sums> {
    let values = &sample.values;
    let mut small = tensor.clone();
    if small.shape.len() > 1 {
        small.shape = vec![values.len() / sample.cols.max(1), sample.cols];
    }
    let none = |name: &str| {
        Err(Error::internal(format!(
            "a sample has no tensor {name} beside it"
        )))
    };
    let source = MemoryRows {
        values,
        cols: sample.cols,
    };
    let mut weight: Option<Weight> = None;
    for step in &tensor.steps {
        let task = Task {
            stage: &plan.stages[step.stage],
            tensor: &small,
            kind: step.kind,
            importance: None,
            diagonal: None,
            seed: 0,
            stop: &|| false,
            sparsity: None,
            rotation: step.rotation.as_ref(),
            other: &none,
        };
        let input: &dyn Rows = weight.as_ref().map_or(&source, |weight| weight.as_rows());
        weight = Some(work[step.stage].run(&task, input)?);
    }
    let mut back = values.clone();
    if let Some(weight) = &weight {
        weight.as_rows().read(0, &mut back)?;
    }
    let square = |sum: f64, v: f32| sum + f64::from(v) * f64::from(v);
    Ok(Sums {
        power: values.iter().copied().fold(0.0, square),
        error: values.iter().zip(&back).map(|(v, b)| v - b).fold(0.0, square),
    })
}
