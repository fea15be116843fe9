//! What the techniques that cut structures out of a model share.
//!
//! Owns: outlines of smaller models, and choosing which items of a layer's inputs stay. Must not know: what items are.
//! Invariant: as many items stay in every block, since a config.json has one number for all.

use super::hessians::{Hessians, Seen};
use super::options::{self, Options, Planned};
use super::{BlockStage, Maker, folding};
use crate::calibrate::{Here, Visitor};
use crate::error::Result;
use crate::kernels::gptq::{ActOrder, Curvature};
use crate::kernels::prune::columns::{column_squares, inverse_diagonal, keep_columns};
use crate::models::structure::Part;
use crate::network::{Cut, State, with_values};
use crate::observe::Level;
use crate::plan::{Context, Origin, Outline, OutlinedTensor, Taken, TensorPlan, Which};
use crate::recipe::Refusal;
use crate::tensor::DType;
use crate::weight::Weight;
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Parts of a model's tensors.
pub(super) fn parts(tensors: &[TensorPlan]) -> Vec<Part<'_>> {
    let mut all = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        all.push(Part {
            name: &tensor.name,
            role: tensor.role,
            layer: tensor.layer,
            shape: &tensor.shape,
        });
    }
    all
}

/// How items are ranked.
pub(super) fn importances() -> Value {
    json!({"type": "string", "enum": ["obs", "activation", "magnitude", "taylor"], "default": "obs", "examples": ["obs"],
        "description": "What an item is worth: the error of the layer's output without it, once the others make up for it (obs); the size of what it adds to that output (activation); of its weights (magnitude); or the loss' change by its weights to second order, from gradients (taylor)."})
}

/// A schema of a technique's own options and those of the fit.
pub(super) fn schema(mut own: Value) -> Value {
    for (name, property) in fitting() {
        own[name] = property;
    }
    json!({"type": "object", "additionalProperties": false, "properties": own})
}

/// Damping, and whether the rest is fitted.
pub(super) fn fitting() -> [(&'static str, Value); 2] {
    [
        (
            "damp_percent",
            json!({"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.01, "examples": [0.01],
                "description": "Part of the Hessian's mean diagonal that is added to it; raised tenfold, up to five times, where that is not enough."}),
        ),
        (
            "refit",
            json!({"type": "boolean", "default": true, "examples": [true],
                "description": "Fit the weights that read what stays to the layer's outputs as they were, by least squares."}),
        ),
    ]
}

/// The configuration of a model whose structure can change.
pub(super) fn config<'a>(context: &'a Context<'_>) -> Planned<&'a Value> {
    context.config().ok_or_else(|| {
        let detail = "structures are cut out of Hugging Face checkpoints: the model has no config.json that says what \
                      it has";
        vec![Refusal::new(context.technique_pointer(), "needs_config_json", detail)]
    })
}

/// Refuses what cannot be cut: weights that an earlier stage has quantized, and types that are no plain floats.
pub(super) fn check_plain<'a>(context: &Context<'_>, names: impl Iterator<Item = &'a str>) -> Planned<()> {
    let by_name: HashMap<&str, usize> = context
        .tensors
        .iter()
        .enumerate()
        .map(|(i, t)| (t.name.as_str(), i))
        .collect();
    let refusals: Vec<Refusal> = names
        .filter_map(|name| folding::unfit(context, *by_name.get(name)?, "cut"))
        .collect();
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

/// A tensor that goes over as it is.
pub(super) fn whole(tensor: &TensorPlan) -> OutlinedTensor {
    OutlinedTensor {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        dtype: stored(tensor),
        origin: Origin::Tensor {
            which: Which::Named(tensor.name.clone()),
            rows: Taken::All,
            cols: Taken::All,
        },
    }
}

/// As what it is stored: its own type where that is a plain float.
fn stored(tensor: &TensorPlan) -> DType {
    match tensor.source_dtype {
        dtype @ (DType::F32 | DType::F16 | DType::BF16) => dtype,
        dtype if dtype.is_float() => DType::F32,
        dtype => dtype,
    }
}

/// A list's items: how many there are, how many stay, rows or columns of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Items {
    pub list: String,
    pub count: usize,
    pub keep: usize,
    pub each: usize,
}

