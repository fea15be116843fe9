//! JSON Schema of recipes, for the API's document.
//!
//! Owns: the schema. Must not know: how recipes are read.
//! Invariant: its fields, bounds and defaults are the ones that reading uses.

use super::data::{CalibrationSpec, EvaluationSpec, LENGTH, Metric, SAMPLES, budget, limits};
use crate::presets;
use serde_json::{Value, json};

/// JSON Schema of a recipe: a preset's name or an object.
pub fn schema() -> Value {
    let words = |says: &str| json!({"type": "array", "items": {"type": "string"}, "description": says});
    let targets = words(
        "What a stage applies to: `Linear`, `Conv2d`, module names, or `re:` and a regular expression; unless said \
         otherwise, the class of layers that the technique is for",
    );
    let ignore = words("What it leaves alone, in the same words");
    let options =
        json!({"type": "object", "description": "Options of the technique or format, as its schema says"});
    let stage = json!({
        "type": "object", "additionalProperties": false, "required": ["technique"],
        "properties": {
            "technique": {"type": "string", "description": "One of `GET /v1/techniques`"},
            "options": options, "targets": targets, "ignore": ignore,
        },
    });
    let formats = "Formats to write (`GET /v1/formats`): names, or {format, options}";
    json!({
        "type": ["string", "object"], "additionalProperties": false, "example": "Q4_K_M",
        "description": "The name of a preset, or what to do, spelled out: a preset or stages, and formats.",
        "properties": {
            "version": {"type": "integer", "enum": [1], "default": 1, "description": "Version of the recipe language"},
            "preset": {"type": "string", "enum": presets::names(), "description": "One of `GET /v1/presets`"},
            "options": options, "targets": targets, "ignore": ignore,
            "stages": {"type": "array", "items": stage, "description": "Techniques in order, instead of a preset"},
            "formats": {"type": "array", "items": {"type": ["string", "object"]}, "description": formats},
            "calibration": calibration(), "evaluation": evaluation(), "gates": gates(), "budget": budget(),
            "seed": {"type": "integer", "minimum": 0, "default": 0, "description": "Seed of everything random"},
        },
    })
}

fn calibration() -> Value {
    let default = CalibrationSpec::default();
    json!({
        "type": ["string", "object"], "additionalProperties": false,
        "description": "Data for calibrated techniques: the name of a dataset, or an object.",
        "properties": {
            "dataset": dataset(), "num_samples": samples(default.num_samples),
            "max_seq_length": length(default.max_seq_length),
            "shuffle": {"type": "boolean", "default": default.shuffle,
                        "description": "Take them in an order drawn from the seed"},
            "moe_calibrate_all_experts": {"type": "boolean", "default": default.moe_calibrate_all_experts,
                        "description": "Show every token to every expert of a mixture, wherever its router sends it"},
            "max_activation_bytes": activations(default.max_activation_bytes),
        },
    })
}

fn evaluation() -> Value {
    let default = EvaluationSpec::default();
    json!({
        "type": ["boolean", "object"], "additionalProperties": false,
        "description": "Compares the result with the original; `true` is an object with every default.",
        "properties": {
            "dataset": dataset(),
            "metrics": {"type": "array", "uniqueItems": true, "default": [],
                        "description": "What to measure; empty is what fits the model",
                        "items": {"type": "string", "enum": Metric::ALL.map(Metric::name)}},
            "num_samples": samples(default.num_samples), "max_seq_length": length(default.max_seq_length),
            "max_activation_bytes": activations(default.max_activation_bytes),
            "each_stage": {"type": "boolean", "default": default.each_stage,
                           "description": "Measure what every stage leaves, not only the last; each takes as long as the evaluation itself"},
        },
    })
}

fn gates() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "minProperties": 1, "properties": limits(),
        "description": "Limits that the result must keep, or the job fails with `quality_gate`; brings an evaluation.",
    })
}

fn dataset() -> Value {
    json!({"type": "string", "default": "builtin",
           "description": "`builtin`, a text that comes with the server, or the id of a dataset"})
}

fn samples(default: u32) -> Value {
    whole(SAMPLES, default, "Sequences to take")
}

fn length(default: u32) -> Value {
    whole(LENGTH, default, "Tokens of each, at most")
}

fn activations(default: u64) -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": 1u64 << 44, "default": default,
           "description": "Bytes of activations in memory between steps; what is more waits in scratch"})
}

fn whole((least, most): (u32, u32), default: u32, says: &str) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most, "default": default, "description": says})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    fn properties(schema: &Value) -> Vec<(String, Value)> {
        let fields = schema["properties"].as_object().unwrap();
        fields
            .iter()
            .map(|(name, field)| (name.clone(), field.clone()))
            .collect()
    }

    #[test]
    fn every_field_of_the_schema_is_read_and_every_default_is_the_one_that_is_used() {
        let at = |part: Option<&str>, field: &str, value: Value| match part {
            None => json!({"preset": "W4A16", field: value}),
            Some(part) => json!({"preset": "W4A16", part: {field: value}}),
        };
        let parts = [None, Some("calibration"), Some("evaluation"), Some("gates")];
        for part in parts {
            let schema = schema();
            let inner = part.map_or(&schema, |part| &schema["properties"][part]);
            for (field, of) in properties(inner) {
                let Some(default) = of.get("default") else {
                    continue;
                };
                if part == Some("gates") {
                    continue;
                }
                let plain = match part {
                    None => json!({"preset": "W4A16"}),
                    Some(part) => json!({"preset": "W4A16", part: {}}),
                };
                let plain = Recipe::from_value(&plain).unwrap();
                let asked = Recipe::from_value(&at(part, &field, default.clone()));
                assert_eq!(asked.as_ref(), Ok(&plain), "{part:?} {field}");
            }
            // A field that is not read would be refused as unknown.
            for (field, _) in properties(inner) {
                if let Err(refusals) = Recipe::from_value(&at(part, &field, Value::Null)) {
                    assert!(refusals.iter().all(|r| r.code != "unknown_field"), "{refusals:?}");
                }
            }
        }
    }
}
