//! Types that a recipe gives tensors one by one, beside or instead of a mix.
//!
//! Owns: the option `tensor_types`, which types a budget may choose from. Must not know: GGUF, block layouts.
//! Invariant: a tensor has one type, and its rows are whole blocks of it.

use crate::plan::{Context, TensorPlan};
use crate::recipe::Refusal;
use crate::techniques::Schemes;
use crate::techniques::options::{self, Options, Planned};
use crate::tensor::GgmlType;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// The option.
const OPTION: &str = "tensor_types";

/// Every type that can be given.
const NAMES: &[&str] = &[
    "BF16", "F16", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_S", "IQ3_XXS", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K",
    "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0",
];

/// Those that are worth their bytes somewhere. The lattices below three bits are slow to make and to run.
const SUGGESTED: &[&str] = &[
    "IQ3_S", "IQ3_XXS", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K",
    "Q6_K", "Q8_0",
];

/// What `tensor_types` says, by the tensor's index.
pub(super) fn given(context: &Context<'_>, options: &Options<'_>) -> Planned<HashMap<usize, GgmlType>> {
    let read = |name: &str| GgmlType::from_name(name).filter(|ty| NAMES.contains(&ty.name()));
    let types = options::by_module(context, options, OPTION, &read, &NAMES.join(", "))?;
    let tensor = |index: &usize| &context.tensors[*index];
    let broken = types
        .iter()
        .filter(|(at, ty)| !tensor(at).cols().is_multiple_of(ty.block_size()));
    match broken.min_by_key(|(at, _)| **at) {
        None => Ok(types),
        Some((at, ty)) => {
            let (name, cols) = (tensor(at).module(), tensor(at).cols());
            let detail = format!(
                "{name} has rows of {cols}, which are no whole blocks of {}: {ty} cannot hold it",
                ty.block_size()
            );
            let at = format!("{}/{ty}", options::pointer(context, OPTION));
            Err(vec![Refusal::new(at, "block_does_not_divide", detail)])
        }
    }
}

/// The property in the schema.
pub(super) fn property() -> Value {
    json!({"type": "object", "default": {}, "examples": [{"Q8_0": ["re:.*down_proj"]}],
        "description": "Types of single modules instead of the mix's: for each type a list of module names or of re: and a regular expression, as in targets."})
}

/// What a budget chooses from.
pub(super) struct Types;

impl Schemes for Types {
    fn all(&self) -> &'static [&'static str] {
        NAMES
    }

    fn suggested(&self) -> &'static [&'static str] {
        SUGGESTED
    }

    fn fits(&self, scheme: &str, tensor: &TensorPlan) -> bool {
        let ty = GgmlType::from_name(scheme);
        super::mix::takes_blocks(tensor) && ty.is_some_and(|ty| tensor.cols().is_multiple_of(ty.block_size()))
    }

    /// The types are chosen by gradients, so columns are weighed by them too.
    fn assign(&self, options: &Value, modules: &BTreeMap<&str, Vec<&str>>) -> Value {
        let mut own = options.as_object().cloned().unwrap_or_else(Map::new);
        let types: Map<String, Value> = modules
            .iter()
            .map(|(scheme, modules)| ((*scheme).to_owned(), json!(modules)))
            .collect();
        own.insert(OPTION.to_owned(), types.into());
        own.insert("imatrix".to_owned(), json!("fisher"));
        own.into()
    }
}
