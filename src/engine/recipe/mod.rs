//! What the user asks for: stages, formats, data, seed.
//!
//! Owns: the parsed recipe, its canonical form and hash, refusals with JSON pointers.
//! Must not know: models (that is the plan's business). Invariant: unknown fields are refused, never ignored.

mod data;
mod schema;
mod strict;

pub use data::{Budget, BudgetSpec, CalibrationSpec, EvaluationSpec, GateSpec, Metric};
pub use schema::schema;
pub use strict::strict;

use crate::digest::sha256;
use crate::presets;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// One reason why a recipe cannot work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// JSON pointer into the recipe, `""` for the whole.
    pub pointer: String,
    /// Stable code.
    pub code: &'static str,
    /// Sentence naming the field and the fix.
    pub detail: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
        }
    }
}

/// A technique with its options and the tensors it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSpec {
    /// Name of the technique.
    pub technique: String,
    /// Its options.
    #[serde(default)]
    pub options: Value,
    /// What it applies to: `Linear`, module names, or `re:` + regular expression.
    pub targets: Vec<String>,
    /// What it leaves alone, in the same words.
    pub ignore: Vec<String>,
}

/// An output format with its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatSpec {
    /// Name of the format.
    pub format: String,
    /// Its options.
    #[serde(default)]
    pub options: Value,
}

/// A recipe, presets already spelled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Version of the recipe language: 1.
    pub version: u32,
    /// The preset it came from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preset: Option<String>,
    /// Stages in order.
    pub stages: Vec<StageSpec>,
    /// Formats to write.
    pub formats: Vec<FormatSpec>,
    /// Data for calibrated techniques.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<CalibrationSpec>,
    /// How the result is compared with the original.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evaluation: Option<EvaluationSpec>,
    /// Limits that the result must keep.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gates: Option<GateSpec>,
    /// A limit that the schemes of the tensors are chosen by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget: Option<BudgetSpec>,
    /// Seed of everything random.
    pub seed: u64,
}

/// Most stages.
const MAX_STAGES: usize = 64;
/// Most words of one `targets` or `ignore`.
const MAX_WORDS: usize = 10_000;
/// Most regular expressions in all: each is compiled, and compiled ones are large.
pub(crate) const MAX_EXPRESSIONS: usize = 100;
/// Longest regular expression, bytes.
const MAX_EXPRESSION: usize = 1000;

type Parsed<T> = Result<T, Vec<Refusal>>;

fn refuse<T>(pointer: &str, code: &'static str, detail: impl Into<String>) -> Parsed<T> {
    Err(vec![Refusal::new(pointer, code, detail)])
}

impl Recipe {
    /// What people call it: its preset, or its techniques in order.
    pub fn name(&self) -> String {
        let stages = self.stages.iter().map(|stage| stage.technique.as_str());
        let techniques = || match stages.collect::<Vec<_>>().join(" + ") {
            none if none.is_empty() => "as it is".to_owned(),
            techniques => techniques,
        };
        self.preset.clone().unwrap_or_else(techniques)
    }

    /// A recipe whose schemes are weighed and none is chosen: the candidates of its budget, if it has one, and nothing of
    /// what would be measured.
    #[must_use]
    pub fn to_weigh(self) -> Self {
        let candidates = self.budget.map(|budget| budget.candidates);
        Self {
            budget: Some(BudgetSpec::any(candidates.unwrap_or_default())),
            evaluation: None,
            gates: None,
            ..self
        }
    }

    /// Parses a preset's name (`"Q4_K_M"`) or a recipe object.
    pub fn from_value(value: &Value) -> Parsed<Self> {
        match value {
            Value::String(name) => Self::from_value(&json!({"preset": name})),
            Value::Object(map) => Self::from_object(map),
            _ => refuse("", "wrong_type", "a recipe is the name of a preset or an object"),
        }
    }

    /// Parses YAML (JSON is YAML).
    pub fn from_yaml(text: &str) -> Parsed<Self> {
        match strict(serde_norway::Deserializer::from_str(text)) {
            Ok(value) => Self::from_value(&value),
            Err(e) => refuse("", "invalid_yaml", format!("the recipe is not valid YAML: {e}")),
        }
    }

