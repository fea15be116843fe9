//! Fields of `config.json`, each read as what it must be.
//!
//! Owns: the checks and the errors that name the field. Must not know: what a field means.
//! Invariant: absent and null are the same; anything else of the wrong kind is an error.

use serde_json::Value as Json;

use super::error::{GgufError, shown};

/// A field that is a positive count, or absent.
pub(super) fn optional(config: &Json, key: &str) -> Result<Option<u32>, GgufError> {
    let value = &config[key];
    if value.is_null() {
        return Ok(None);
    }
    let count = value
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .filter(|&n| n > 0);
    count
        .map(Some)
        .ok_or_else(|| value_error(key, "a positive integer", value))
}

pub(super) fn required(config: &Json, key: &str) -> Result<u32, GgufError> {
    optional(config, key)?.ok_or_else(|| GgufError::MissingConfig { key: key.into() })
}

/// A field that is a positive number, or absent.
pub(super) fn number(config: &Json, key: &str) -> Result<Option<f64>, GgufError> {
    let value = &config[key];
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_f64().filter(|&v| v > 0.0 && v.is_finite());
    number
        .map(Some)
        .ok_or_else(|| value_error(key, "a positive number", value))
}

pub(super) fn flag(config: &Json, key: &str) -> Result<Option<bool>, GgufError> {
    let value = &config[key];
    if value.is_null() {
        return Ok(None);
    }
    value
        .as_bool()
        .map(Some)
        .ok_or_else(|| value_error(key, "true or false", value))
}

pub(super) fn value_error(key: &str, expected: impl Into<String>, got: &Json) -> GgufError {
    GgufError::ConfigValue {
        key: key.into(),
        expected: expected.into(),
        got: shown(got),
    }
}

pub(super) fn unsupported(key: impl Into<String>, expected: impl Into<String>, got: &Json) -> GgufError {
    GgufError::UnsupportedConfig {
        key: key.into(),
        expected: expected.into(),
        got: shown(got),
    }
}