impl Items {
    fn taken(&self, each: usize) -> Taken {
        Taken::Listed {
            list: self.list.clone(),
            each,
        }
    }
}

/// Which axis of a tensor has a list's items, each so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// What the layer writes.
    Outputs(usize),
    /// What it reads.
    Inputs(usize),
}

/// A tensor without the items that go; `transposed` where it is stored as `[in, out]`. A vector has outputs only.
pub(super) fn cut(tensor: &TensorPlan, items: &Items, axis: Axis, transposed: bool) -> OutlinedTensor {
    let mut outlined = whole(tensor);
    let is_vector = tensor.shape.len() == 1;
    let (each, on_rows) = match axis {
        Axis::Outputs(each) => (each, !transposed && !is_vector),
        Axis::Inputs(each) => (each, transposed),
    };
    let length = items.keep * each;
    if let Origin::Tensor { rows, cols, .. } = &mut outlined.origin {
        if on_rows {
            *rows = items.taken(each);
            outlined.shape[0] = length;
        } else {
            *cols = items.taken(each);
            if let Some(last) = outlined.shape.last_mut() {
                *last = length;
            }
        }
    }
    outlined
}

/// The outline of a model whose tensors are cut as `cuts` says; all others go over as they are.
pub(super) fn outline(
    context: &Context<'_>,
    config: Value,
    cuts: &HashMap<String, (Items, Axis)>,
) -> Outline {
    let of = |tensor: &TensorPlan| match cuts.get(&tensor.name) {
        Some((items, axis)) => cut(tensor, items, *axis, context.transposed.contains(&tensor.name)),
        None => whole(tensor),
    };
    Outline {
        config,
        tensors: context.tensors.iter().map(of).collect(),
        shared: None,
    }
}

/// How many items stay of so many, by the options `keep` (exactly) or `ratio` (share that goes), in steps of `step`.
pub(super) fn kept(
    context: &Context<'_>,
    options: &Options<'_>,
    count: usize,
    step: usize,
) -> Planned<usize> {
    let exact = context.spec.options.get("keep").and_then(Value::as_u64);
    let keep = if let Some(keep) = exact {
        usize::try_from(keep).unwrap_or(usize::MAX)
    } else {
        let left = count as f64 * (1.0 - options.real("ratio"));
        ((left / step as f64).round() as usize).max(1) * step
    };
    let option = if exact.is_some() { "keep" } else { "ratio" };
    if exact.is_some() && context.spec.options.get("ratio").is_some() {
        let detail = "give keep or ratio, not both".to_owned();
        return Err(vec![Refusal::new(
            options::pointer(context, "keep"),
            "conflicting_options",
            detail,
        )]);
    }
    if keep == 0 || keep >= count {
        let detail = format!("{keep} of {count} would stay: at least one stays, and at least one goes");
        return Err(vec![Refusal::new(
            options::pointer(context, option),
            "nothing_to_cut",
            detail,
        )]);
    }
    Ok(keep)
}

/// One layer whose inputs are cut.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Its items.
    pub items: Items,
    /// Weights whose outputs they are, each with outputs of an item.
    pub into: Vec<(String, usize)>,
}

/// How items are chosen.
#[derive(Clone, Debug)]
pub(super) struct How {
    pub importance: String,
    pub damp: f64,
    pub refit: bool,
}

impl How {
    pub(super) fn of(options: &Options<'_>) -> Self {
        Self {
            importance: options.text("importance").to_owned(),
            damp: options.real("damp_percent"),
            refit: options.flag("refit"),
        }
    }

    fn needs_hessian(&self) -> bool {
        self.refit || self.importance == "obs"
    }
}

/// Bytes that choosing takes beside a walk's own.
pub(super) fn working_bytes(how: &How, tensors: &[&TensorPlan]) -> u64 {
    let fits = how.needs_hessian();
    let one = tensors.iter().map(|t| {
        let inputs = t.cols().max(t.rows());
        let square = if fits { inputs * inputs * 40 } else { 0 };
        (square + t.elements() * 24) as u64
    });
    one.max().unwrap_or(0) + Hessians::bytes(tensors) + folding::block_bytes(tensors)
}

