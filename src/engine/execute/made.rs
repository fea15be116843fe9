//! The weights as stages make them.
//!
//! Owns: running a tensor's steps, in whole or up to a stage. Must not know: which techniques there are.
//! Invariant: a tensor that is made twice is the same both times, so nothing is kept that can be made again quickly;
//! what a calibrated stage made lies on the shelf.

use super::shelf::Shelf;
use super::survey::surveys;
use super::tensors::Guarded;
use crate::calibrate::Source;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernels::tokens;
use crate::network::{InputRounding, Weights, read_all};
use crate::observe::Observer;
use crate::plan::{CacheDtype, Plan, Step, TensorPlan};
use crate::techniques::{self, Factors, Task, Work};
use crate::tensor::{Rows, SourceRows, encode_rows};
use crate::weight::{Activations, Dense, InputSquares, Kind, Scale, Sparsity, Weight};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A plan, its model, and what was made so far.
pub(super) struct Made<'a> {
    pub plan: &'a Plan,
    pub model: &'a Checkpoint,
    pub shelf: Shelf,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Made<'a> {
    pub(super) fn new(plan: &'a Plan, model: &'a Checkpoint, scratch: &Path) -> Self {
        Self {
            plan,
            model,
            shelf: Shelf::at(scratch),
            by_name: plan
                .tensors
                .iter()
                .enumerate()
                .map(|(i, t)| (t.name.as_str(), i))
                .collect(),
        }
    }

    /// A tensor after every stage before `until`.
    pub(super) fn weight(&self, index: usize, until: usize, observer: &dyn Observer) -> Result<Weight> {
        let tensor = &self.plan.tensors[index];
        let raw = self.model.rows(&self.model.tensors[index])?;
        let guarded = Guarded {
            inner: &raw,
            observer,
        };
        let mut weight: Option<Weight> = None;
        for step in tensor.steps.iter().filter(|s| s.stage < until) {
            let stage = &self.plan.stages[step.stage];
            let technique = techniques::find(&stage.technique).ok_or_else(|| {
                Error::unsupported(
                    "unknown_technique",
                    format!("no technique {:?} in this version", stage.technique),
                )
            })?;
            weight = Some(match (technique.work(), step.kind) {
                (Work::Blocks(_) | Work::Reshapes(_), _) => self.shelf.get(step.stage, index)?,
                // What it found lies beside the weight, which stays.
                (Work::Scales(_), _) => match weight {
                    Some(weight) => weight,
                    None => passed(tensor, &raw)?,
                },
                // Already what it shall be: the bytes pass through unchanged.
                (_, Kind::Dense { dtype })
                    if weight.is_none()
                        && dtype == tensor.source_dtype
                        && step.rotation.is_none()
                        && step.sparsity.is_none() =>
                {
                    passed(tensor, &raw)?
                }
                (Work::Each(work), _) => {
                    let rows: &dyn Rows = match &weight {
                        Some(weight) => weight.as_rows(),
                        None => &guarded,
                    };
                    let share = self.share(index, step)?;
                    self.with_task(index, step.stage, share, observer, &|task| work.run(task, rows))?
                }
            });
        }
        match (weight, tensor.kind) {
            // What was kept in f32 for stages that did not follow.
            (Some(Weight::Dense(dense)), Kind::Dense { dtype })
                if until == usize::MAX && dense.dtype != dtype =>
            {
                Ok(Weight::Dense(Dense {
                    bytes: encode_rows(&dense, dtype)?,
                    dtype,
                    ..dense
                }))
            }
            (Some(weight), _) => Ok(weight),
            (None, _) => passed(tensor, &raw),
        }
    }

    /// The share of a tensor that a step makes zeros of, where only a look at all of them could tell.
    fn share(&self, index: usize, step: &Step) -> Result<Option<f64>> {
        let is_open = step.sparsity.is_some_and(|s| s.share.is_none());
        let looked = surveys(&self.plan.stages[step.stage]).is_some();
        if is_open && looked {
            self.shelf.share(step.stage, index).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Does something with the task that a stage's step is for a tensor.
    pub(super) fn with_task<T>(
        &self,
        index: usize,
        at: usize,
        share: Option<f64>,
        observer: &dyn Observer,
        run: &dyn Fn(&Task<'_>) -> Result<T>,
    ) -> Result<T> {
        let (tensor, stage) = (&self.plan.tensors[index], &self.plan.stages[at]);
        let step = tensor.steps.iter().find(|s| s.stage == at);
        let step = step.ok_or_else(|| Error::internal("a task without a step"))?;
        let known = stage.importance().is_some_and(|known| known.knows(index));
        let diagonal = (known && stage.knows_each())
            .then(|| self.shelf.diagonal(at, index))
            .transpose()?;
        let columns = (known && !stage.knows_each())
            .then(|| self.shelf.squares(at, index))
            .transpose()?;
        let columns = columns.map(|squares| squares.means());
        run(&Task {
            stage,
            tensor,
            kind: step.kind,
            importance: columns.as_deref(),
            diagonal: diagonal.as_deref(),
            sparsity: step.sparsity.map(|s| Sparsity {
                share: s.share.or(share),
                ..s
            }),
            rotation: step.rotation.as_ref(),
            seed: self.plan.recipe.seed,
            stop: &|| observer.should_stop(),
            other: &|name| read_all(self.weight(self.index(name)?, at, observer)?.as_rows()),
        })
    }

    /// What the last stage that asked for it knows of a tensor's inputs.
    pub(super) fn squares(&self, index: usize) -> Result<InputSquares> {
        let stage = self.plan.stages.iter().rposition(|s| s.needs.is_some());
        let stage = stage.ok_or_else(|| Error::internal("no stage knows of inputs"))?;
        self.shelf.squares(stage, index)
    }

    /// A number that the last stage that looked for it found beside a tensor.
    pub(super) fn scale(&self, index: usize, which: Scale) -> Result<f32> {
        let stage = self.scaling_stage(index, which, usize::MAX);
        let stage = stage.ok_or_else(|| Error::internal("no stage looked for this scale"))?;
        self.shelf.scale(stage, index, which)
    }

    /// The last stage before `until` that found such a number.
    fn scaling_stage(&self, index: usize, which: Scale, until: usize) -> Option<usize> {
        let tensor = &self.plan.tensors[index];
        match which {
            Scale::Cache => tensor
                .cache
                .map(|cache| cache.stage)
                .filter(|stage| *stage < until),
            Scale::Input => {
                let is_static = |step: &&Step| step.kind.activations() == Activations::StaticTensor;
                let mut steps = tensor.steps.iter().filter(|step| step.stage < until);
                steps.rfind(is_static).map(|step| step.stage)
            }
        }
    }

    /// What a tensor is measured against: the source as stages turned and scaled it.
    pub(super) fn reference<'b>(
        &self,
        index: usize,
        source: &'b dyn Rows,
        observer: &dyn Observer,
    ) -> Result<Reference<'b>> {
        let tensor = &self.plan.tensors[index];
        let turned = tensor.last_rotation();
        let base = match turned {
            Some(stage) => Base::Turned(self.weight(index, stage + 1, observer)?),
            None => Base::Source(source),
        };
        let mut scaled = Vec::new();
        for step in tensor.steps.iter().filter(|step| Some(step.stage) > turned) {
            scaled.extend(self.shelf.factors(step.stage, index)?);
        }
        Ok(Reference { base, scaled })
    }

    pub(super) fn index(&self, name: &str) -> Result<usize> {
        let index = self.by_name.get(name).copied();
        index.ok_or_else(|| Error::internal(format!("the model has no tensor {name}")))
    }

    /// The model as it is before a stage; `usize::MAX` is after all of them.
    pub(super) fn before<'b>(&'b self, until: usize, observer: &'b dyn Observer) -> AsOf<'b> {
        AsOf {
            made: self,
            until,
            observer,
        }
    }
}

