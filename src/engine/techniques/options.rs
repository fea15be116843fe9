//! What the round-to-nearest techniques share when they plan.
//!
//! Owns: reading checked options, group checks, which tensors can be quantized. Must not know: kernels.
//! Invariant: options were checked against the schema before they are read here.

use crate::plan::{Context, TensorPlan, check_options};
use crate::recipe::Refusal;
use crate::tensor::DType;
use crate::weight::{Activations, Granularity, Kind};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

pub(super) type Planned<T> = Result<T, Vec<Refusal>>;

/// Options of a stage with the schema's defaults.
pub(super) struct Options<'a> {
    given: &'a Value,
    schema: Value,
}

impl<'a> Options<'a> {
    pub(super) fn checked(context: &'a Context<'_>, schema: Value) -> Planned<Self> {
        check_options(&context.spec.options, &schema, &pointer(context, ""))?;
        Ok(Self {
            given: &context.spec.options,
            schema,
        })
    }

    pub(super) fn of(given: &'a Value, schema: Value) -> Self {
        Self { given, schema }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.given
            .get(name)
            .or_else(|| self.schema["properties"][name].get("default"))
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> usize {
        self.get(name).and_then(Value::as_u64).unwrap_or_default() as usize
    }

    /// None where it was not given and has no default.
    pub(super) fn maybe_number(&self, name: &str) -> Option<usize> {
        let number = self.get(name).and_then(Value::as_u64);
        number.map(|number| number as usize)
    }

    pub(super) fn real(&self, name: &str) -> f64 {
        self.get(name).and_then(Value::as_f64).unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    pub(super) fn granularity(&self) -> Granularity {
        match self.text("granularity") {
            "tensor" => Granularity::Tensor,
            "channel" => Granularity::Channel,
            _ => Granularity::Group(self.number("group_size")),
        }
    }

    /// What integer techniques make of these tensors.
    pub(super) fn affine(
        &self,
        granularity: Granularity,
        tensors: &[(usize, &TensorPlan)],
    ) -> Vec<(usize, Kind)> {
        let kind = |tensor: &TensorPlan| Kind::Affine {
            n_bits: self.number("n_bits") as u8,
            symmetric: self.flag("symmetric"),
            granularity,
            scale_dtype: scale_dtype(self.text("scale_dtype"), tensor),
            activations: self.activations(),
            act_order: self.text("act_order") == "group" && matches!(granularity, Granularity::Group(_)),
        };
        tensors
            .iter()
            .map(|(index, tensor)| (*index, kind(tensor)))
            .collect()
    }

    pub(super) fn activations(&self) -> Activations {
        if self.text("activations") == "dynamic_token" {
            Activations::DynamicToken
        } else {
            Activations::None
        }
    }
}

/// Option with which single modules get other bits than the stage's.
pub(super) const TENSOR_BITS: &str = "tensor_bits";

/// Its property in a schema.
pub(super) fn tensor_bits() -> Value {
    json!({"type": "object", "default": {}, "examples": [{"8": ["re:.*down_proj"]}],
        "description": "Bits of single modules instead of n_bits: for each number, 2 to 8, a list of module names or of re: and a regular expression, as in targets."})
}

/// What it says, by the tensor's index.
pub(super) fn given_bits(context: &Context<'_>, options: &Options<'_>) -> Planned<HashMap<usize, u8>> {
    let bits = |name: &str| name.parse().ok().filter(|bits| (2..=8).contains(bits));
    by_module(context, options, TENSOR_BITS, &bits, "2, 3, 4, 5, 6, 7, 8")
}

/// An option that lists modules under names, by the tensor's index; a module is listed under one name.
pub(super) fn by_module<T: Copy + PartialEq>(
    context: &Context<'_>,
    options: &Options<'_>,
    option: &str,
    read: &dyn Fn(&str) -> Option<T>,
    known: &str,
) -> Planned<HashMap<usize, T>> {
    let at = pointer(context, option);
    let mut found = HashMap::new();
    let Some(given) = options.given.get(option) else {
        return Ok(found);
    };
    let refuse = |at: &str, code: &'static str, detail: String| Err(vec![Refusal::new(at, code, detail)]);
    let Some(map) = given.as_object() else {
        let detail = format!("{option} is an object with a list of modules under each name");
        return refuse(&at, "invalid_option", detail);
    };
    for (name, words) in map {
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        let Some(value) = read(name) else {
            return refuse(
                &at,
                "invalid_option",
                format!("{option} knows {known}; got {name:?}"),
            );
        };
        let list = words.as_array();
        let words = list.and_then(|words| {
            words
                .iter()
                .map(|word| word.as_str().map(str::to_owned))
                .collect()
        });
        let Some(words): Option<Vec<String>> = words else {
            let detail = "modules are a list of names or of re: and an expression, as in targets";
            return refuse(&at, "invalid_option", detail.to_owned());
        };
        for index in context.matching(&words, &at)? {
            if found.insert(index, value).is_some_and(|before| before != value) {
                let detail = format!("{} is listed twice in {option}", context.tensors[index].module());
                return refuse(&at, "conflicting_options", detail);
            }
        }
    }
    Ok(found)
}

/// Pointer of an option in the recipe, whether it came from a preset's `options` or a stage's.
pub(super) fn pointer(context: &Context<'_>, option: &str) -> String {
    match option {
        "" => format!("{}/options", context.pointer),
        name => format!("{}/options/{name}", context.pointer),
    }
}

/// Targeted tensors that are matrices of plain floats; targeting anything else by name is refused.
pub(super) fn matrices<'a>(context: &'a Context<'_>) -> Planned<Vec<(usize, &'a TensorPlan)>> {
    let targeted = context
        .tensors
        .iter()
        .enumerate()
        .zip(context.targeted)
        .filter(|(_, t)| **t);
    let (mut fit, mut refusals) = (Vec::new(), Vec::new());
    for ((index, tensor), _) in targeted {
        if tensor.kind.is_compressed() {
            let detail = format!(
                "{} is already {}: two stages quantize it",
                tensor.name,
                tensor.kind.label()
            );
            refusals.push(Refusal::new(
                format!("{}/targets", context.pointer),
                "already_quantized",
                detail,
            ));
        } else if tensor.shape.len() == 2 && tensor.source_dtype.is_float() && tensor.elements() > 0 {
            fit.push((index, tensor));
        }
    }
    if refusals.is_empty() {
        Ok(fit)
    } else {
        Err(refusals)
    }
}

/// Targeted matrices for a technique that works block by block: every one must be a layer that the network applies
/// within a block, or its inputs are never seen.
pub(super) fn layers<'a>(context: &'a Context<'_>) -> Planned<Vec<(usize, &'a TensorPlan)>> {
    layers_or(context, &HashSet::new())
}

