//! The data a recipe asks for and the limits it sets: calibration, evaluation, quality gates, a budget.
//!
//! Owns: these parts, their defaults and bounds. Must not know: what a dataset holds, how a metric is computed.
//! Invariant: a gate has its evaluation; a part that was not asked for is not in the recipe's JSON or hash.

mod budget;
mod gates;

pub use budget::{Budget, BudgetSpec};
pub use gates::GateSpec;

use super::{Parsed, Refusal, refuse, unknown_fields};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(super) use budget::budget;
use budget::budget_of;
pub(super) use gates::limits;
use gates::{gates_of, measured};

/// Longest name of a dataset; a command line may give a path.
const MAX_NAME: usize = 4096;

/// The text a technique is calibrated with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CalibrationSpec {
    /// `builtin`, or a name that whoever runs the recipe knows.
    pub dataset: String,
    /// Sequences to take.
    pub num_samples: u32,
    /// Tokens of each, at most.
    pub max_seq_length: u32,
    /// Take them in an order drawn from the recipe's seed instead of the dataset's own.
    pub shuffle: bool,
    /// Show every token to every expert of a mixture, wherever its router sends it.
    pub moe_calibrate_all_experts: bool,
    /// Bytes of activations in memory between steps; what is more waits in scratch.
    pub max_activation_bytes: u64,
}

impl Default for CalibrationSpec {
    fn default() -> Self {
        Self {
            dataset: crate::dataset::BUILTIN.to_owned(),
            num_samples: 128,
            max_seq_length: 512,
            shuffle: false,
            moe_calibrate_all_experts: true,
            max_activation_bytes: ACTIVATION_BYTES,
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of labels that the model answers.
    Accuracy,
    /// Cosine between the two models' embeddings.
    Cosine,
    /// Kullback-Leibler divergence of the two models' next-token distributions.
    Kl,
    /// Error of each layer's output.
    LayerError,
    /// Perplexity of the text under each model.
    Perplexity,
    /// Agreement of nearest neighbours among embeddings.
    Retrieval,
    /// Share of tokens where both models put the same one first.
    Top1Agreement,
}

impl Metric {
    /// Every metric, alphabetical.
    pub const ALL: [Self; 7] = [
        Self::Accuracy,
        Self::Cosine,
        Self::Kl,
        Self::LayerError,
        Self::Perplexity,
        Self::Retrieval,
        Self::Top1Agreement,
    ];

    /// Name as recipes spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Cosine => "cosine",
            Self::Kl => "kl",
            Self::LayerError => "layer_error",
            Self::Perplexity => "perplexity",
            Self::Retrieval => "retrieval",
            Self::Top1Agreement => "top1_agreement",
        }
    }
}

/// How the result is compared with the original.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationSpec {
    /// `builtin`, or a name that whoever runs the recipe knows.
    pub dataset: String,
    /// What to measure; empty is what fits the model.
    pub metrics: Vec<Metric>,
    /// Sequences to take.
    pub num_samples: u32,
    /// Tokens of each, at most.
    pub max_seq_length: u32,
    /// Bytes of activations in memory between steps, for each of the two models; what is more waits in scratch.
    pub max_activation_bytes: u64,
    /// Measure what every stage leaves, not only the last.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub each_stage: bool,
}

impl Default for EvaluationSpec {
    fn default() -> Self {
        Self {
            dataset: crate::dataset::BUILTIN.to_owned(),
            metrics: Vec::new(),
            num_samples: 40,
            max_seq_length: 1024,
            max_activation_bytes: ACTIVATION_BYTES,
            each_stage: false,
        }
    }
}

/// The parts of a recipe about data and limits.
pub(super) struct Parts {
    pub calibration: Option<CalibrationSpec>,
    pub evaluation: Option<EvaluationSpec>,
    pub gates: Option<GateSpec>,
    pub budget: Option<BudgetSpec>,
}

/// Fields of a recipe that are read here.
pub(super) const FIELDS: [&str; 4] = ["calibration", "evaluation", "gates", "budget"];

/// Reads these parts.
pub(super) fn parts_of(map: &Map<String, Value>) -> Parsed<Parts> {
    let given = |field: &str| map.get(field).filter(|value| !value.is_null());
    let calibration = given("calibration").map(calibration_of).transpose()?;
    let gates = given("gates").map(gates_of).transpose()?;
    let mut evaluation = match given("evaluation") {
        None => None,
        Some(value) => evaluation_of(value)?,
    };
    let declined = map.get("evaluation") == Some(&Value::Bool(false));
    if let Some(gates) = &gates {
        if declined {
            let detail = "gates need an evaluation: leave evaluation out, or gates";
            return refuse("/evaluation", "gates_without_evaluation", detail);
        }
        measured(gates, evaluation.get_or_insert_default())?;
    }
    let budget = match given("budget") {
        Some(_) if declined => {
            let detail = "a budget needs an evaluation: leave evaluation out, or the budget";
            return refuse("/evaluation", "budget_without_evaluation", detail);
        }
        Some(value) => Some(budget_of(value, &mut evaluation)?),
        None => None,
    };
    Ok(Parts {
        calibration,
        evaluation,
        gates,
        budget,
    })
}

