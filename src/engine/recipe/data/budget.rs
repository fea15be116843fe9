//! Budgets: a limit instead of knobs.
//!
//! Owns: the limit, its ranges, what may be chosen from. Must not know: how a choice is made.
//! Invariant: a budget has one limit; one on quality has the metric that it is measured by.

use super::{EvaluationSpec, Metric};
use crate::recipe::{Parsed, Refusal, refuse, unknown_fields};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What the result must keep within. The field that is set is the limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetSpec {
    /// The limit.
    #[serde(flatten)]
    pub limit: Budget,
    /// Schemes to choose from, as the technique names them; empty is what it suggests.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub candidates: Vec<String>,
    /// Most times that a choice is measured and corrected.
    pub max_rounds: u32,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Most bytes of all files: the least loss within them is looked for.
    TargetBytes(u64),
    /// Most bits a weight of the tensors, likewise.
    TargetBitsPerWeight(f64),
    /// Perplexity may grow by this share: the fewest bytes that keep it are looked for.
    MaxPerplexityIncrease(f64),
    /// Most mean divergence, in nats, likewise.
    MaxKl(f64),
    /// Accuracy may fall by this share of the answers, likewise.
    MaxAccuracyDrop(f64),
}

impl BudgetSpec {
    /// A budget that every choice keeps: only what may be chosen from matters.
    pub(in crate::recipe) fn any(candidates: Vec<String>) -> Self {
        Self {
            limit: Budget::TargetBitsPerWeight(64.0),
            candidates,
            max_rounds: 1,
        }
    }
}

impl Budget {
    /// Its field in recipes.
    pub fn field(self) -> &'static str {
        match self {
            Self::TargetBytes(_) => "target_bytes",
            Self::TargetBitsPerWeight(_) => "target_bits_per_weight",
            Self::MaxPerplexityIncrease(_) => "max_perplexity_increase",
            Self::MaxKl(_) => "max_kl",
            Self::MaxAccuracyDrop(_) => "max_accuracy_drop",
        }
    }

    /// The metric that tells whether it holds; none for sizes.
    pub fn metric(self) -> Option<Metric> {
        match self {
            Self::TargetBytes(_) | Self::TargetBitsPerWeight(_) => None,
            Self::MaxPerplexityIncrease(_) => Some(Metric::Perplexity),
            Self::MaxKl(_) => Some(Metric::Kl),
            Self::MaxAccuracyDrop(_) => Some(Metric::Accuracy),
        }
    }
}

/// Fields that set a limit, each with what it says.
const LIMITS: [(&str, &str); 5] = [
    (
        "target_bytes",
        "Most bytes of all files; the least loss within them is looked for",
    ),
    (
        "target_bits_per_weight",
        "Most bits a weight of the tensors as stored; the least loss within them is looked for",
    ),
    (
        "max_perplexity_increase",
        "Perplexity may grow by this share, 0.01 is one percent; the smallest result that keeps it with the upper end \
         of its 95 % interval is looked for",
    ),
    (
        "max_kl",
        "Most mean divergence of the next-token distributions, in nats; the smallest result that keeps it with the \
         upper end of its 95 % interval is looked for",
    ),
    (
        "max_accuracy_drop",
        "Accuracy on labelled evaluation data may fall by this share of the answers, 0.01 is one point; the smallest result \
         that keeps it with the upper end of its 95 % interval is looked for",
    ),
];

const ROUNDS: u32 = 6;
const MOST_ROUNDS: u64 = 32;
const MOST_CANDIDATES: usize = 64;

/// Reads a budget; it brings an evaluation that measures what it limits.
pub(super) fn budget_of(value: &Value, evaluation: &mut Option<EvaluationSpec>) -> Parsed<BudgetSpec> {
    let Some(map) = value.as_object() else {
        return refuse("/budget", "wrong_type", "budget is an object with one limit");
    };
    let mut known: Vec<&str> = LIMITS.iter().map(|limit| limit.0).collect();
    known.extend(["candidates", "max_rounds"]);
    unknown_fields(map, "/budget", &known)?;
    let limit = limit_of(map)?;
    let evaluation = evaluation.get_or_insert_default();
    if let Some(metric) = limit.metric()
        && !evaluation.metrics.is_empty()
        && !evaluation.metrics.contains(&metric)
    {
        let (field, name) = (limit.field(), metric.name());
        let detail =
            format!("{field} needs the metric {name}: add it to evaluation.metrics, or leave metrics out");
        return refuse(&format!("/budget/{field}"), "budget_without_metric", detail);
    }
    Ok(BudgetSpec {
        limit,
        candidates: map
            .get("candidates")
            .map(candidates_of)
            .transpose()?
            .unwrap_or_default(),
        max_rounds: map.get("max_rounds").map_or(Ok(ROUNDS), rounds_of)?,
    })
}