/// The same, and those of these names.
pub(super) fn layers_or<'a>(
    context: &'a Context<'_>,
    others: &HashSet<String>,
) -> Planned<Vec<(usize, &'a TensorPlan)>> {
    let matrices = matrices(context)?;
    let is_layer = |t: &TensorPlan| context.readers.contains(&t.name) || others.contains(&t.name);
    let strange = matrices.iter().find(|(_, t)| !is_layer(t));
    match strange {
        None => Ok(matrices),
        Some((_, tensor)) => {
            let (name, technique) = (tensor.module(), &context.spec.technique);
            let (code, detail) = if context.transposed.contains(&tensor.name) {
                let why = "is stored as [in, out], and what comes of it has a layout for [out, in]";
                (
                    "stored_transposed",
                    format!("{name} {why}: {technique} does not take it"),
                )
            } else {
                let why = "is no linear layer of a block, so nothing is known of its inputs";
                (
                    "not_a_layer_of_a_block",
                    format!("{name} {why}: add it to ignore"),
                )
            };
            let pointer = format!("{}/targets", context.pointer);
            Err(vec![Refusal::new(pointer, code, detail)])
        }
    }
}

/// Refuses group sizes that do not divide the rows, naming sizes that do.
pub(super) fn check_groups(
    context: &Context<'_>,
    granularity: Granularity,
    tensors: &[(usize, &TensorPlan)],
) -> Planned<()> {
    let Granularity::Group(size) = granularity else {
        return Ok(());
    };
    let bad: Vec<_> = tensors
        .iter()
        .filter(|(_, t)| size == 0 || t.cols() % size != 0)
        .collect();
    let Some((_, first)) = bad.first() else {
        return Ok(());
    };
    let fits: Vec<String> = [256, 128, 64, 32, 16]
        .iter()
        .filter(|g| tensors.iter().all(|(_, t)| t.cols() % **g == 0))
        .map(ToString::to_string)
        .collect();
    let fix = match fits.first() {
        Some(_) => format!("sizes that divide every targeted tensor: {}", fits.join(", ")),
        None => "use granularity \"channel\", or ignore these tensors".to_owned(),
    };
    let detail = format!(
        "group_size {size} does not divide the {} columns of {} ({} tensors in all); {fix}",
        first.cols(),
        first.name,
        bad.len()
    );
    Err(vec![Refusal::new(
        pointer(context, "group_size"),
        "group_size_does_not_divide",
        detail,
    )])
}

/// Type scales are stored in: the option, or the model's own float type.
pub(super) fn scale_dtype(option: &str, tensor: &TensorPlan) -> DType {
    match (DType::from_name(option), tensor.source_dtype) {
        (Some(asked), _) => asked,
        (None, own @ (DType::F16 | DType::BF16)) => own,
        (None, _) => DType::F32,
    }
}