    fn from_object(map: &Map<String, Value>) -> Parsed<Self> {
        let mut known = vec![
            "version", "preset", "options", "targets", "ignore", "stages", "formats", "seed",
        ];
        known.extend(data::FIELDS);
        unknown_fields(map, "", &known)?;
        let version = map.get("version").map_or(Some(1), Value::as_u64);
        if version != Some(1) {
            return refuse(
                "/version",
                "unsupported_version",
                "this engine reads recipes of version 1",
            );
        }
        let seed = map.get("seed").map_or(Some(0), Value::as_u64);
        let Some(seed) = seed else {
            return refuse("/seed", "wrong_type", "seed is a whole number, 0 or more");
        };
        let mut recipe = match (map.get("preset"), map.get("stages")) {
            (Some(_), Some(_)) => {
                return refuse(
                    "/stages",
                    "preset_and_stages",
                    "give a preset or stages, not both",
                );
            }
            (Some(preset), None) => preset_recipe(preset, map)?,
            (None, Some(stages)) => {
                for field in ["options", "targets", "ignore"] {
                    if map.contains_key(field) {
                        let detail = format!("{field} beside stages has no meaning: put it inside a stage");
                        return refuse(&format!("/{field}"), "unknown_field", detail);
                    }
                }
                Self {
                    version: 1,
                    preset: None,
                    stages: stages_of(stages)?,
                    formats: Vec::new(),
                    calibration: None,
                    evaluation: None,
                    gates: None,
                    budget: None,
                    seed,
                }
            }
            (None, None) => {
                return refuse(
                    "",
                    "missing_field",
                    format!("give a preset ({}) or stages", presets::names().join(", ")),
                );
            }
        };
        recipe.seed = seed;
        let parts = data::parts_of(map)?;
        recipe.calibration = parts.calibration;
        recipe.evaluation = parts.evaluation;
        recipe.gates = parts.gates;
        recipe.budget = parts.budget;
        check_expressions(&recipe)?;
        if let Some(formats) = map.get("formats") {
            recipe.formats = formats_of(formats)?;
        }
        if recipe.formats.is_empty() {
            return refuse(
                "/formats",
                "missing_field",
                "formats must name at least one output format",
            );
        }
        Ok(recipe)
    }

    /// The datasets that it names, each with the JSON pointer to its name.
    pub fn datasets(&self) -> Vec<(&str, &'static str)> {
        let calibration = self
            .calibration
            .iter()
            .map(|spec| (spec.dataset.as_str(), "/calibration/dataset"));
        let evaluation = self
            .evaluation
            .iter()
            .map(|spec| (spec.dataset.as_str(), "/evaluation/dataset"));
        calibration.chain(evaluation).collect()
    }

