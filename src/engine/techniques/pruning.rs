//! What the techniques that make zeros share.
//!
//! Owns: their options, which tensors they fit, how many weights of each go. Must not know: scores.
//! Invariant: a pattern is promised only where it divides the rows.

use super::options::{self, Options, Planned};
use super::{BlockStage, Decision, Task};
use crate::error::{Error, Result};
use crate::kernels::prune;
use crate::network::read_all;
use crate::plan::{Context, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::{DType, MemoryRows, Rows, encode_rows};
use crate::weight::{Dense, Kind, Pattern, Sparsity, Weight};
use serde_json::{Map, Value, json};

/// Option with which single modules get another sparsity than the stage's.
const TENSOR_SPARSITY: &str = "tensor_sparsity";
/// Option that makes several stages of one.
const ITERATIONS: &str = "iterations";

/// The zeros that a stage plans for a layer.
pub(super) fn planned(stage: &BlockStage<'_>, name: &str) -> Result<Sparsity> {
    let sparsity = stage.sparsity(name);
    sparsity.ok_or_else(|| Error::internal("it was planned without zeros"))
}

/// A schema of these options and the technique's own.
pub(super) fn schema(own: &Value) -> Value {
    let shared = json!({
        "sparsity": {"type": "number", "minimum": 0.0, "maximum": 0.99, "default": 0.5, "examples": [0.5],
            "description": "Share of the weights that become zeros; with a pattern n:m it is the pattern's, and need not be given."},
        "pattern": {"type": "string", "default": "unstructured", "examples": ["2:4"],
            "description": "Where zeros lie: unstructured (anywhere), or n:m, where of every m consecutive inputs of a row n are kept: 2:4 is what sparse tensor cores multiply."},
        "tensor_sparsity": {"type": "object", "default": {}, "examples": [{"0.3": ["re:.*down_proj"]}],
            "description": "Sparsity of single modules instead of the stage's, pattern unstructured only: for each share a list of module names or of re: and a regular expression, as in targets."},
        "iterations": {"type": "integer", "minimum": 1, "maximum": 16, "default": 1, "examples": [4],
            "description": "Steps in which the sparsity is reached, pattern unstructured only: what scores are made of (inputs, gradients) is looked at again before each, behind the zeros so far."},
        "schedule": {"type": "string", "enum": ["cubic", "linear"], "default": "cubic", "examples": ["cubic"],
            "description": "Sparsity behind step t of T: s·(1 − (1 − t/T)³), most of it early, while much can go (Zhu and Gupta 2017), or s·t/T."}});
    let mut properties = shared.as_object().cloned().unwrap_or_default();
    properties.extend(own.as_object().cloned().unwrap_or_else(Map::new));
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// The stages that a schedule is: the same with a growing sparsity.
pub(super) fn steps(options: &Value) -> Option<Vec<Value>> {
    let given = options.as_object()?;
    let count = given.get(ITERATIONS)?.as_u64().filter(|n| (2..=16).contains(n))?;
    let unstructured = |v: &Value| v.as_str() == Some("unstructured");
    if !given.get("pattern").is_none_or(unstructured) {
        return None;
    }
    let is_linear = given
        .get("schedule")
        .is_some_and(|v| v.as_str() == Some("linear"));
    let sparsity = given.get("sparsity").map_or(Some(0.5), Value::as_f64)?;
    let step = |t: u64| {
        let left = 1.0 - t as f64 / count as f64;
        let part = if is_linear { 1.0 - left } else { 1.0 - left.powi(3) };
        let mut step = given.clone();
        step.remove(ITERATIONS);
        step.remove("schedule");
        step.insert("sparsity".into(), json!(sparsity * part));
        if let Some(Value::Object(own)) = given.get(TENSOR_SPARSITY) {
            let scaled = own.iter().map(|(share, modules)| {
                let share = share
                    .parse()
                    .map_or_else(|_| share.clone(), |s: f64| (s * part).to_string());
                (share, modules.clone())
            });
            step.insert(TENSOR_SPARSITY.into(), Value::Object(scaled.collect()));
        }
        Value::Object(step)
    };
    Some((1..=count).map(step).collect())
}

/// Values of `scope`, where a technique lets the user choose what is ranked together.
pub(super) fn scopes(default: &str) -> Value {
    json!({"type": "string", "enum": ["row", "layer", "global"], "default": default, "examples": [default],
        "description": "Which weights compete (pattern unstructured): those of an output row, those of a layer, or all that the stage targets: then layers end with different sparsities."})
}

/// Who competes with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Row,
    Layer,
    Global,
}

impl Scope {
    pub(super) fn of(options: &Options<'_>) -> Self {
        match options.text("scope") {
            "row" => Self::Row,
            "global" => Self::Global,
            _ => Self::Layer,
        }
    }
}

/// True where all weights that the stage targets compete.
pub(super) fn is_global(options: &Options<'_>) -> bool {
    Scope::of(options) == Scope::Global && options.text("pattern") == "unstructured"
}

/// Refuses rows and runs of weights that are stored as columns: these techniques take a matrix as it lies.
pub(super) fn check_stored(
    context: &Context<'_>,
    options: &Options<'_>,
    tensors: &[(usize, &TensorPlan)],
) -> Planned<()> {
    let by_rows = options.text("pattern") != "unstructured" || Scope::of(options) == Scope::Row;
    let turned = tensors.iter().find(|(_, t)| context.transposed.contains(&t.name));
    match turned.filter(|_| by_rows) {
        None => Ok(()),
        Some((_, tensor)) => {
            let detail = format!(
                "{} is stored as [in, out], and rows and n:m are of inputs: use scope layer or global and pattern \
                 unstructured here, or wanda or sparsegpt",
                tensor.name
            );
            let pointer = format!("{}/targets", context.pointer);
            Err(vec![Refusal::new(pointer, "stored_transposed", detail)])
        }
    }
}

/// What becomes of these tensors, by options that were checked.
pub(super) fn decide(
    context: &Context<'_>,
    options: &Options<'_>,
    tensors: &[(usize, &TensorPlan)],
    is_global: bool,
) -> Planned<Decision> {
    let pattern = pattern(context, options)?;
    check_dtypes(context, tensors)?;
    check_runs(context, pattern, tensors)?;
    if options.number(ITERATIONS) > 1 {
        // What can be done in steps is spelled out by now.
        let detail =
            format!("pattern {pattern} has one sparsity, which is reached at once: leave iterations out");
        let pointer = options::pointer(context, ITERATIONS);
        return Err(vec![Refusal::new(pointer, "conflicting_options", detail)]);
    }
    let own = own_shares(context, options, pattern, is_global)?;
    let mut decision = Decision::default();
    for (index, tensor) in tensors {
        let asked = pattern.share().unwrap_or_else(|| options.real("sparsity"));
        let share = own.get(index).copied().unwrap_or(asked);
        decision.kinds.push((*index, tensor.kind));
        decision.sparsities.push((
            *index,
            Sparsity {
                pattern,
                share: (!is_global).then_some(share),
            },
        ));
    }
    Ok(decision)
}

fn pattern(context: &Context<'_>, options: &Options<'_>) -> Planned<Pattern> {
    let text = options.text("pattern");
    let refuse = |option: &str, code: &'static str, detail: String| {
        Err(vec![Refusal::new(
            options::pointer(context, option),
            code,
            detail,
        )])
    };
    let Some(pattern) = Pattern::parse(text) else {
        let detail =
            format!("pattern is unstructured, or n:m with 0 < n < m ≤ 64, such as 2:4 or 4:8; got {text:?}");
        return refuse("pattern", "invalid_option", detail);
    };
    let given = context.spec.options.get("sparsity").and_then(Value::as_f64);
    match (pattern.share(), given) {
        (Some(share), Some(given)) if (share - given).abs() > 1e-6 => {
            let detail = format!("pattern {pattern} has a sparsity of {share}: leave sparsity out");
            refuse("sparsity", "conflicting_options", detail)
        }
        _ => Ok(pattern),
    }
}