/// Values that scales are applied to.
enum Base<'a> {
    Source(&'a dyn Rows),
    Turned(Weight),
}

/// A tensor of the source, turned and scaled without a change of what the model computes.
pub(super) struct Reference<'a> {
    base: Base<'a>,
    scaled: Vec<Factors>,
}

impl Reference<'_> {
    fn base(&self) -> &dyn Rows {
        match &self.base {
            Base::Source(rows) => *rows,
            Base::Turned(weight) => weight.as_rows(),
        }
    }
}

impl Rows for Reference<'_> {
    fn rows(&self) -> usize {
        self.base().rows()
    }

    fn cols(&self) -> usize {
        self.base().cols()
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        self.base().read(first_row, out)?;
        for factors in &self.scaled {
            factors.apply(first_row, self.cols(), out);
        }
        Ok(())
    }
}

fn passed(tensor: &TensorPlan, raw: &SourceRows<'_>) -> Result<Weight> {
    let mut bytes = vec![0; tensor.source_bytes as usize];
    raw.read_bytes(0, &mut bytes)?;
    Ok(Weight::Dense(Dense {
        rows: tensor.rows(),
        cols: tensor.cols(),
        dtype: tensor.source_dtype,
        bytes,
    }))
}

/// A model at some point of its way through the stages.
pub(super) struct AsOf<'a> {
    made: &'a Made<'a>,
    until: usize,
    observer: &'a dyn Observer,
}

