//! What the low-rank techniques share.
//!
//! Owns: ranks of tensors by their options. Must not know: how factors are found.
//! Invariant: two factors are smaller than what they stand for, or that is refused.

use super::options::{self, Options, Planned};
use super::{Decision, Schemes};
use crate::error::Result;
use crate::kernels::factor::allocate::{self, Curve};
use crate::kernels::factor::{Factors, rank_for_energy, rank_for_ratio};
use crate::plan::{Context, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::{DType, Rows, encode_rows, round_to};
use crate::weight::{Dense, Kind, LowRank, Weight};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// Option with which single modules get another rank than the stage's.
pub(super) const TENSOR_RANK: &str = "tensor_rank";

/// Option with which they get another ratio; what a budget chooses.
const TENSOR_RATIO: &str = "tensor_ratio";

/// The property of ranks in a schema.
pub(super) fn tensor_rank() -> Value {
    json!({"type": "object", "default": {}, "examples": [{"128": ["re:.*down_proj"]}],
        "description": "Rank of single modules instead: for each rank a list of module names or of re: and a regular expression, as in targets."})
}

/// A schema of these options and the technique's own.
pub(super) fn schema(own: &Value) -> Value {
    let mut properties = json!({
        "ratio": {"type": "number", "minimum": 0.001, "maximum": 0.999, "default": 0.5, "examples": [0.5],
            "description": "Share of a matrix' parameters that its two factors have: the rank is ratio·m·n/(m+n)."},
        "rank": {"type": "integer", "minimum": 1, "maximum": 65_536, "examples": [64],
            "description": "Rank of every matrix, instead of a ratio."},
        "energy": {"type": "number", "minimum": 0.001, "maximum": 0.999_999, "examples": [0.95],
            "description": "Share of each matrix' squared norm that its factors keep, instead of a ratio: the rank is the least that does. A matrix whose factors would be as large as itself stays as it is. With whitening the norm is that of the layer's answers."},
        "allocation": {"type": "string", "enum": ["uniform", "loss"], "default": "uniform", "examples": ["loss"],
            "description": "Every matrix gets the ratio; or all together do, and each gets as much of it as saves most of the squared error, relative to the matrix: from one rank to all of it."},
        "tensor_rank": tensor_rank(),
        "tensor_ratio": {"type": "object", "default": {}, "examples": [{"0.7": ["re:.*down_proj"], "1": ["re:.*v_proj"]}],
            "description": "Ratio of single modules instead, likewise: above 0 and at most 1, where 1 leaves a matrix as it is."}});
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
    let asked = ["rank", "ratio", "energy"].map(|name| (name, given(name).is_some()));
    let mut asked = asked
        .iter()
        .filter(|(_, is_given)| *is_given)
        .map(|(name, _)| *name);
    if let (Some(one), Some(other)) = (asked.next(), asked.next()) {
        let pointer = options::pointer(context, one);
        let detail = format!("give {one} or {other}, not both");
        return Err(vec![Refusal::new(pointer, "conflicting_options", detail)]);
    }
    let by_loss = options.text("allocation") == "loss";
    if let Some(name) = ["rank", "energy"]
        .into_iter()
        .find(|name| by_loss && given(name).is_some())
    {
        let detail = format!(
            "allocation \"loss\" shares a ratio out between matrices, and {name} says what each gets"
        );
        let pointer = options::pointer(context, "allocation");
        return Err(vec![Refusal::new(pointer, "conflicting_options", detail)]);
    }
    let is_open = by_loss || given("energy").is_some();
    let own = Own {
        ranks: own_ranks(context, options)?,
        ratios: own_ratios(context, options)?,
    };
    let mut decision = Decision::default();
    let mut refusals = Vec::new();
    for (index, tensor) in tensors {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let dtype = options::scale_dtype("auto", tensor);
        let (rank, option) = match own.of(*index, context)? {
            Some(Share::Whole) => {
                decision.kinds.push((*index, Kind::Dense { dtype }));
                continue;
            }
            Some(Share::Rank(rank)) => (rank, TENSOR_RANK),
            Some(Share::Ratio(ratio)) => (rank_for_ratio(rows, cols, ratio), TENSOR_RATIO),
            None if is_open => {
                let rank = open_rank(rows, cols);
                decision.kinds.push((*index, Kind::LowRank { rank, dtype }));
                decision.is_open = true;
                continue;
            }
            None => match given("rank").and_then(Value::as_u64) {
                Some(rank) => (usize::try_from(rank).unwrap_or(usize::MAX), "rank"),
                None => (rank_for_ratio(rows, cols, options.real("ratio")), "ratio"),
            },
        };
        if !saves(rank, rows, cols) {
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
        decision.kinds.push((*index, Kind::LowRank { rank, dtype }));
    }
    refusals.truncate(1);
    if refusals.is_empty() {
        Ok(decision)
    } else {
        Err(refusals)
    }
}

/// True where two factors are smaller than the matrix.
fn saves(rank: usize, rows: usize, cols: usize) -> bool {
    rank.saturating_mul(rows + cols) < rows * cols
}

/// The rank of what is not known yet: the least that saves nothing, so that what is found then is no larger.
fn open_rank(rows: usize, cols: usize) -> usize {
    (rows * cols).div_ceil((rows + cols).max(1))
}

/// True of a tensor whose rank is not known yet.
pub(super) fn is_open(kind: Kind, rows: usize, cols: usize) -> bool {
    matches!(kind, Kind::LowRank { rank, .. } if !saves(rank, rows, cols))
}

/// The options with ranks in place of what was asked for, where `seen` has the losses of every rank of a matrix, or nothing
/// for one whose rank was known.
pub(super) fn settle(
    given: &Value,
    options: &Options<'_>,
    seen: &[(&TensorPlan, Vec<f64>)],
) -> Result<Value> {
    let open: Vec<&(&TensorPlan, Vec<f64>)> = seen.iter().filter(|(_, losses)| !losses.is_empty()).collect();
    let ranks = if options.text("allocation") == "loss" {
        allocated(options.real("ratio"), &open)?
    } else {
        let energy = options.real("energy");
        let rank = |(_, losses): &&(&TensorPlan, Vec<f64>)| rank_for_energy(losses, energy);
        open.iter().map(rank).collect()
    };
    let mut own = given.as_object().cloned().unwrap_or_default();
    for name in ["energy", "allocation"] {
        own.remove(name);
    }
    for ((tensor, _), rank) in open.into_iter().zip(ranks) {
        let (option, name) = if saves(rank, tensor.rows(), tensor.cols()) {
            (TENSOR_RANK, rank.to_string())
        } else {
            (TENSOR_RATIO, "1".to_owned())
        };
        let modules = own.entry(option).or_insert_with(|| json!({}));
        match modules[&name].as_array_mut() {
            Some(list) => list.push(json!(tensor.module())),
            None => modules[&name] = json!([tensor.module()]),
        }
    }
    Ok(own.into())
}

/// Ranks under which all matrices together have this share of their parameters and lose least, each relative to its norm.
fn allocated(ratio: f64, open: &[&(&TensorPlan, Vec<f64>)]) -> Result<Vec<usize>> {
    let curve = |(tensor, losses): &&(&TensorPlan, Vec<f64>)| {
        let norm = losses[0].max(f64::MIN_POSITIVE);
        Curve {
            rows: tensor.rows(),
            cols: tensor.cols(),
            losses: losses.iter().map(|loss| loss / norm).collect(),
            least: 1,
            may_stay: true,
        }
    };
    let curves: Vec<Curve> = open.iter().map(curve).collect();
    let all: u64 = open.iter().map(|(tensor, _)| tensor.elements() as u64).sum();
    let least: u64 = curves
        .iter()
        .map(|c| (c.rows + c.cols).min(c.rows * c.cols) as u64)
        .sum();
    let budget = ((ratio * all as f64) as u64).max(least);
    let found = allocate::allocate(&curves, budget)?;
    let shares = found.shares.into_iter().zip(open);
    let rank = |(share, (tensor, _)): (allocate::Share, &&(&TensorPlan, Vec<f64>))| match share {
        allocate::Share::Rank(rank) => rank,
        allocate::Share::Whole => tensor.rows().min(tensor.cols()),
    };
    Ok(shares.map(rank).collect())
}

/// What a single module gets.
enum Share {
    Rank(usize),
    Ratio(f64),
    Whole,
}

/// What single modules get, by the tensor's index.
struct Own {
    ranks: HashMap<usize, usize>,
    ratios: HashMap<usize, f64>,
}

impl Own {
    fn of(&self, index: usize, context: &Context<'_>) -> Planned<Option<Share>> {
        match (self.ranks.get(&index), self.ratios.get(&index)) {
            (Some(_), Some(_)) => {
                let detail = format!(
                    "{} is in {TENSOR_RANK} and in {TENSOR_RATIO}",
                    context.tensors[index].module()
                );
                let pointer = options::pointer(context, TENSOR_RATIO);
                Err(vec![Refusal::new(pointer, "conflicting_options", detail)])
            }
            (Some(rank), None) => Ok(Some(Share::Rank(*rank))),
            (None, Some(ratio)) if *ratio < 1.0 => Ok(Some(Share::Ratio(*ratio))),
            (None, Some(_)) => Ok(Some(Share::Whole)),
            (None, None) => Ok(None),
        }
    }
}

fn own_ratios(context: &Context<'_>, options: &Options<'_>) -> Planned<HashMap<usize, f64>> {
    let read = |name: &str| name.parse().ok().filter(|ratio| *ratio > 0.0 && *ratio <= 1.0);
    options::by_module(
        context,
        options,
        TENSOR_RATIO,
        &read,
        "numbers above 0 and at most 1",
    )
}

/// Ranks of single modules, by the tensor's index.
pub(super) fn own_ranks(context: &Context<'_>, options: &Options<'_>) -> Planned<HashMap<usize, usize>> {
    let read = |name: &str| name.parse().ok().filter(|rank| *rank > 0);
    options::by_module(context, options, TENSOR_RANK, &read, "whole numbers from 1")
}

/// A matrix that stays as it is.
pub(super) fn whole(input: &dyn Rows, dtype: DType) -> Result<Weight> {
    Ok(Weight::Dense(Dense {
        rows: input.rows(),
        cols: input.cols(),
        dtype,
        bytes: encode_rows(input, dtype)?,
    }))
}

/// Ratios as schemes: how much of each matrix its factors have.
pub(super) struct Ratios;

impl Schemes for Ratios {
    fn all(&self) -> &'static [&'static str] {
        &[
            "0.1", "0.15", "0.2", "0.25", "0.3", "0.35", "0.4", "0.45", "0.5", "0.55", "0.6", "0.65", "0.7",
            "0.75", "0.8", "0.85", "0.9", "0.95", "1",
        ]
    }

    fn suggested(&self) -> &'static [&'static str] {
        &["0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]
    }

    fn fits(&self, scheme: &str, tensor: &TensorPlan) -> bool {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        scheme
            .parse()
            .is_ok_and(|ratio| ratio >= 1.0 || saves(rank_for_ratio(rows, cols, ratio), rows, cols))
    }

    fn assign(&self, options: &Value, modules: &BTreeMap<&str, Vec<&str>>) -> Value {
        let mut own = options.as_object().cloned().unwrap_or_default();
        for name in [TENSOR_RANK, "energy", "allocation"] {
            own.remove(name);
        }
        own.insert(TENSOR_RATIO.to_owned(), json!(modules));
        own.into()
    }

    /// A part of a matrix' rows has a lower rank than the whole.
    fn needs_all_rows(&self) -> bool {
        true
    }
}

/// Factors as a weight of the planned rank, rounded to their type; zeros where a matrix has less.
pub(super) fn weight(factors: Factors, rank: usize, dtype: DType) -> LowRank {
    let factors = filled(factors, rank);
    let rounded = |values: Vec<f32>| values.into_iter().map(|v| round_to(dtype, v)).collect();
    LowRank {
        rows: factors.rows,
        cols: factors.cols,
        rank: factors.rank,
        dtype,
        left: rounded(factors.left),
        right: rounded(factors.right),
    }
}

fn filled(mut factors: Factors, rank: usize) -> Factors {
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
