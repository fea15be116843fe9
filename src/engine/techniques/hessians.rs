//! Gram matrices of what the layers of a block read, while a model runs over data.
//!
//! Owns: one sum for each input of a cut that a stage's tensors read. Must not know: what they are used for.
//! Invariant: sums are added up token after token in the data's order.

use super::BlockStage;
use crate::calibrate::ColumnSquares;
use crate::error::{Error, Result};
use crate::kernels::gptq::Curvature;
use crate::kernels::linalg::{Gram, Precision};
use crate::network::{Cut, State, with_values};
use crate::observe::Level;
use crate::plan::TensorPlan;
use serde_json::json;
use std::collections::HashMap;

/// The Hessian of one input while it is summed up.
pub(super) struct Seen {
    sum: Sum,
    /// Rows of X.
    pub tokens: usize,
}

/// `XᵀX`, or only its diagonal.
enum Sum {
    Whole(Gram),
    Diagonal(ColumnSquares),
}

impl Seen {
    /// `XᵀX` of `[n, n]`; of a sum of squares only its diagonal is other than zero.
    pub(super) fn into_gram(self) -> Vec<f32> {
        match self.sum {
            Sum::Whole(gram) => gram.into_full(),
            Sum::Diagonal(squares) => {
                let sums = squares.finish().sums;
                let n = sums.len();
                let mut gram = vec![0.0; n * n];
                sums.into_iter()
                    .enumerate()
                    .for_each(|(i, sum)| gram[i * n + i] = sum);
                gram
            }
        }
    }

    /// The same, or an error that names one of its readers where a sum is no number.
    pub(super) fn into_finite_gram(self, readers: &[String]) -> Result<Vec<f32>> {
        let gram = self.into_gram();
        if gram.iter().all(|v| v.is_finite()) {
            return Ok(gram);
        }
        let detail = format!(
            "tensor {}: its inputs overflow on the calibration data",
            readers[0]
        );
        Err(Error::numeric("activations_overflow", detail))
    }

    /// The root of the diagonal, and all of it where it was summed.
    pub(super) fn into_norms(self) -> (Vec<f32>, Option<Vec<f32>>) {
        match self.sum {
            Sum::Whole(gram) => {
                let gram = gram.into_full();
                let n = gram.len().isqrt();
                ((0..n).map(|i| gram[i * n + i].sqrt()).collect(), Some(gram))
            }
            Sum::Diagonal(squares) => (squares.finish().sums.iter().map(|s| s.sqrt()).collect(), None),
        }
    }
}

/// Those of the cut at hand.
pub(super) struct Hessians {
    is_whole: bool,
    inputs: Vec<Option<Seen>>,
}

impl Hessians {
    /// Whole ones, or their diagonals.
    pub(super) fn new(is_whole: bool) -> Self {
        Self {
            is_whole,
            inputs: Vec::new(),
        }
    }

    /// Adds what one batch brings to the layers that a stage changes.
    pub(super) fn see(&mut self, stage: &BlockStage<'_>, cut: &Cut, state: &State) -> Result<()> {
        self.see_for(&|name| stage.step(name).is_some(), cut, state)
    }

    /// Adds what one batch brings to the layers that are wanted.
    pub(super) fn see_for(&mut self, wanted: &dyn Fn(&str) -> bool, cut: &Cut, state: &State) -> Result<()> {
        self.inputs.resize_with(state.inputs.len(), || None);
        for (input, x) in state.inputs.iter().enumerate() {
            let mut readers = cut.readers.iter().filter(|r| r.input == input);
            if !readers.any(|r| wanted(&r.tensor)) {
                continue;
            }
            let (tokens, cols) = x.dims2()?;
            let is_whole = self.is_whole;
            let seen = self.inputs[input].get_or_insert_with(|| Seen {
                sum: if is_whole {
                    Sum::Whole(Gram::new(cols))
                } else {
                    Sum::Diagonal(ColumnSquares::default())
                },
                tokens: 0,
            });
            seen.tokens += tokens;
            with_values(x, |x| match &mut seen.sum {
                Sum::Whole(gram) => gram.add(x, Precision::Split),
                Sum::Diagonal(squares) => squares.add(x, cols),
            })?;
        }
        Ok(())
    }

    /// All that were summed, and the tensors of the stage that read each.
    pub(super) fn take(&mut self, stage: &BlockStage<'_>, cut: &Cut) -> Vec<(Seen, Vec<String>)> {
        self.take_for(&|name| stage.step(name).is_some(), cut)
    }

    /// All that were summed, and the wanted tensors that read each.
    pub(super) fn take_for(&mut self, wanted: &dyn Fn(&str) -> bool, cut: &Cut) -> Vec<(Seen, Vec<String>)> {
        let seen = std::mem::take(&mut self.inputs).into_iter().enumerate();
        let with_readers = seen.filter_map(|(input, seen)| {
            let readers = cut
                .readers
                .iter()
                .filter(|r| r.input == input && wanted(&r.tensor));
            let names: Vec<String> = readers.map(|r| r.tensor.clone()).collect();
            seen.filter(|_| !names.is_empty()).map(|seen| (seen, names))
        });
        with_readers.collect()
    }

    /// Bytes of all that one block needs at a time: the experts of a mixture have inputs of their own.
    pub(super) fn bytes(tensors: &[&TensorPlan]) -> u64 {
        let mut sums: HashMap<_, u64> = HashMap::new();
        for tensor in tensors {
            *sums.entry((tensor.layer, tensor.role)).or_default() += Gram::bytes(tensor.cols());
        }
        sums.into_values().max().unwrap_or(0)
    }
}

/// Says where a Hessian needed more damping than was asked for, or could not be had at all: then `instead` was done.
pub(super) fn tell_damping(
    stage: &BlockStage<'_>,
    readers: &[String],
    (curvature, asked): (&Curvature, f64),
    tokens: usize,
    instead: &str,
) {
    let names = readers.join(", ");
    let event = |message: String| {
        let data = json!({"tensors": readers, "damp_percent": curvature.damp_percent, "tokens": tokens});
        stage.observer.event(Level::Warning, &message, data);
    };
    if !curvature.is_usable() {
        event(format!(
            "{names}: the Hessian cannot be factorized even when damped; {instead} instead"
        ));
    } else if curvature.damp_percent > asked {
        event(format!(
            "{names}: the Hessian needed damp_percent {}",
            curvature.damp_percent
        ));
    }
}
