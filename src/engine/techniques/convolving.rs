//! What the techniques that take convolutions apart share.
//!
//! Owns: which kernels they can work on, ranks by their options. Must not know: how layers are found.
//! Invariant: the layers of a kernel are smaller than it, or it is left alone, or that is refused.

use super::options::{self, Options, Planned};
use super::{Decision, Task};
use crate::error::{Error, Result};
use crate::kernels::factor::kernel::{Chain, Kernel};
use crate::network::read_all;
use crate::plan::{Context, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::{DType, Rows};
use crate::weight::{Convolutions, Form, Kind, Layer, Weight};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Option with which single modules get other ranks than the stage's.
const OWN: &str = "tensor_rank";
/// Most ranks that a method has.
const MOST: usize = 3;
/// Largest rank that can be asked.
const LARGEST: usize = 65_536;

/// Ranks in the order of a method's options; what it has not is 0.
type Ranks = [usize; MOST];

/// A way of taking kernels apart, as far as planning must know it.
pub(super) struct Method {
    /// Its ranks: the option's name, what it says, an example.
    pub ranks: &'static [(&'static str, &'static str, usize)],
    /// True where it takes a 1×1 kernel apart too.
    pub pointwise: bool,
    /// The form for a share of the parameters.
    pub by_ratio: fn([usize; 4], f64) -> Form,
    /// The form that these ranks give, none above what a kernel can have.
    pub by_ranks: fn([usize; 4], &[usize]) -> Form,
}

impl Method {
    /// The schema of its options.
    pub(super) fn schema(&self) -> Value {
        let mut properties = json!({"ratio": {"type": "number", "minimum": 0.001, "maximum": 0.999, "default": 0.5,
            "examples": [0.5], "description": "Share of a kernel's parameters that its layers have at most; the smallest ranks \
            may have more."}});
        for (name, says, example) in self.ranks {
            properties[*name] = json!({"type": "integer", "minimum": 1, "maximum": LARGEST, "examples": [example],
                "description": format!("{says}, in every kernel, instead of a ratio.")});
        }
        let (one, key) = match self.ranks {
            [_] => ("number", "16"),
            [_, _] => ("pair of numbers, joined by a comma,", "16,24"),
            _ => ("three numbers, joined by commas,", "16,24,32"),
        };
        let names: Vec<&str> = self.ranks.iter().map(|(name, ..)| *name).collect();
        let description = format!(
            "Other values of {} for single modules: for each {one} a list of module names or of re: and a regular expression, as in \
             targets.",
            names.join(", ")
        );
        properties[OWN] = json!({"type": "object", "default": {}, "examples": [{key: ["re:.*layer4.*"]}],
            "description": description});
        json!({"type": "object", "additionalProperties": false, "properties": properties})
    }

    /// What becomes of the targeted kernels.
    pub(super) fn decide(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let common = self.common(context, &options)?;
        let own = self.own(context, &options)?;
        let kernels = self.kernels(context)?;
        let mut decision = Decision::default();
        let mut whole = None;
        for (index, tensor, shape) in &kernels {
            let (form, option) = match (own.get(index), common) {
                (Some(ranks), _) => (self.form(*shape, *ranks), OWN),
                (None, Some(ranks)) => (self.form(*shape, ranks), self.ranks[0].0),
                (None, None) => ((self.by_ratio)(*shape, options.real("ratio")), "ratio"),
            };
            let elements = tensor.elements();
            if form.parameters(*shape) < elements {
                decision.kinds.push((*index, kind(tensor, *shape, form)));
                continue;
            }
            let detail = format!(
                "{} makes {} no smaller: its layers have {} weights for {elements}",
                form.label(),
                tensor.name,
                form.parameters(*shape)
            );
            let refusal = Refusal::new(options::pointer(context, option), "rank_too_large", detail);
            if option != "ratio" || is_named(context, tensor) {
                return Err(vec![refusal]);
            }
            whole = Some(refusal);
        }
        match (decision.kinds.is_empty(), whole) {
            (true, Some(refusal)) => Err(vec![refusal]),
            _ => Ok(decision),
        }
    }

    fn form(&self, shape: [usize; 4], ranks: Ranks) -> Form {
        (self.by_ranks)(shape, &ranks[..self.ranks.len().min(MOST)])
    }

    /// Ranks that the stage gives every kernel.
    fn common(&self, context: &Context<'_>, options: &Options<'_>) -> Planned<Option<Ranks>> {
        let given = |name: &str| context.spec.options.get(name).is_some();
        let there = self.ranks.iter().find(|(name, ..)| given(name));
        let Some((first, ..)) = there else {
            return Ok(None);
        };
        let refuse = |option: &str, code: &'static str, detail: String| {
            Err(vec![Refusal::new(
                options::pointer(context, option),
                code,
                detail,
            )])
        };
        if given("ratio") {
            let detail = format!("give {first} or ratio, not both");
            return refuse(first, "conflicting_options", detail);
        }
        if let Some((missing, ..)) = self.ranks.iter().find(|(name, ..)| !given(name)) {
            let detail = format!("{first} is given without {missing}: give both, or a ratio");
            return refuse(missing, "missing_option", detail);
        }
        let mut ranks = [0; MOST];
        for (to, (name, ..)) in ranks.iter_mut().zip(self.ranks) {
            *to = options.number(name);
        }
        Ok(Some(ranks))
    }

    /// Ranks of single modules, by the tensor's index.
    fn own(&self, context: &Context<'_>, options: &Options<'_>) -> Planned<HashMap<usize, Ranks>> {
        let read = |words: &str| -> Option<Ranks> {
            let mut ranks = [0; MOST];
            let given: Vec<&str> = words.split(',').collect();
            if given.len() != self.ranks.len() {
                return None;
            }
            for (to, word) in ranks.iter_mut().zip(given) {
                *to = word
                    .trim()
                    .parse()
                    .ok()
                    .filter(|rank| (1..=LARGEST).contains(rank))?;
            }
            Some(ranks)
        };
        let known = match self.ranks.len() {
            1 => "whole numbers from 1".to_owned(),
            count => format!("{count} whole numbers from 1, joined by commas"),
        };
        options::by_module(context, options, OWN, &read, &known)
    }

    /// Targeted kernels of plain floats that it can take apart; what a recipe names outright and it cannot is refused.
    fn kernels<'a>(&self, context: &'a Context<'_>) -> Planned<Vec<(usize, &'a TensorPlan, [usize; 4])>> {
        let pointer = format!("{}/targets", context.pointer);
        let targeted = context.tensors.iter().enumerate().zip(context.targeted);
        let (mut fit, mut left) = (Vec::new(), None);
        for ((index, tensor), _) in targeted.filter(|(_, targeted)| **targeted) {
            let found = self.shape_of(context, tensor);
            if tensor.kind.is_compressed() && tensor.shape.len() == 4 {
                let detail = format!(
                    "{} is already {}: two stages compress it",
                    tensor.name,
                    tensor.kind.label()
                );
                return Err(vec![Refusal::new(pointer, "already_quantized", detail)]);
            }
            match found {
                Ok(shape) => fit.push((index, tensor, shape)),
                Err(why) => {
                    let refusal = Refusal::new(
                        pointer.clone(),
                        "not_a_kernel",
                        format!("{} cannot be taken apart: {why}", tensor.name),
                    );
                    if is_named(context, tensor) {
                        return Err(vec![refusal]);
                    }
                    left = Some(refusal);
                }
            }
        }
        if !fit.is_empty() {
            return Ok(fit);
        }
        let detail = match left {
            Some(refusal) => format!(
                "no target is a kernel that {} takes: {}",
                context.spec.technique, refusal.detail
            ),
            None => format!(
                "{} takes the kernels of two-dimensional convolutions apart, and no target is one: targets may be Conv2d, which is \
                 all of them, module names or re: expressions",
                context.spec.technique
            ),
        };
        Err(vec![Refusal::new(pointer, "no_targets", detail)])
    }

    /// The shape of a kernel, or why it is none.
    fn shape_of(
        &self,
        context: &Context<'_>,
        tensor: &TensorPlan,
    ) -> std::result::Result<[usize; 4], String> {
        let shape = <[usize; 4]>::try_from(tensor.shape.as_slice());
        let is_float = tensor.source_dtype.is_float() && tensor.name.ends_with(".weight");
        let (Ok(shape), true) = (shape, is_float && tensor.elements() > 0) else {
            return Err(format!(
                "its shape is {:?}, and a kernel is a weight [out, in, height, width]",
                tensor.shape
            ));
        };
        let [_, inputs, height, width] = shape;
        let in_groups = height * width > 1 && grouped(context) == Some(inputs);
        if inputs == 1 || in_groups {
            return Err(format!(
                "each output reads {inputs} of its inputs: a convolution in groups is small already"
            ));
        }
        if height * width == 1 && !self.pointwise {
            return Err("it is 1×1: spatial_svd makes two layers of such a kernel".to_owned());
        }
        Ok(shape)
    }
}