/// Goes through a model and chooses, layer by layer, behind the layers already cut.
pub(super) struct Chooser<'a> {
    stage: BlockStage<'a>,
    how: How,
    /// By the weight that reads the items.
    groups: HashMap<String, Group>,
    hessians: Hessians,
    made: Vec<(usize, Weight)>,
    lists: Vec<(String, Vec<u32>)>,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(stage: BlockStage<'a>, how: How, groups: HashMap<String, Group>) -> Self {
        let hessians = Hessians::new(how.needs_hessian());
        Self {
            stage,
            how,
            groups,
            hessians,
            made: Vec::new(),
            lists: Vec::new(),
        }
    }

    fn settle_layer(&mut self, name: &str, gram: &[f32], here: &mut Here<'_>) -> Result<()> {
        let Some((group, at)) = self.groups.get(name).cloned().zip(self.index(name)) else {
            return Ok(());
        };
        let observer = self.stage.observer;
        let stop = || observer.should_stop();
        let weight = here.weights.get(name)?;
        let shape = weight.dims().to_vec();
        let mut w = with_values(weight, <[f32]>::to_vec)?;
        let n = shape[1];
        let worth = self.worth(&group, &w, gram, here)?;
        let list = best(&worth, group.items.keep);
        let each = group.items.each;
        let columns: Vec<usize> = list
            .iter()
            .flat_map(|item| *item as usize * each..(*item as usize + 1) * each)
            .collect();
        let fitted = if self.how.refit {
            keep_columns(&w, gram, &columns, self.how.damp, &stop)?
        } else {
            None
        };
        if self.how.refit && fitted.is_none() {
            let message =
                format!("{name}: the Hessian cannot be factorized even when damped; nothing is fitted");
            observer.event(Level::Warning, &message, json!({"tensor": name}));
        }
        for (row, w) in w.chunks_mut(n).enumerate() {
            let old = w.to_vec();
            w.fill(0.0);
            for (to, column) in columns.iter().enumerate() {
                w[*column] = fitted
                    .as_ref()
                    .map_or(old[*column], |fitted| fitted[row * columns.len() + to]);
            }
        }
        let tensor = Tensor::from_vec(w, shape, &Device::Cpu)?;
        here.weights.replace(name, &tensor)?;
        let transposed = here.network.stored_transposed(name);
        self.made
            .push((at, folding::dense(&tensor, &self.stage.tensors[at], transposed)?));
        self.lists.push((group.items.list, list));
        Ok(())
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.stage.tensors.iter().position(|t| t.name == name)
    }

    /// What each item is worth.
    fn worth(&self, group: &Group, w: &[f32], gram: &[f32], here: &Here<'_>) -> Result<Vec<f64>> {
        let n = gram.len().isqrt();
        let squares = column_squares(w, n);
        let each = group.items.each;
        let by_column: Vec<f64> = match self.how.importance.as_str() {
            "obs" => {
                let stop = || self.stage.observer.should_stop();
                let curvature = Curvature::new(gram, n, self.how.damp, ActOrder::None, true, &stop)?;
                match curvature.factor() {
                    Some(factor) => {
                        let inverse = inverse_diagonal(factor, n);
                        squares.iter().zip(inverse).map(|(w, h)| w / h).collect()
                    }
                    None => squares
                        .iter()
                        .enumerate()
                        .map(|(i, w)| w * f64::from(gram[i * n + i]))
                        .collect(),
                }
            }
            "activation" => squares
                .iter()
                .enumerate()
                .map(|(i, w)| w * f64::from(gram[i * n + i]))
                .collect(),
            "taylor" => return self.by_gradients(group),
            _ => return Self::by_magnitude(group, &squares, here),
        };
        Ok(by_column.chunks(each).map(|item| item.iter().sum()).collect())
    }

    fn by_magnitude(group: &Group, squares: &[f64], here: &Here<'_>) -> Result<Vec<f64>> {
        let mut worth: Vec<f64> = squares
            .chunks(group.items.each)
            .map(|item| item.iter().sum())
            .collect();
        for (name, outputs) in &group.into {
            let weight = here.weights.get(name)?;
            let cols = weight.dim(1)?;
            with_values(weight, |w| {
                for (worth, rows) in worth.iter_mut().zip(w.chunks(outputs * cols)) {
                    *worth += rows.iter().map(|w| f64::from(*w) * f64::from(*w)).sum::<f64>();
                }
            })?;
        }
        Ok(worth)
    }

    /// Σ w² times the mean of g² over an item's weights in the layers that make it (Molchanov et al. 2019).
    fn by_gradients(&self, group: &Group) -> Result<Vec<f64>> {
        let mut worth = vec![0f64; group.items.count];
        for (name, outputs) in &group.into {
            let Some(at) = self.index(name) else { continue };
            let bends = (self.stage.diagonal)(at)?;
            let values = (self.stage.before)(at)?;
            let tensor = &self.stage.tensors[at];
            let (rows, cols) = (tensor.rows(), tensor.cols());
            let transposed = self.stage.transposed.contains(name);
            for (place, (w, g)) in values.iter().zip(&bends).enumerate() {
                let output = if transposed { place % cols } else { place / cols };
                debug_assert!(
                    output < if transposed { cols } else { rows },
                    "an output of the layer"
                );
                worth[output / outputs] += f64::from(*w) * f64::from(*w) * f64::from(*g);
            }
        }
        Ok(worth)
    }
}

