//! Quality gates: what a recipe demands of the result.
//!
//! Owns: comparing measures with gates. Must not know: how they were measured.
//! Invariant: the measured value decides, and the sentence says by how much.

use super::Quality;
use crate::recipe::GateSpec;

/// The first gate that was missed, in one sentence.
pub fn missed(gates: &GateSpec, quality: &Quality) -> Option<String> {
    let above = |limit: Option<f64>, value: Option<f64>, what: &str| {
        let (limit, value) = (limit?, value?);
        (value > limit || value.is_nan()).then(|| format!("{what} is {value:.6}, the gate allows {limit}"))
    };
    let below = |limit: Option<f64>, value: Option<f64>, what: &str| {
        let (limit, value) = (limit?, value?);
        (value < limit || value.is_nan()).then(|| format!("{what} is {value:.6}, the gate demands {limit}"))
    };
    let after = |metric: &str| quality.measure(metric).map(|m| m.after);
    let increase = quality.measure("perplexity").and_then(|m| m.change);
    above(
        gates.max_perplexity_increase,
        increase,
        "the relative increase of perplexity (max_perplexity_increase)",
    )
    .or_else(|| {
        above(
            gates.max_kl,
            after("kl"),
            "the mean divergence from the original (max_kl)",
        )
    })
    .or_else(|| {
        let what = "the share of tokens with the same first choice (min_top1_agreement)";
        below(gates.min_top1_agreement, after("top1_agreement"), what)
    })
    .or_else(|| {
        below(
            gates.min_cosine,
            after("cosine"),
            "the mean cosine to the original (min_cosine)",
        )
    })
    .or_else(|| {
        below(
            gates.min_accuracy,
            after("accuracy"),
            "the accuracy (min_accuracy)",
        )
    })
}