/// Inputs of a group, where config.json says that its wider kernels have groups (`RegNet`): no weight says so itself.
fn grouped(context: &Context<'_>) -> Option<usize> {
    let width = context.config()?.get("groups_width")?.as_u64()?;
    usize::try_from(width).ok()
}

/// True where the recipe spells this module out.
fn is_named(context: &Context<'_>, tensor: &TensorPlan) -> bool {
    let words = &context.spec.targets;
    words
        .iter()
        .any(|word| word == tensor.module() || *word == tensor.name)
}

fn kind(tensor: &TensorPlan, shape: [usize; 4], form: Form) -> Kind {
    let dtype = match tensor.source_dtype {
        dtype @ (DType::F16 | DType::BF16) => dtype,
        _ => DType::F32,
    };
    Kind::Convolutions { form, shape, dtype }
}

/// Makes a tensor by a method that finds the layers of its kernel.
pub(super) fn run(
    task: &Task<'_>,
    input: &dyn Rows,
    find: &dyn Fn(&Kernel<'_>, Form) -> Result<Chain>,
) -> Result<Weight> {
    let Kind::Convolutions { form, shape, dtype } = task.kind else {
        return Err(wrong(task));
    };
    let values = read_all(input)?;
    let chain = find(&Kernel::new(&values, shape)?, form)?;
    drop(values);
    let planned = form.layers(shape);
    let found: Vec<Layer> = chain
        .stages
        .iter()
        .map(|stage| Layer {
            shape: stage.shape,
            groups: stage.groups,
            spans: stage.spans,
        })
        .collect();
    if found != planned {
        return Err(Error::internal(format!(
            "layers were planned as {planned:?} and found as {found:?}"
        )));
    }
    let layers = chain.stages.into_iter().map(|stage| stage.values).collect();
    Ok(Weight::Convolutions(Convolutions::new(
        form, shape, dtype, layers,
    )?))
}

/// A task that was planned as something else.
pub(super) fn wrong(task: &Task<'_>) -> Error {
    Error::internal(format!(
        "{} was planned as {}",
        task.stage.technique,
        task.kind.label()
    ))
}