fn own_shares(
    context: &Context<'_>,
    options: &Options<'_>,
    pattern: Pattern,
    is_global: bool,
) -> Planned<std::collections::HashMap<usize, f64>> {
    let read = |name: &str| name.parse().ok().filter(|share| (0.0..1.0).contains(share));
    let own = options::by_module(
        context,
        options,
        TENSOR_SPARSITY,
        &read,
        "shares from 0 to below 1",
    )?;
    if own.is_empty() || (pattern == Pattern::Unstructured && !is_global) {
        return Ok(own);
    }
    let detail = "tensor_sparsity needs the pattern unstructured and another scope than global, which says what each \
                  tensor's share is";
    let pointer = options::pointer(context, TENSOR_SPARSITY);
    Err(vec![Refusal::new(
        pointer,
        "conflicting_options",
        detail.to_owned(),
    )])
}

fn check_dtypes(context: &Context<'_>, tensors: &[(usize, &TensorPlan)]) -> Planned<()> {
    let is_plain = |kind: Kind| {
        matches!(
            kind,
            Kind::Dense {
                dtype: DType::F32 | DType::F16 | DType::BF16
            }
        )
    };
    let odd = tensors.iter().filter(|(_, t)| !is_plain(t.kind));
    let refusals: Vec<Refusal> = odd
        .map(|(_, tensor)| {
            let detail = format!(
                "{} is {}: only F32, F16 and BF16 tensors are pruned",
                tensor.name, tensor.source_dtype
            );
            Refusal::new(
                format!("{}/targets", context.pointer),
                "unsupported_dtype",
                detail,
            )
        })
        .collect();
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

/// Refuses a pattern that does not divide rows.
fn check_runs(context: &Context<'_>, pattern: Pattern, tensors: &[(usize, &TensorPlan)]) -> Planned<()> {
    let Pattern::NOfM { of, .. } = pattern else {
        return Ok(());
    };
    let inputs = |t: &TensorPlan| {
        if context.transposed.contains(&t.name) {
            t.rows()
        } else {
            t.cols()
        }
    };
    let bad: Vec<_> = tensors
        .iter()
        .filter(|(_, t)| !inputs(t).is_multiple_of(of))
        .collect();
    let Some((_, first)) = bad.first() else {
        return Ok(());
    };
    let detail = format!(
        "pattern {pattern} does not divide the {} inputs of {} ({} tensors in all): ignore these, or use \
         \"unstructured\"",
        inputs(first),
        first.name,
        bad.len()
    );
    let pointer = options::pointer(context, "pattern");
    Err(vec![Refusal::new(pointer, "pattern_does_not_divide", detail)])
}

/// Targeted layers of blocks, those too that a checkpoint stores as `[in, out]`: zeros need no format for it.
pub(super) fn layers<'a>(context: &'a Context<'_>) -> Planned<Vec<(usize, &'a TensorPlan)>> {
    options::layers_or(context, &context.transposed)
}

