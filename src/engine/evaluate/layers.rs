//! How far the compressed model's hidden states are from the original's behind each block.
//!
//! Owns: relative squared errors, refusing numbers that are none. Must not know: what a block computes.
//! Invariant: two sums a block and a sequence are kept, never hidden states.

use super::LayerError;
use super::bootstrap::interval;
use crate::error::{Error, Result};
use crate::network::{Batch, with_values};
use candle_core::Tensor;
use rayon::prelude::*;

/// Squared difference and squared length of one sequence's hidden states.
type Part = [f64; 2];

/// What was seen behind every block so far.
#[derive(Debug, Default)]
pub struct Layers {
    blocks: Vec<Vec<Part>>,
}

impl Layers {
    /// Hidden states of a batch under both models, behind a block.
    pub fn see(&mut self, block: usize, batch: &Batch, before: &Tensor, after: &Tensor) -> Result<()> {
        if self.blocks.len() <= block {
            self.blocks.resize(block + 1, Vec::new());
        }
        let parts = with_values(before, |b| with_values(after, |a| parts(batch, b, a)))??;
        self.blocks[block].extend(parts);
        Ok(())
    }

    /// The error of every block.
    pub(super) fn errors(&self, seed: u64) -> Vec<LayerError> {
        let error = |(block, parts): (usize, &Vec<Part>)| {
            let ratio = |at: &[usize]| {
                let sum = |k: usize| at.iter().map(|i| parts[*i][k]).sum::<f64>();
                sum(0) / sum(1).max(f64::MIN_POSITIVE)
            };
            let all: Vec<usize> = (0..parts.len()).collect();
            LayerError {
                block,
                relative_error: ratio(&all),
                interval: interval(parts.len(), seed, ratio),
            }
        };
        self.blocks.par_iter().enumerate().map(error).collect()
    }
}

fn parts(batch: &Batch, before: &[f32], after: &[f32]) -> Vec<Part> {
    let hidden = before.len() / batch.tokens().max(1);
    let mut start = 0;
    let ranges: Vec<_> = batch
        .lengths
        .iter()
        .map(|length| {
            let from = start;
            start += length * hidden;
            from..start
        })
        .collect();
    let part = |range: std::ops::Range<usize>| {
        let pairs = before[range.clone()].iter().zip(&after[range]);
        pairs.fold([0.0; 2], |[gap, size], (b, a)| {
            let (b, a) = (f64::from(*b), f64::from(*a));
            [gap + (a - b) * (a - b), size + b * b]
        })
    };
    ranges.into_par_iter().map(part).collect()
}

/// Refuses NaN and infinities behind a block; `which` is `original` or `compressed`.
pub fn check_hidden(which: &str, block: usize, hidden: &Tensor) -> Result<()> {
    let finite = with_values(hidden, |values| values.iter().all(|v| v.is_finite()))?;
    if finite {
        return Ok(());
    }
    Err(Error::numeric(
        "non_finite_activations",
        format!(
            "the {which} model's hidden states behind block {block} are not finite: its weights hold NaN or infinite \
             values, or they are too large to compute with, and nothing can be measured"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn sums_are_over_all_tokens_of_all_sequences() {
        let tensor = |values: &[f32]| Tensor::from_slice(values, (3, 2), &Device::Cpu).unwrap();
        let batch = Batch::new(&[&[1, 2], &[3]]);
        let mut layers = Layers::default();
        let before = tensor(&[1.0, 1.0, 1.0, 1.0, 2.0, 2.0]);
        let after = tensor(&[1.0, 1.5, 1.0, 1.0, 2.0, 3.0]);
        layers.see(0, &batch, &before, &before).unwrap();
        layers.see(1, &batch, &before, &after).unwrap();
        let errors = layers.errors(0);
        assert_eq!(errors[0].relative_error, 0.0);
        assert!((errors[1].relative_error - 1.25 / 12.0).abs() < 1e-12);
        let [low, high] = errors[1].interval;
        assert!((low - 0.25 / 4.0).abs() < 1e-12 && (high - 1.0 / 8.0).abs() < 1e-12);
    }
}