impl AsOf<'_> {
    /// What the engine that serves a layer of this kind does to its inputs.
    fn rounding(&self, index: usize, kind: Kind) -> Result<Option<InputRounding>> {
        let is_float = matches!(kind, Kind::Float8 { .. });
        Ok(match kind.activations() {
            Activations::None => None,
            Activations::DynamicToken if is_float => Some(Arc::new(tokens::round_float8)),
            Activations::DynamicToken => Some(Arc::new(tokens::round_int8)),
            Activations::StaticTensor => {
                let stage = self.made.scaling_stage(index, Scale::Input, self.until);
                let stage = stage.ok_or_else(|| Error::internal("no stage looked for this scale"))?;
                let scale = self.made.shelf.scale(stage, index, Scale::Input)?;
                Some(if is_float {
                    static_float8(scale)
                } else {
                    static_int8(scale)
                })
            }
        })
    }
}

fn static_int8(scale: f32) -> InputRounding {
    Arc::new(move |values: &mut [f32], _cols| tokens::round_int8_by(values, scale))
}

fn static_float8(scale: f32) -> InputRounding {
    Arc::new(move |values: &mut [f32], _cols| tokens::round_float8_by(values, scale))
}

/// What the engine does to keys or values before it keeps them.
fn cached(dtype: CacheDtype, scale: f32) -> InputRounding {
    match dtype {
        CacheDtype::Fp8 => static_float8(scale),
        CacheDtype::Int8 => static_int8(scale),
    }
}

impl Source for AsOf<'_> {
    fn load(&self, name: &str, transposed: bool, weights: &mut Weights) -> Result<()> {
        let index = self.made.index(name)?;
        let tensor = &self.made.plan.tensors[index];
        if let Some(cache) = tensor.cache.filter(|cache| cache.stage < self.until) {
            let scale = self.made.shelf.scale(cache.stage, index, Scale::Cache)?;
            weights.cache(name, cached(cache.dtype, scale));
        }
        let steps = || tensor.steps.iter().filter(|s| s.stage < self.until);
        if steps().next().is_none() {
            let rows = self.made.model.rows(&self.made.model.tensors[index])?;
            return put(weights, name, transposed, &rows, &tensor.shape, None);
        }
        let weight = self.made.weight(index, self.until, self.observer)?;
        let rounding = match steps().next_back() {
            Some(step) => self.rounding(index, step.kind)?,
            None => None,
        };
        put(
            weights,
            name,
            transposed,
            weight.as_rows(),
            &tensor.shape,
            rounding,
        )
    }
}

fn put(
    weights: &mut Weights,
    name: &str,
    transposed: bool,
    rows: &dyn Rows,
    shape: &[usize],
    rounding: Option<InputRounding>,
) -> Result<()> {
    if transposed {
        weights.load_transposed(name, rows, rounding)
    } else {
        weights.load(name, rows, shape, rounding)
    }
}
