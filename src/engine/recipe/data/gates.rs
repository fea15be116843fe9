//! Quality gates: limits that the result must keep.
//!
//! Owns: the limits, their ranges, which metric each needs. Must not know: how a metric is computed.
//! Invariant: a gate on something that is not measured is refused: it would never close.

use super::{EvaluationSpec, Fields, Metric};
use crate::recipe::{Parsed, refuse, unknown_fields};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Limits that the result must keep, or the job fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GateSpec {
    /// Perplexity may grow by this share: 0.01 is one percent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_perplexity_increase: Option<f64>,
    /// Mean divergence, in nats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_kl: Option<f64>,
    /// Share of tokens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_top1_agreement: Option<f64>,
    /// Mean cosine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_cosine: Option<f64>,
    /// Share of labels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_accuracy: Option<f64>,
    /// Publish the artifact of a job that missed a limit too.
    #[serde(default)]
    pub keep_artifact: bool,
}

/// A gate: its field, the metric it needs, its range.
struct Limit {
    field: &'static str,
    metric: Metric,
    least: f64,
    most: f64,
    says: &'static str,
}

const LIMITS: [Limit; 5] = [
    limit(
        "max_perplexity_increase",
        Metric::Perplexity,
        (0.0, f64::MAX),
        "Perplexity may grow by this share: 0.01 is one percent",
    ),
    limit(
        "max_kl",
        Metric::Kl,
        (0.0, f64::MAX),
        "Most mean divergence of the next-token distributions, in nats",
    ),
    limit(
        "min_top1_agreement",
        Metric::Top1Agreement,
        (0.0, 1.0),
        "Least share of tokens where both models put the same one first",
    ),
    limit(
        "min_cosine",
        Metric::Cosine,
        (-1.0, 1.0),
        "Least mean cosine between the two models' embeddings",
    ),
    limit(
        "min_accuracy",
        Metric::Accuracy,
        (0.0, 1.0),
        "Least share of labels that the compressed model answers",
    ),
];

const fn limit(field: &'static str, metric: Metric, (least, most): (f64, f64), says: &'static str) -> Limit {
    Limit {
        field,
        metric,
        least,
        most,
        says,
    }
}

impl GateSpec {
    fn slots(&mut self) -> [&mut Option<f64>; 5] {
        [
            &mut self.max_perplexity_increase,
            &mut self.max_kl,
            &mut self.min_top1_agreement,
            &mut self.min_cosine,
            &mut self.min_accuracy,
        ]
    }
}

impl GateSpec {
    /// The limits that are set, each with the metric it needs.
    pub fn needs(&self) -> Vec<(&'static str, Metric)> {
        let mut own = self.clone();
        let set = LIMITS.iter().zip(own.slots()).filter(|(_, slot)| slot.is_some());
        set.map(|(limit, _)| (limit.field, limit.metric)).collect()
    }
}

pub(super) fn gates_of(value: &Value) -> Parsed<GateSpec> {
    let Some(map) = value.as_object() else {
        return refuse("/gates", "wrong_type", "gates is an object of limits");
    };
    let mut known = LIMITS.map(|limit| limit.field).to_vec();
    known.push("keep_artifact");
    unknown_fields(map, "/gates", &known)?;
    let fields = Fields { map, at: "/gates" };
    let mut gates = GateSpec {
        keep_artifact: fields.flag("keep_artifact", false)?,
        ..GateSpec::default()
    };
    for (limit, slot) in LIMITS.iter().zip(gates.slots()) {
        *slot = map.get(limit.field).map(|value| limit.read(value)).transpose()?;
    }
    if gates.slots().iter().all(|slot| slot.is_none()) {
        let names = LIMITS.map(|limit| limit.field).join(", ");
        return refuse(
            "/gates",
            "missing_field",
            format!("gates sets at least one of {names}"),
        );
    }
    Ok(gates)
}

impl Limit {
    fn read(&self, value: &Value) -> Parsed<f64> {
        let at = format!("/gates/{}", self.field);
        let Some(number) = value.as_f64().filter(|number| number.is_finite()) else {
            return refuse(&at, "wrong_type", format!("{} is a number", self.field));
        };
        if (self.least..=self.most).contains(&number) {
            return Ok(number);
        }
        let range = if self.most == f64::MAX {
            format!("{} or more", self.least)
        } else {
            format!("{} to {}", self.least, self.most)
        };
        refuse(
            &at,
            "out_of_range",
            format!("{} is {range}; got {number}", self.field),
        )
    }
}

/// A gate on something that is not measured would never close.
pub(super) fn measured(gates: &GateSpec, evaluation: &EvaluationSpec) -> Parsed<()> {
    let is_measured = |metric| evaluation.metrics.is_empty() || evaluation.metrics.contains(metric);
    match gates.needs().iter().find(|(_, metric)| !is_measured(metric)) {
        None => Ok(()),
        Some((field, metric)) => {
            let name = metric.name();
            let detail = format!(
                "{field} needs the metric {name}: add it to evaluation.metrics, or leave metrics out"
            );
            refuse(&format!("/gates/{field}"), "gate_without_metric", detail)
        }
    }
}

/// JSON Schema of the limits.
pub(in crate::recipe) fn limits() -> Map<String, Value> {
    let mut gates = Map::new();
    for limit in &LIMITS {
        let mut gate = json!({"type": "number", "minimum": limit.least, "description": limit.says});
        if limit.most < f64::MAX {
            gate["maximum"] = limit.most.into();
        }
        gates.insert(limit.field.to_owned(), gate);
    }
    let keep = "Publish the artifact of a job that missed a limit too";
    let keep = json!({"type": "boolean", "default": false, "description": keep});
    gates.insert("keep_artifact".to_owned(), keep);
    gates
}