/// Zeroes the smallest scores of one tensor, as its task says. `score` gets an index and its value.
pub(super) fn prune(
    task: &Task<'_>,
    input: &dyn Rows,
    scope: Scope,
    score: &(dyn Fn(usize, f32) -> f32 + Sync),
) -> Result<Weight> {
    let mut values = read_all(input)?;
    crate::kernels::check_finite(&values, 0)?;
    let (cols, n) = (input.cols(), values.len());
    let sparsity = task
        .sparsity
        .ok_or_else(|| Error::internal("a task that prunes nothing"))?;
    let share = sparsity
        .share
        .ok_or_else(|| Error::internal("a share that nobody found"))?;
    match (sparsity.pattern, scope) {
        (Pattern::NOfM { keep, of }, _) => prune::n_of_m(&mut values, cols, (keep, of), score),
        (_, Scope::Row) => prune::rows(&mut values, cols, prune::count(cols, share), score),
        (_, Scope::Layer | Scope::Global) => prune::layer(&mut values, prune::count(n, share), score),
    }
    dense(&values, cols, task.kind)
}

/// Values as a plain weight of a kind.
pub(super) fn dense(values: &[f32], cols: usize, kind: Kind) -> Result<Weight> {
    let Kind::Dense { dtype } = kind else {
        return Err(Error::internal(format!(
            "pruning was planned as {}",
            kind.label()
        )));
    };
    let rows = MemoryRows { values, cols };
    Ok(Weight::Dense(Dense {
        rows: rows.rows(),
        cols,
        dtype,
        bytes: encode_rows(&rows, dtype)?,
    }))
}

