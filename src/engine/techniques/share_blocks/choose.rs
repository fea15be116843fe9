//! Which neighbours share: how far apart they are, and where the row of blocks is cut.
//!
//! Owns: what is measured of each block. Must not know: how a shared matrix is found.
//! Invariant: all of it is of the whole model, before anything is shared.

use crate::error::Result;
use crate::kernels::sharing;
use crate::techniques::structure;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Outputs of layers with the mean of two blocks' matrices, by how much the block changes what goes through it.
    Errors,
    /// The angle between what two blocks hand on.
    Outputs,
    /// Differences of weights.
    Weights,
}

impl By {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "outputs" => Self::Outputs,
            "weights" => Self::Weights,
            _ => Self::Errors,
        }
    }
}

/// What was seen of every block.
pub(super) struct Look {
    pub by: By,
    /// States of the batches in front of the block at hand.
    before: Vec<Vec<f32>>,
    /// Σ over tokens of 1 − cos of the angle, and tokens.
    turned: Vec<(f64, usize)>,
    /// Σ over matrices of what is wrong with half of the block in front, and of the next one, in their place.
    errors: Vec<[f64; 2]>,
}

impl Look {
    pub(super) fn new(by: By, blocks: usize) -> Self {
        Self {
            by,
            before: Vec::new(),
            turned: vec![(0.0, 0); blocks],
            errors: vec![[0.0; 2]; blocks],
        }
    }

    /// A batch in front of a block.
    pub(super) fn enters(&mut self, hidden: Vec<f32>) {
        self.before.push(hidden);
    }

    /// The same batch behind it.
    pub(super) fn leaves(&mut self, block: usize, after: &[f32], hidden: usize) {
        let (Some(before), Some((sum, tokens))) = (self.before.pop(), self.turned.get_mut(block)) else {
            return;
        };
        let (more, count) = structure::turned(&before, after, hidden);
        *sum += more;
        *tokens += count;
    }

    /// Compares a matrix of a block with that of a neighbour; `gram` is that of the matrix' inputs.
    pub(super) fn compare(
        &mut self,
        (block, next): (usize, bool),
        w: &[f32],
        other: &[f32],
        gram: Option<&[f32]>,
    ) {
        let error = match gram {
            Some(gram) => sharing::halfway_error(w, other, gram, gram.len().isqrt()),
            None => sharing::halfway_distance(w, other),
        };
        if let Some(errors) = self.errors.get_mut(block) {
            errors[usize::from(next)] += error;
        }
    }

    /// The first block of each block's run.
    pub(super) fn runs(&self, keep: usize, stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u32>> {
        sharing::runs(&self.steps(), keep, stop)
    }

    /// How far apart each block and the next are.
    fn steps(&self) -> Vec<f64> {
        let turned = |block: usize| {
            let (sum, tokens) = self.turned[block];
            sum / tokens.max(1) as f64
        };
        let step = |block: usize| {
            let (one, other) = (self.errors[block][1], self.errors[block + 1][0]);
            match self.by {
                By::Errors => turned(block) * one + turned(block + 1) * other,
                By::Outputs => turned(block + 1),
                By::Weights => one + other,
            }
        };
        (0..self.turned.len().saturating_sub(1)).map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three blocks: the second hands on what it gets, and the third has its weights.
    #[test]
    fn neighbours_are_near_by_what_is_asked_for() {
        let steps = |by: By| {
            let mut look = Look::new(by, 3);
            for (block, after) in [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]].iter().enumerate() {
                look.enters(vec![1.0, 0.0]);
                look.leaves(block, after, 2);
            }
            let gram = (by == By::Errors).then_some([1.0, 0.0, 0.0, 1.0].as_slice());
            let weights = [[1.0f32, 0.0], [0.0, 1.0], [0.0, 1.0]];
            for block in 0..2 {
                look.compare((block, true), &weights[block], &weights[block + 1], gram);
                look.compare((block + 1, false), &weights[block + 1], &weights[block], gram);
            }
            look.steps()
        };
        assert_eq!(steps(By::Outputs), [0.0, 1.0]);
        assert_eq!(steps(By::Weights), [1.0, 0.0]);
        assert_eq!(steps(By::Errors), [0.5, 0.0]);
    }
}
