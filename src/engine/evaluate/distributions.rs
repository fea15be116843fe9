//! Two distributions over the same answers, both as logits.
//!
//! Owns: how far they are apart. Must not know: what the answers mean.
//! Invariant: a distribution compared with itself diverges by exactly nothing.

use crate::kernels::nn::elementwise::log_sum_exp;

/// What a pair of distributions says.
pub(super) struct Pair {
    /// Logarithms of the two sums, to turn logits into log-probabilities.
    pub logs: [f64; 2],
    /// Divergence of the second from the first, in nats.
    pub kl: f64,
    /// Both put the same answer first.
    pub same: bool,
}

/// The first of the largest.
pub(super) fn first(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best
}

/// Compares two rows of logits.
pub(super) fn pair(before: &[f32], after: &[f32]) -> Pair {
    let mut shifted = before.to_vec();
    let log_before = log_sum_exp(&mut shifted);
    let total: f64 = shifted.iter().map(|e| f64::from(*e)).sum();
    let mut weights = after.to_vec();
    let log_after = log_sum_exp(&mut weights);
    // Σ p (log p − log q), p from the original.
    let gap: f64 = before
        .iter()
        .zip(after)
        .zip(&shifted)
        .map(|((b, a), e)| f64::from(*e) * f64::from(b - a))
        .sum();
    Pair {
        logs: [log_before, log_after],
        kl: (gap / total - log_before + log_after).max(0.0),
        same: first(before) == first(after),
    }
}