/// How many scores of a tensor fall into each bin: bins are the upper halves of f32.
pub(super) fn histogram(input: &dyn Rows, score: &(dyn Fn(usize, f32) -> f32 + Sync)) -> Result<Vec<u64>> {
    let cols = input.cols();
    let parts = crate::tensor::try_fold_chunks(input, |first, values| {
        let mut bins = vec![0u64; BINS];
        for (at, value) in values.iter().enumerate() {
            bins[bin(score(first * cols + at, *value))] += 1;
        }
        Ok(bins)
    })?;
    let mut all = vec![0; BINS];
    for part in parts {
        all.iter_mut().zip(part).for_each(|(sum, n)| *sum += n);
    }
    Ok(all)
}

const BINS: usize = 1 << 15;

fn bin(score: f32) -> usize {
    ((score.to_bits() & 0x7fff_ffff) >> 16) as usize
}

/// Share of each tensor that goes so that `share` of all goes and no kept score lies in a bin below one that goes.
pub(super) fn shares(histograms: &[Vec<u64>], share: f64) -> Vec<f64> {
    let sizes: Vec<u64> = histograms.iter().map(|bins| bins.iter().sum()).collect();
    let due = (sizes.iter().sum::<u64>() as f64 * share).round();
    let mut gone = vec![0f64; histograms.len()];
    let mut before = 0f64;
    for bin in 0..BINS {
        let here: u64 = histograms.iter().map(|bins| bins[bin]).sum();
        let part = if here > 0 {
            ((due - before) / here as f64).clamp(0.0, 1.0)
        } else {
            0.0
        };
        gone.iter_mut()
            .zip(histograms)
            .for_each(|(gone, bins)| *gone += part * bins[bin] as f64);
        before += here as f64;
        if before >= due {
            break;
        }
    }
    gone.iter()
        .zip(&sizes)
        .map(|(gone, n)| gone / (*n).max(1) as f64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram_of(values: &[f32]) -> Vec<u64> {
        histogram(
            &MemoryRows {
                values,
                cols: values.len(),
            },
            &|_, v| v.abs(),
        )
        .unwrap()
    }

    #[test]
    fn a_global_share_falls_where_scores_are_small() {
        let small: Vec<f32> = (1..=1000).map(|i| i as f32 * 1e-3).collect();
        let large: Vec<f32> = (1..=1000).map(|i| i as f32).collect();
        let shares = shares(&[histogram_of(&small), histogram_of(&large)], 0.5);
        assert!(shares[0] > 0.99 && shares[1] < 0.01, "{shares:?}");
        let all = shares[0] + shares[1];
        assert!((all - 1.0).abs() < 1e-9, "{all}");
    }

    #[test]
    fn equal_tensors_lose_alike() {
        let values: Vec<f32> = (0..1000).map(|i| (i % 17) as f32 - 8.0).collect();
        let bins = histogram_of(&values);
        assert_eq!(shares(&[bins.clone(), bins], 0.3), [0.3, 0.3]);
    }
}