    /// SHA-256 of the canonical JSON (sorted keys, presets spelled out), hex.
    pub fn hash(&self) -> String {
        let mut plain = self.clone();
        plain.preset = None;
        let canonical = sorted(&serde_json::to_value(&plain).unwrap_or_default());
        sha256(canonical.to_string().as_bytes())
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Refuses every field of `map` that is not in `known`.
pub fn unknown_fields(map: &Map<String, Value>, pointer: &str, known: &[&str]) -> Parsed<()> {
    let refusals: Vec<_> = map
        .keys()
        .filter(|key| !known.contains(&key.as_str()))
        .map(|key| {
            let escaped = key.replace('~', "~0").replace('/', "~1");
            let detail = match known {
                [] => format!("unknown field {key:?}; there are none here"),
                known => format!("unknown field {key:?}; known are {}", known.join(", ")),
            };
            Refusal::new(format!("{pointer}/{escaped}"), "unknown_field", detail)
        })
        .collect();
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

/// Expressions are few and short.
fn check_expressions(recipe: &Recipe) -> Parsed<()> {
    let mut left = MAX_EXPRESSIONS;
    for (i, stage) in recipe.stages.iter().enumerate() {
        let stage_at = match recipe.preset {
            Some(_) => String::new(),
            None => format!("/stages/{i}"),
        };
        for (field, words) in [("targets", &stage.targets), ("ignore", &stage.ignore)] {
            for (k, word) in words
                .iter()
                .enumerate()
                .filter(|(_, word)| word.starts_with("re:"))
            {
                let at = format!("{stage_at}/{field}/{k}");
                if word.len() > MAX_EXPRESSION {
                    let detail = format!(
                        "the expression has {} bytes; at most {MAX_EXPRESSION} are read",
                        word.len()
                    );
                    return refuse(&at, "too_long", detail);
                }
                let Some(less) = left.checked_sub(1) else {
                    let detail =
                        format!("a recipe has at most {MAX_EXPRESSIONS} expressions; join some with |");
                    return refuse(&at, "too_many", detail);
                };
                left = less;
            }
        }
    }
    Ok(())
}

fn preset_recipe(preset: &Value, map: &Map<String, Value>) -> Parsed<Recipe> {
    let Some(name) = preset.as_str() else {
        return refuse("/preset", "wrong_type", "preset is a name");
    };
    let Some(mut recipe) = presets::find(name) else {
        let detail = format!(
            "no preset is called {name:?}; presets are {}",
            presets::names().join(", ")
        );
        return refuse("/preset", "unknown_preset", detail);
    };
    if let Some(stage) = recipe.stages.last_mut() {
        if let Some(options) = map.get("options") {
            let Some(options) = options.as_object() else {
                return refuse("/options", "wrong_type", "options is an object");
            };
            if let Value::Object(own) = &mut stage.options {
                own.extend(options.clone());
            }
        }
        if let Some(targets) = map.get("targets") {
            stage.targets = strings(targets, "/targets")?;
        }
        if let Some(ignore) = map.get("ignore") {
            stage.ignore = strings(ignore, "/ignore")?;
        }
    }
    Ok(recipe)
}

fn stages_of(value: &Value) -> Parsed<Vec<StageSpec>> {
    // None at all is a recipe too: the model goes over into other formats as it is.
    let Some(items) = value.as_array() else {
        return refuse("/stages", "wrong_type", "stages is a list of stages");
    };
    if items.len() > MAX_STAGES {
        let detail = format!("{} stages; a recipe has at most {MAX_STAGES}", items.len());
        return refuse("/stages", "too_many", detail);
    }
    let mut stages = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let at = format!("/stages/{i}");
        let Some(map) = item.as_object() else {
            return refuse(&at, "wrong_type", "a stage is an object with a technique");
        };
        unknown_fields(map, &at, &["technique", "options", "targets", "ignore"])?;
        let Some(technique) = map.get("technique").and_then(Value::as_str) else {
            return refuse(
                &format!("{at}/technique"),
                "missing_field",
                "a stage names its technique",
            );
        };
        let options = map.get("options").cloned().unwrap_or_else(|| json!({}));
        if !options.is_object() {
            return refuse(&format!("{at}/options"), "wrong_type", "options is an object");
        }
        let list = |field: &str, default: &[&str]| match map.get(field) {
            Some(value) => strings(value, &format!("{at}/{field}")),
            None => Ok(default.iter().map(|s| (*s).to_owned()).collect()),
        };
        let targets = list("targets", &["Linear"])?;
        let ignore = list("ignore", &["lm_head"])?;
        stages.push(StageSpec {
            technique: technique.to_owned(),
            options,
            targets,
            ignore,
        });
    }
    Ok(stages)
}

fn formats_of(value: &Value) -> Parsed<Vec<FormatSpec>> {
    let Some(items) = value.as_array() else {
        return refuse(
            "/formats",
            "wrong_type",
            "formats is a list of names or of {format, options}",
        );
    };
    let mut formats: Vec<FormatSpec> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let at = format!("/formats/{i}");
        let spec = match item {
            Value::String(name) => FormatSpec {
                format: name.clone(),
                options: json!({}),
            },
            Value::Object(map) => {
                unknown_fields(map, &at, &["format", "options"])?;
                let Some(name) = map.get("format").and_then(Value::as_str) else {
                    return refuse(&format!("{at}/format"), "missing_field", "a format has a name");
                };
                let options = map.get("options").cloned().unwrap_or_else(|| json!({}));
                if !options.is_object() {
                    return refuse(&format!("{at}/options"), "wrong_type", "options is an object");
                }
                FormatSpec {
                    format: name.to_owned(),
                    options,
                }
            }
            _ => return refuse(&at, "wrong_type", "a format is a name or {format, options}"),
        };
        if formats.iter().any(|f| f.format == spec.format) {
            return refuse(
                &at,
                "duplicate_format",
                format!("{} is asked for twice", spec.format),
            );
        }
        formats.push(spec);
    }
    Ok(formats)
}

fn strings(value: &Value, pointer: &str) -> Parsed<Vec<String>> {
    let list: Option<Vec<String>> = value
        .as_array()
        .and_then(|a| a.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    match list {
        Some(list) if list.len() > MAX_WORDS => refuse(
            pointer,
            "too_many",
            format!(
                "{} names; a list has at most {MAX_WORDS}: use an expression",
                list.len()
            ),
        ),
        Some(list) => Ok(list),
        None => refuse(
            pointer,
            "wrong_type",
            "a list of names: Linear, a module, or re: and a regular expression",
        ),
    }
}

#[cfg(test)]
mod tests;