/// Indices of the `keep` largest, ascending; of equals the first.
pub(super) fn best(worth: &[f64], keep: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..worth.len() as u32).collect();
    order.sort_by(|a, b| worth[*b as usize].total_cmp(&worth[*a as usize]).then(a.cmp(b)));
    order.truncate(keep);
    order.sort_unstable();
    order
}

/// Σ over states of 1 − cos of the angle between what goes into a block and what comes out, and how many there are.
pub(super) fn turned(before: &[f32], after: &[f32], hidden: usize) -> (f64, usize) {
    let hidden = hidden.max(1);
    let states = before.chunks_exact(hidden).zip(after.chunks_exact(hidden));
    states.fold((0.0, 0), |(sum, count), (a, b)| {
        (sum + 1.0 - cosine(a, b), count + 1)
    })
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0f64, 0f64, 0f64);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    let size = (aa * bb).sqrt();
    if size > 0.0 { ab / size } else { 1.0 }
}

impl Visitor for Chooser<'_> {
    fn replaces(&self) -> bool {
        true
    }

    fn see(&mut self, _at: usize, cut: &Cut, state: &State) -> Result<()> {
        let wanted = |name: &str| self.groups.contains_key(name);
        self.hessians.see_for(&wanted, cut, state)
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        let seen: Vec<(Seen, Vec<String>)> = {
            let wanted = |name: &str| self.groups.contains_key(name);
            self.hessians.take_for(&wanted, here.cut)
        };
        for (seen, readers) in seen {
            let gram = seen.into_finite_gram(&readers[0])?;
            for name in readers {
                self.settle_layer(&name, &gram, here)?;
            }
        }
        Ok(())
    }
}

impl Maker for Chooser<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }

    fn listed(&mut self) -> Vec<(String, Vec<u32>)> {
        std::mem::take(&mut self.lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_stay_in_order() {
        assert_eq!(best(&[1.0, 5.0, 3.0, 5.0], 2), [1, 3]);
        assert_eq!(best(&[2.0, 2.0, 2.0], 2), [0, 1]);
    }

    #[test]
    fn a_block_that_changes_only_sizes_turns_nothing() {
        let (sum, tokens) = turned(&[1.0, 0.0, 0.0, 2.0], &[2.0, 0.0, 0.0, 1.0], 2);
        assert!(sum.abs() < 1e-12 && tokens == 2);
        let (sum, tokens) = turned(&[1.0, 0.0], &[0.0, 1.0], 2);
        assert!((sum - 1.0).abs() < 1e-12 && tokens == 1);
    }
}
