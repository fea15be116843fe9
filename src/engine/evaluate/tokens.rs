//! Next-token distributions of two models, sequence by sequence.
//!
//! Owns: perplexity, divergence and agreement of these distributions. Must not know: weights.
//! Invariant: logits of at most `LOGIT_ROWS` tokens are in memory; sums are taken in the order of the tokens.

use super::compare::{Side, logits};
use super::distributions::{Pair, pair};
use super::{LOGIT_ROWS, Measure, Resampled};
use crate::error::{Error, Result};
use crate::network::Batch;
use crate::recipe::Metric;
use candle_core::Tensor;
use rayon::prelude::*;

/// Sums over the predicted tokens of one sequence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    tokens: f64,
    before: f64,
    after: f64,
    kl: f64,
    same: f64,
}

/// One token's contribution.
fn token(before: &[f32], after: &[f32], next: u32) -> Sums {
    let Pair { logs, kl, same } = pair(before, after);
    let next = next as usize;
    Sums {
        tokens: 1.0,
        before: logs[0] - f64::from(before[next]),
        after: logs[1] - f64::from(after[next]),
        kl,
        same: f64::from(u8::from(same)),
    }
}

fn add(a: Sums, b: Sums) -> Sums {
    Sums {
        tokens: a.tokens + b.tokens,
        before: a.before + b.before,
        after: a.after + b.after,
        kl: a.kl + b.kl,
        same: a.same + b.same,
    }
}

/// Every sequence of a batch, a few tokens at a time; `stop` is told before each few which part of the batch is done.
pub(super) fn batch(batch: &Batch, sides: [Side<'_>; 2], stop: &dyn Fn(f64) -> bool) -> Result<Vec<Sums>> {
    let (mut sums, mut start) = (Vec::new(), 0);
    for length in batch.lengths.iter().copied() {
        let ids = &batch.ids[start..start + length];
        let own = |hidden: &Tensor| hidden.narrow(0, start, length);
        let hidden = [own(sides[0].hidden)?, own(sides[1].hidden)?];
        let mut total = Sums::default();
        let predicted = length.saturating_sub(1);
        for first in (0..predicted).step_by(LOGIT_ROWS) {
            if stop((start + first) as f64 / batch.ids.len() as f64) {
                return Err(Error::cancelled());
            }
            let rows = LOGIT_ROWS.min(predicted - first);
            let of = |side: usize| -> Result<Vec<f32>> {
                let hidden = hidden[side].narrow(0, first, rows)?.contiguous()?;
                logits(batch, sides[side], &hidden)
            };
            let (before, after) = (of(0)?, of(1)?);
            let vocab = before.len() / rows;
            let parts: Vec<Sums> = before
                .par_chunks(vocab)
                .zip(after.par_chunks(vocab))
                .zip(&ids[first + 1..])
                .map(|((b, a), next)| token(b, a, *next))
                .collect();
            total = parts.into_iter().fold(total, add);
        }
        sums.push(total);
        start += length;
    }
    Ok(sums)
}

/// One metric of all sequences.
pub(super) fn measure(metric: Metric, sums: &[Sums], seed: u64) -> Measure {
    let mean = |at: &[usize], of: &dyn Fn(&Sums) -> f64| {
        let tokens: f64 = at.iter().map(|i| sums[*i].tokens).sum();
        at.iter().map(|i| of(&sums[*i])).sum::<f64>() / tokens.max(1.0)
    };
    let items = Resampled {
        metric,
        items: sums.len(),
        seed,
    };
    match metric {
        Metric::Perplexity => {
            let before = |at: &[usize]| mean(at, &|s| s.before).exp();
            let after = |at: &[usize]| mean(at, &|s| s.after).exp();
            items.pair(&before, &after, &|before, after| after / before - 1.0)
        }
        Metric::Kl => items.one(&|at| mean(at, &|s| s.kl)),
        _ => items.one(&|at| mean(at, &|s| s.same)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_under_two_known_distributions() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4).
        let ln = |p: f32| p.ln() + 3.0;
        let p = [ln(0.5), ln(0.25), ln(0.25)];
        let q = [ln(0.25), ln(0.5), ln(0.25)];
        let sums = token(&p, &q, 0);
        assert!((sums.before - 2f64.ln()).abs() < 1e-6);
        assert!((sums.after - 4f64.ln()).abs() < 1e-6);
        assert!((sums.kl - 0.25 * 2f64.ln()).abs() < 1e-6, "{}", sums.kl);
        assert_eq!(sums.same, 0.0);
        let same = token(&p, &p, 1);
        assert!(same.kl < 1e-7 && same.same == 1.0);
    }
}