fn limit_of(map: &Map<String, Value>) -> Parsed<Budget> {
    let given: Vec<&str> = LIMITS
        .iter()
        .map(|limit| limit.0)
        .filter(|field| map.contains_key(*field))
        .collect();
    let [field] = given[..] else {
        let names = LIMITS.map(|limit| limit.0).join(", ");
        let detail = format!("budget sets exactly one of {names}; got {}", given.len());
        return refuse("/budget", "one_limit", detail);
    };
    let (at, value) = (format!("/budget/{field}"), &map[field]);
    if field == "target_bytes" {
        let bytes = value.as_u64().filter(|bytes| *bytes > 0);
        return bytes.map(Budget::TargetBytes).ok_or_else(|| {
            let detail = format!("target_bytes is a whole number of bytes, 1 or more; got {value}");
            vec![Refusal::new(at, "out_of_range", detail)]
        });
    }
    match value
        .as_f64()
        .filter(|number| number.is_finite() && *number > 0.0)
    {
        Some(number) if field == "target_bits_per_weight" => Ok(Budget::TargetBitsPerWeight(number)),
        Some(number) if field == "max_kl" => Ok(Budget::MaxKl(number)),
        Some(number) if field == "max_accuracy_drop" => Ok(Budget::MaxAccuracyDrop(number)),
        Some(number) => Ok(Budget::MaxPerplexityIncrease(number)),
        None => refuse(
            &at,
            "out_of_range",
            format!("{field} is a number above 0; got {value}"),
        ),
    }
}

fn candidates_of(value: &Value) -> Parsed<Vec<String>> {
    let at = "/budget/candidates";
    let names: Option<Vec<String>> = value.as_array().and_then(|items| {
        items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect()
    });
    match names {
        Some(names) if names.is_empty() || names.len() > MOST_CANDIDATES => refuse(
            at,
            "out_of_range",
            format!(
                "candidates are 1 to {MOST_CANDIDATES} names; leave it out for what the technique suggests"
            ),
        ),
        Some(names) => Ok(names),
        None => refuse(at, "wrong_type", "candidates is a list of names"),
    }
}

fn rounds_of(value: &Value) -> Parsed<u32> {
    let rounds = value.as_u64().filter(|rounds| (1..=MOST_ROUNDS).contains(rounds));
    rounds.map(|rounds| rounds as u32).ok_or_else(|| {
        let detail = format!("max_rounds is a whole number, 1 to {MOST_ROUNDS}; got {value}");
        vec![Refusal::new("/budget/max_rounds", "out_of_range", detail)]
    })
}

/// JSON Schema of a budget.
pub(in crate::recipe) fn budget() -> Value {
    let mut fields = Map::new();
    for (field, says) in LIMITS {
        let kind = if field == "target_bytes" {
            "integer"
        } else {
            "number"
        };
        fields.insert(
            field.to_owned(),
            json!({"type": kind, "exclusiveMinimum": 0, "description": says}),
        );
    }
    fields.insert(
        "candidates".to_owned(),
        json!({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_CANDIDATES,
               "description": "Schemes to choose from for each tensor, as `GET /v1/techniques` lists them; what the \
                technique suggests if left out", "examples": [["Q4_K", "Q5_K", "Q6_K", "Q8_0"]]}),
    );
    fields.insert(
        "max_rounds".to_owned(),
        json!({"type": "integer", "minimum": 1, "maximum": MOST_ROUNDS, "default": ROUNDS,
               "description": "Most times that a choice is measured and corrected"}),
    );
    let limits: Vec<Value> = LIMITS
        .iter()
        .map(|limit| json!({"required": [limit.0]}))
        .collect();
    json!({"type": "object", "additionalProperties": false, "properties": fields, "oneOf": limits,
           "description": "A limit instead of knobs: the scheme of each tensor is chosen so that it holds. Brings an \
            evaluation and a calibration.",
           "example": {"target_bits_per_weight": 4.5}})
}