fn calibration_of(value: &Value) -> Parsed<CalibrationSpec> {
    let default = CalibrationSpec::default();
    match value {
        Value::String(_) => Ok(CalibrationSpec {
            dataset: name(value, "/calibration")?,
            ..default
        }),
        Value::Object(map) => {
            let fields = Fields {
                map,
                at: "/calibration",
            };
            unknown_fields(
                map,
                fields.at,
                &[
                    "dataset",
                    "num_samples",
                    "max_seq_length",
                    "shuffle",
                    "moe_calibrate_all_experts",
                    "max_activation_bytes",
                ],
            )?;
            Ok(CalibrationSpec {
                dataset: fields.dataset(default.dataset)?,
                num_samples: fields.samples(default.num_samples)?,
                max_seq_length: fields.length(default.max_seq_length)?,
                shuffle: fields.flag("shuffle", default.shuffle)?,
                moe_calibrate_all_experts: fields
                    .flag("moe_calibrate_all_experts", default.moe_calibrate_all_experts)?,
                max_activation_bytes: fields.activations()?,
            })
        }
        _ => refuse(
            "/calibration",
            "wrong_type",
            "calibration is the name of a dataset or an object",
        ),
    }
}

fn evaluation_of(value: &Value) -> Parsed<Option<EvaluationSpec>> {
    let default = EvaluationSpec::default();
    match value {
        Value::Bool(wanted) => Ok(wanted.then_some(default)),
        Value::Object(map) => {
            let fields = Fields {
                map,
                at: "/evaluation",
            };
            unknown_fields(
                map,
                fields.at,
                &[
                    "dataset",
                    "metrics",
                    "num_samples",
                    "max_seq_length",
                    "max_activation_bytes",
                    "each_stage",
                ],
            )?;
            Ok(Some(EvaluationSpec {
                dataset: fields.dataset(default.dataset)?,
                metrics: map
                    .get("metrics")
                    .map(metrics_of)
                    .transpose()?
                    .unwrap_or_default(),
                num_samples: fields.samples(default.num_samples)?,
                max_seq_length: fields.length(default.max_seq_length)?,
                max_activation_bytes: fields.activations()?,
                each_stage: fields.flag("each_stage", default.each_stage)?,
            }))
        }
        _ => refuse(
            "/evaluation",
            "wrong_type",
            "evaluation is true, false or an object",
        ),
    }
}

fn metrics_of(value: &Value) -> Parsed<Vec<Metric>> {
    let at = "/evaluation/metrics";
    let Some(items) = value.as_array() else {
        return refuse(at, "wrong_type", "metrics is a list of names");
    };
    let mut metrics = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let at = format!("{at}/{i}");
        let Some(metric) = Metric::ALL
            .into_iter()
            .find(|metric| item.as_str() == Some(metric.name()))
        else {
            let names = Metric::ALL.map(Metric::name).join(", ");
            return refuse(
                &at,
                "unknown_metric",
                format!("no metric is called {}; metrics are {names}", short(item)),
            );
        };
        if metrics.contains(&metric) {
            return refuse(
                &at,
                "duplicate_metric",
                format!("{} is asked for twice", metric.name()),
            );
        }
        metrics.push(metric);
    }
    Ok(metrics)
}

/// Fields that several parts have.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    at: &'static str,
}

impl Fields<'_> {
    fn dataset(&self, default: String) -> Parsed<String> {
        let given = self.map.get("dataset");
        given.map_or(Ok(default), |value| name(value, &format!("{}/dataset", self.at)))
    }

    fn samples(&self, default: u32) -> Parsed<u32> {
        self.whole("num_samples", default, SAMPLES)
    }

    fn length(&self, default: u32) -> Parsed<u32> {
        self.whole("max_seq_length", default, LENGTH)
    }

    fn whole(&self, field: &str, default: u32, (least, most): (u32, u32)) -> Parsed<u32> {
        let Some(value) = self.map.get(field) else {
            return Ok(default);
        };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| {
                let detail = format!(
                    "{field} is a whole number, {least} to {most}; got {}",
                    short(value)
                );
                vec![Refusal::new(
                    format!("{}/{field}", self.at),
                    "out_of_range",
                    detail,
                )]
            })
    }

    fn activations(&self) -> Parsed<u64> {
        let field = "max_activation_bytes";
        let Some(value) = self.map.get(field) else {
            return Ok(ACTIVATION_BYTES);
        };
        value.as_u64().filter(|bytes| *bytes <= 1 << 44).ok_or_else(|| {
            let detail = format!("{field} is a whole number of bytes; got {}", short(value));
            vec![Refusal::new(
                format!("{}/{field}", self.at),
                "out_of_range",
                detail,
            )]
        })
    }

    fn flag(&self, field: &str, default: bool) -> Parsed<bool> {
        let Some(value) = self.map.get(field) else {
            return Ok(default);
        };
        value.as_bool().ok_or_else(|| {
            let detail = format!("{field} is true or false");
            vec![Refusal::new(format!("{}/{field}", self.at), "wrong_type", detail)]
        })
    }
}

/// Activations in memory unless the recipe says otherwise.
const ACTIVATION_BYTES: u64 = 512 << 20;

pub(super) const SAMPLES: (u32, u32) = (1, 65_536);
pub(super) const LENGTH: (u32, u32) = (8, 131_072);

fn name(value: &Value, at: &str) -> Parsed<String> {
    match value.as_str() {
        Some(name) if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') => refuse(
            at,
            "invalid_value",
            format!("a dataset's name has 1 to {MAX_NAME} bytes"),
        ),
        Some(name) => Ok(name.to_owned()),
        None => refuse(
            at,
            "wrong_type",
            "dataset is a name: builtin, or that of a dataset of yours",
        ),
    }
}

/// What was sent instead, cut short.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
