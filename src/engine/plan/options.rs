//! Options of stages and formats against their schemas.
//!
//! Owns: the check of names, types, enums and bounds. Must not know: what an option does.
//! Invariant: every fault is named with its pointer, all of them at once.

use crate::recipe::Refusal;
use serde_json::Value;

/// Checks options against a schema of plain properties: names, types, enums, bounds.
pub(crate) fn check_options(options: &Value, schema: &Value, pointer: &str) -> Result<(), Vec<Refusal>> {
    let empty = serde_json::Map::new();
    let options = options.as_object().unwrap_or(&empty);
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let known: Vec<&str> = properties.keys().map(String::as_str).collect();
    crate::recipe::unknown_fields(options, pointer, &known)?;
    let mut refusals = Vec::new();
    for (name, value) in options {
        if let Some(problem) = properties.get(name).and_then(|p| mismatch(value, p)) {
            refusals.push(Refusal::new(
                format!("{pointer}/{name}"),
                "invalid_option",
                format!("{name} {problem}"),
            ));
        }
    }
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

fn mismatch(value: &Value, property: &Value) -> Option<String> {
    if let Some(allowed) = property.get("enum").and_then(Value::as_array) {
        let names: Vec<String> = allowed
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect();
        return (!allowed.contains(value))
            .then(|| format!("must be one of {}; got {value}", names.join(", ")));
    }
    match property.get("type").and_then(Value::as_str) {
        Some("integer") => {
            let (min, max) = (
                property.get("minimum").and_then(Value::as_u64),
                property.get("maximum").and_then(Value::as_u64),
            );
            let number = value.as_u64();
            let fits = number.is_some_and(|n| min.is_none_or(|m| n >= m) && max.is_none_or(|m| n <= m));
            let bounds = format!(
                "{} to {}",
                min.unwrap_or(0),
                max.map_or("any".into(), |m| m.to_string())
            );
            (!fits).then(|| format!("must be a whole number, {bounds}; got {value}"))
        }
        Some("number") => {
            let (min, max) = (
                property.get("minimum").and_then(Value::as_f64),
                property.get("maximum").and_then(Value::as_f64),
            );
            let fits = value
                .as_f64()
                .is_some_and(|n| min.is_none_or(|m| n >= m) && max.is_none_or(|m| n <= m));
            let bound = |b: Option<f64>| b.map_or("any".to_owned(), |b| b.to_string());
            (!fits).then(|| format!("must be a number, {} to {}; got {value}", bound(min), bound(max)))
        }
        Some("boolean") => (!value.is_boolean()).then(|| format!("must be true or false; got {value}")),
        Some("string") => (!value.is_string()).then(|| format!("must be a string; got {value}")),
        _ => None,
    }
}
