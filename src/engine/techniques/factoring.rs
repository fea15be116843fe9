//! What the low-rank techniques share.
//!
//! Owns: ranks of tensors by their options. Must not know: how factors are found.
//! Invariant: two factors are smaller than what they stand for, or that is refused.

use super::Decision;
use super::options::{self, Options, Planned};
use crate::kernels::factor::{Factors, rank_for_ratio};
use crate::plan::{Context, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::{DType, round_to};
use crate::weight::{Kind, LowRank, Weight};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Option with which single modules get another rank than the stage's.
const TENSOR_RANK: &str = "tensor_rank";

/// A schema of these options and the technique's own.
pub(super) fn schema(own: &Value) -> Value {
    let mut properties = json!({
        "ratio": {"type": "number", "minimum": 0.001, "maximum": 0.999, "default": 0.5, "examples": [0.5],
            "description": "Share of a matrix' parameters that its two factors have: the rank is ratio·m·n/(m+n)."},
        "rank": {"type": "integer", "minimum": 1, "maximum": 65_536, "examples": [64],
            "description": "Rank of every matrix, instead of a ratio."},
        "tensor_rank": {"type": "object", "default": {}, "examples": [{"128": ["re:.*down_proj"]}],
            "description": "Rank of single modules instead: for each rank a list of module names or of re: and a regular expression, as in targets."}});
    for (name, property) in own.as_object().into_iter().flatten() {
        properties[name] = property.clone();
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// What becomes of these tensors, by options that were checked.
pub(super) fn decide(
    context: &Context<'_>,
    options: &Options<'_>,
    tensors: &[(usize, &TensorPlan)],
) -> Planned<Decision> {
    let given = |name: &str| context.spec.options.get(name);
    if given("rank").is_some() && given("ratio").is_some() {
        let pointer = options::pointer(context, "rank");
        let detail = "give rank or ratio, not both".to_owned();
        return Err(vec![Refusal::new(pointer, "conflicting_options", detail)]);
    }
    let own = own_ranks(context, options)?;
    let mut decision = Decision::default();
    let mut refusals = Vec::new();
    for (index, tensor) in tensors {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let (rank, option) = match (own.get(index), given("rank").and_then(Value::as_u64)) {
            (Some(rank), _) => (*rank, TENSOR_RANK),
            (None, Some(rank)) => (usize::try_from(rank).unwrap_or(usize::MAX), "rank"),
            (None, None) => (rank_for_ratio(rows, cols, options.real("ratio")), "ratio"),
        };
        if rank.saturating_mul(rows + cols) >= rows * cols {
            let most = (rows * cols - 1) / (rows + cols).max(1);
            let detail = format!(
                "rank {rank} makes {} no smaller: two factors of {rows} × {cols} are smaller up to rank {most}",
                tensor.name
            );
            refusals.push(Refusal::new(
                options::pointer(context, option),
                "rank_too_large",
                detail,
            ));
        }
        let dtype = match tensor.source_dtype {
            dtype @ (DType::F16 | DType::BF16) => dtype,
            _ => DType::F32,
        };
        decision.kinds.push((*index, Kind::LowRank { rank, dtype }));
    }
    refusals.truncate(1);
    if refusals.is_empty() {
        Ok(decision)
    } else {
        Err(refusals)
    }
}

fn own_ranks(context: &Context<'_>, options: &Options<'_>) -> Planned<HashMap<usize, usize>> {
    let read = |name: &str| name.parse().ok().filter(|rank| *rank > 0);
    options::by_module(context, options, TENSOR_RANK, &read, "whole numbers from 1")
}

/// Factors as a weight, rounded to their type.
pub(super) fn weight(factors: Factors, dtype: DType) -> Weight {
    let rounded = |values: Vec<f32>| values.into_iter().map(|v| round_to(dtype, v)).collect();
    Weight::LowRank(LowRank {
        rows: factors.rows,
        cols: factors.cols,
        rank: factors.rank,
        dtype,
        left: rounded(factors.left),
        right: rounded(factors.right),
    })
}

/// Factors of the planned rank, with zeros where a matrix has less.
pub(super) fn filled(mut factors: Factors, rank: usize) -> Factors {
    if factors.rank < rank {
        let (own, rows) = (factors.rank, factors.rows);
        let mut left = vec![0.0; rows * rank];
        for (to, from) in left.chunks_mut(rank).zip(factors.left.chunks(own)) {
            to[..own].copy_from_slice(from);
        }
        factors.left = left;
        factors.right.resize(rank * factors.cols, 0.0);
        factors.rank = rank;
    }
    factors
}
