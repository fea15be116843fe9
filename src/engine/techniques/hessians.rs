//! Gram matrices of what the layers of a block read, while a model runs over data.
//!
//! Owns: one sum for each input of a cut that a stage's tensors read. Must not know: what they are used for.
//! Invariant: sums are added up token after token in the data's order.

use super::BlockStage;
use crate::calibrate::ColumnSquares;
use crate::error::{Error, Result};
use crate::kernels::gptq::Curvature;
use crate::kernels::linalg::{Gram, Precision};
use crate::network::{Batch, Cut, State, with_values};
use crate::observe::Level;
use crate::plan::TensorPlan;
use serde_json::json;
use std::collections::HashMap;
use std::ops::Range;

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

    /// The same, or an error that names who reads it where a sum is no number.
    pub(super) fn into_finite_gram(self, readers: &str) -> Result<Vec<f32>> {
        let gram = self.into_gram();
        if gram.iter().all(|v| v.is_finite()) {
            return Ok(gram);
        }
        let detail = format!("tensor {readers}: its inputs overflow on the calibration data");
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
    /// Of the batch at hand, whether each token is left out; empty where none is.
    left_out: Vec<bool>,
}

impl Hessians {
    /// Whole ones, or their diagonals.
    pub(super) fn new(is_whole: bool) -> Self {
        Self {
            is_whole,
            inputs: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Leaves out the first tokens of each sequence of the batch that is seen next.
    pub(super) fn leave_out(&mut self, first: usize, batch: &Batch) {
        self.left_out.clear();
        if first > 0 {
            let early = batch.positions.iter().map(|at| (*at as usize) < first);
            self.left_out.extend(early);
        }
    }

    /// Runs of an input's rows that count.
    fn kept(&self, input: usize, rows: usize, state: &State) -> Vec<Range<usize>> {
        let is_out = |row: &usize| {
            let token = state.rows(input).map_or(*row, |tokens| tokens[*row] as usize);
            self.left_out.get(token).copied().unwrap_or_default()
        };
        let mut runs: Vec<Range<usize>> = Vec::new();
        for row in (0..rows).filter(|row| !is_out(row)) {
            match runs.last_mut() {
                Some(run) if run.end == row => run.end += 1,
                _ => runs.push(row..row + 1),
            }
        }
        runs
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
            let (rows, cols) = x.dims2()?;
            let is_whole = self.is_whole;
            let kept = self.kept(input, rows, state);
            let seen = self.inputs[input].get_or_insert_with(|| Seen {
                sum: if is_whole {
                    Sum::Whole(Gram::new(cols))
                } else {
                    Sum::Diagonal(ColumnSquares::default())
                },
                tokens: 0,
            });
            seen.tokens += kept.iter().map(ExactSizeIterator::len).sum::<usize>();
            with_values(x, |x| {
                let runs = kept.iter().map(|run| &x[run.start * cols..run.end * cols]);
                match &mut seen.sum {
                    Sum::Whole(gram) => {
                        for x in runs {
                            gram.add(x, Precision::Split);
                        }
                    }
                    Sum::Diagonal(squares) => {
                        // Columns are there although no row may be.
                        squares.add(&[], cols);
                        for x in runs {
                            squares.add(x, cols);
                        }
                    }
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Reader, Route};
    use candle_core::{Device, Tensor};

    fn squares(hessians: &mut Hessians, cut: &Cut) -> Vec<Vec<f32>> {
        let taken = hessians.take_for(&|_| true, cut);
        taken.into_iter().map(|(seen, _)| seen.into_norms().0).collect()
    }

    /// Two sequences, 1 2 and 3 4 5, of one channel; the second input is an expert's, which reads 1, 3 and 5.
    #[test]
    fn first_tokens_of_sequences_can_be_left_out() {
        let batch = Batch::new(&[&[0, 0], &[0, 0, 0]]);
        let values = |values: &[f32]| Tensor::from_slice(values, (values.len(), 1), &Device::Cpu).unwrap();
        let all = values(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        let mut state = State::at(all.clone(), vec![all, values(&[1.0, 3.0, 5.0])]);
        state.whole = 1;
        state.routes = vec![Route {
            rows: vec![0, 2, 4],
            shares: vec![1.0; 3],
        }];
        let reader = |input| Reader {
            tensor: format!("layer{input}"),
            input,
        };
        let cut = Cut {
            readers: vec![reader(0), reader(1)],
            ..Cut::default()
        };
        for is_whole in [true, false] {
            for (first, sums) in [
                (0, [55.0, 35.0]),
                (1, [45.0, 25.0]),
                (2, [25.0, 25.0]),
                (9, [0.0, 0.0]),
            ] {
                let mut hessians = Hessians::new(is_whole);
                hessians.leave_out(first, &batch);
                hessians.see_for(&|_| true, &cut, &state).unwrap();
                let norms = squares(&mut hessians, &cut);
                let found: Vec<f32> = norms.iter().map(|n| (n[0] * n[0]).round()).collect();
                assert_eq!(found, sums, "{first} {is_whole}");
            }
        }
    }
}
