//! Numbers of a config.json, checked.
//!
//! Owns: reading them with their defaults. Must not know: families.
//! Invariant: a missing or absurd number is an error that names it, before anything is allocated by it.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernels::nn::elementwise::Activation;
use serde_json::Value;

/// No model has more of anything that is counted here.
const MOST: u64 = 1 << 24;

/// A config.json.
pub(super) struct Config<'a> {
    pub value: &'a Value,
}

impl<'a> Config<'a> {
    pub(super) fn of(model: &'a Checkpoint) -> Result<Self> {
        let value = model
            .config
            .as_ref()
            .ok_or_else(|| Error::bad_input("missing_config", "the model has no config.json"))?;
        Ok(Self { value })
    }

    /// A count under the first of these names.
    pub(super) fn count(&self, names: &[&str]) -> Result<usize> {
        self.maybe(names)?.ok_or_else(|| {
            Error::bad_input(
                "invalid_config",
                format!("config.json has no {}", names.first().unwrap_or(&"name")),
            )
        })
    }

    /// A count that may be absent or null.
    pub(super) fn maybe(&self, names: &[&str]) -> Result<Option<usize>> {
        let found = names
            .iter()
            .find_map(|n| self.value.get(*n).filter(|v| !v.is_null()).map(|v| (n, v)));
        let Some((name, value)) = found else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(n) if n > 0 && n <= MOST => Ok(Some(n as usize)),
            _ => Err(Error::bad_input(
                "invalid_config",
                format!("config.json: {name} is {value}; it must be a whole number, 1 to {MOST}"),
            )),
        }
    }

    /// A number with a default.
    pub(super) fn number(&self, name: &str, default: f64) -> f64 {
        self.value.get(name).and_then(Value::as_f64).unwrap_or(default)
    }

    /// A flag with a default.
    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.value.get(name).and_then(Value::as_bool).unwrap_or(default)
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.value.get(name).and_then(Value::as_str)
    }

    /// The non-linearity under the first of these names.
    pub(super) fn activation(&self, names: &[&str], default: &'static str) -> Result<Activation> {
        let name = names.iter().find_map(|n| self.text(n)).unwrap_or(default);
        Activation::from_name(name).ok_or_else(|| {
            Error::unsupported(
                "unsupported_activation",
                format!("config.json: activation {name:?} is not supported; silu, gelu, gelu_new, gelu_pytorch_tanh and relu are"),
            )
        })
    }
}

/// Refuses heads that do not divide the hidden size.
pub(super) fn check_heads(heads: usize, hidden: usize) -> Result<()> {
    if hidden.is_multiple_of(heads) {
        return Ok(());
    }
    Err(Error::bad_input(
        "invalid_config",
        format!("config.json: {heads} attention heads do not divide a hidden size of {hidden}"),
    ))
}

/// Refuses a network whose tensors are missing or have other shapes than its configuration says.
pub(super) fn check_shapes(model: &Checkpoint, wanted: &[(String, Vec<usize>)]) -> Result<()> {
    let found: std::collections::HashMap<&str, &[usize]> = model
        .tensors
        .iter()
        .map(|t| (t.name.as_str(), t.shape.as_slice()))
        .collect();
    for (name, shape) in wanted {
        match found.get(name.as_str()) {
            Some(real) if real == shape => {}
            Some(real) => {
                return Err(Error::bad_input(
                    "shape_mismatch",
                    format!("{name} has shape {real:?}; by config.json it is {shape:?}"),
                ));
            }
            None => {
                return Err(Error::bad_input(
                    "missing_tensor",
                    format!("the checkpoint has no tensor {name} of shape {shape:?}"),
                ));
            }
        }
    }
    Ok(())
}
