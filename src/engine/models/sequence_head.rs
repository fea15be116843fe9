//! What is made of a whole sequence: classes from its first token, or one vector from all of them.
//!
//! Owns: classifiers' two layers, pooling as sentence-transformers' files describe it. Must not know: which family
//! a classifier's names come from.
//! Invariant: a module or a pooling that is not computed here is refused, never left out.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::network::{HeadKind, Run};
use candle_core::Tensor;
use serde_json::Value;

/// The non-linearity between a classifier's two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bend {
    Tanh,
    Relu,
}

/// How the vectors of a sequence's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The first token's.
    First,
    /// The mean of each element.
    Mean,
    /// The largest of each element.
    Max,
}

/// The end of an encoder.
#[derive(Clone, Debug)]
pub(super) enum SequenceHead {
    /// Module names of the two layers, and how many classes there are.
    Classes {
        dense: String,
        bend: Bend,
        out: String,
        count: usize,
    },
    /// One vector, of length 1 if `unit`.
    Embedding { pooling: Pooling, unit: bool },
}

/// Keeps a vector of zeros from being divided by its length.
const SHORTEST: f64 = 1e-12;

impl SequenceHead {
    /// The embedding that the model's files describe; without a description, the mean at length 1.
    pub(super) fn embedding(model: &Checkpoint) -> Result<Self> {
        let modules = model.side_json("modules.json")?;
        let Some(modules) = modules.as_ref().and_then(Value::as_array) else {
            let pooling = pooling(model, "1_Pooling")?;
            return Ok(Self::Embedding { pooling, unit: true });
        };
        let (mut folder, mut unit) = ("1_Pooling", false);
        for module in modules {
            let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
            let kind = text("type");
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => folder = text("path"),
                "Normalize" => unit = true,
                _ => {
                    return Err(Error::unsupported(
                        "unsupported_head",
                        format!(
                            "modules.json lists {kind:?}, which is not supported; Transformer, Pooling and Normalize are"
                        ),
                    ));
                }
            }
        }
        let pooling = pooling(model, folder)?;
        Ok(Self::Embedding { pooling, unit })
    }

    pub(super) fn kind(&self) -> HeadKind {
        match self {
            Self::Classes { .. } => HeadKind::Classes,
            Self::Embedding { .. } => HeadKind::Embedding,
        }
    }

    /// How many classes there are, in a classifier.
    pub(super) fn classes(&self) -> usize {
        match self {
            Self::Classes { count, .. } => *count,
            Self::Embedding { .. } => 0,
        }
    }

    pub(super) fn tensors(&self) -> Vec<String> {
        let Self::Classes { dense, out, .. } = self else {
            return Vec::new();
        };
        let both = |module| [format!("{module}.weight"), format!("{module}.bias")];
        [dense, out].into_iter().flat_map(both).collect()
    }

    pub(super) fn apply(&self, hidden: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        match self {
            Self::Classes { dense, bend, out, .. } => {
                let x = pool(hidden, run, Pooling::First)?;
                let x = run.weights.linear(run.ops, &format!("{dense}.weight"), &x)?;
                let x = match bend {
                    Bend::Tanh => x.tanh()?,
                    Bend::Relu => x.relu()?,
                };
                run.weights.linear(run.ops, &format!("{out}.weight"), &x)
            }
            Self::Embedding { pooling, unit } => {
                let x = pool(hidden, run, *pooling)?;
                if !unit {
                    return Ok(x);
                }
                let length = x.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(SHORTEST)?;
                Ok(x.broadcast_div(&length)?)
            }
        }
    }
}

/// One row for each sequence.
fn pool(hidden: &Tensor, run: &Run<'_>, pooling: Pooling) -> Result<Tensor> {
    let (mut rows, mut start) = (Vec::new(), 0);
    for length in run.batch.lengths.iter().copied() {
        let own = hidden.narrow(0, start, length)?;
        rows.push(match pooling {
            Pooling::First => own.narrow(0, 0, 1)?,
            Pooling::Mean => own.mean_keepdim(0)?,
            Pooling::Max => own.max_keepdim(0)?,
        });
        start += length;
    }
    Ok(Tensor::cat(&rows, 0)?)
}

/// What the pooling module's own file says; the mean where the model came without it.
fn pooling(model: &Checkpoint, folder: &str) -> Result<Pooling> {
    let nested = format!("{folder}/config.json");
    for name in [nested.as_str(), "pooling.json"] {
        if let Some(config) = model.side_json(name)? {
            return mode(name, &config);
        }
    }
    Ok(Pooling::Mean)
}

fn mode(file: &str, config: &Value) -> Result<Pooling> {
    let flags = config.as_object().into_iter().flatten();
    let mut modes: Vec<&str> = flags
        .filter(|(_, on)| **on == Value::Bool(true))
        .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
        .collect();
    // Newer files name the mode instead of listing one flag for each.
    modes.extend(config.get("pooling_mode").and_then(Value::as_str));
    match modes.as_slice() {
        ["cls_token" | "cls"] => Ok(Pooling::First),
        ["mean_tokens" | "mean"] | [] => Ok(Pooling::Mean),
        ["max_tokens" | "max"] => Ok(Pooling::Max),
        other => Err(Error::unsupported(
            "unsupported_pooling",
            format!(
                "{file}: pooling {} is not supported; one of cls, mean and max is",
                other.join(" with ")
            ),
        )),
    }
}
