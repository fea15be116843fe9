//! JSON Schema of the parts of a recipe that ask for data.
//!
//! Owns: the schema. Must not know: how the parts are read.
//! Invariant: bounds and defaults are the ones that reading uses.

use super::{CalibrationSpec, EvaluationSpec, LENGTH, Metric, SAMPLES, gates};
use serde_json::{Value, json};

/// JSON Schema of the three parts, for the API's document.
pub fn schema() -> Value {
    let whole = |(least, most): (u32, u32), default: u32, says: &str| {
        let bounds = json!({"type": "integer", "minimum": least, "maximum": most});
        with(
            bounds,
            &[("default", default.into()), ("description", says.into())],
        )
    };
    let dataset =
        json!({"type": "string", "default": "builtin", "description": "`builtin`, or the id of a dataset"});
    let (calibration, evaluation) = (CalibrationSpec::default(), EvaluationSpec::default());
    let samples = |default| whole(SAMPLES, default, "Sequences to take");
    let length = |default| whole(LENGTH, default, "Tokens of each, at most");
    let shuffle = "Take them in an order drawn from the seed";
    json!({
        "calibration": {"description": "The text that calibrated techniques see", "oneOf": [
            {"type": "string"},
            {"type": "object", "additionalProperties": false, "properties": {
                "dataset": dataset, "num_samples": samples(calibration.num_samples),
                "max_seq_length": length(calibration.max_seq_length),
                "shuffle": {"type": "boolean", "default": false, "description": shuffle},
            }},
        ]},
        "evaluation": {"description": "Compares the result with the original", "oneOf": [
            {"type": "boolean"},
            {"type": "object", "additionalProperties": false, "properties": {
                "dataset": dataset, "num_samples": samples(evaluation.num_samples),
                "max_seq_length": length(evaluation.max_seq_length),
                "metrics": {"type": "array", "uniqueItems": true, "default": [],
                            "description": "What to measure; empty is what fits the model",
                            "items": {"type": "string", "enum": Metric::ALL.map(Metric::name)}},
            }},
        ]},
        "gates": {"type": "object", "additionalProperties": false, "properties": gates::properties(), "minProperties": 1,
                  "description": "Limits that the result must keep, or the job fails with `quality_gate`"},
    })
}

fn with(mut schema: Value, more: &[(&str, Value)]) -> Value {
    for (key, value) in more {
        schema[*key] = value.clone();
    }
    schema
}
