//! Two models' outputs side by side.
//!
//! Owns: perplexity, divergence and agreement of next-token distributions. Must not know: weights.
//! Invariant: logits of at most `LOGIT_ROWS` tokens are in memory; sums are taken in the order of the tokens.

use super::bootstrap::interval;
use super::{LOGIT_ROWS, Measure, Quality};
use crate::error::{Error, Result};
use crate::kernels::nn::elementwise::log_sum_exp;
use crate::network::{Batch, HeadKind, Network, Ops, Run, Weights, with_values};
use crate::recipe::Metric;
use candle_core::Tensor;
use rayon::prelude::*;

/// What a model ends with: last hidden states, and the weights of its head.
pub struct Ends<'a> {
    /// Of a batch.
    pub hidden: &'a dyn Fn(usize) -> Result<Tensor>,
    /// Of the head.
    pub weights: &'a Weights,
}

/// Sums over the predicted tokens of one sequence.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    tokens: f64,
    before: f64,
    after: f64,
    kl: f64,
    same: f64,
}

/// One token's contribution.
fn token(before: &mut [f32], after: &mut [f32], next: u32) -> Sums {
    let first = |row: &[f32]| {
        let mut best = 0;
        for (i, v) in row.iter().enumerate() {
            if *v > row[best] {
                best = i;
            }
        }
        best
    };
    let same = first(before) == first(after);
    let (b, a) = (f64::from(before[next as usize]), f64::from(after[next as usize]));
    let mut shifted = before.to_vec();
    let log_before = log_sum_exp(&mut shifted);
    let total: f64 = shifted.iter().map(|e| f64::from(*e)).sum();
    let mut weights = after.to_vec();
    let log_after = log_sum_exp(&mut weights);
    // Σ p (log p − log q), p from the original.
    let gap: f64 = before
        .iter()
        .zip(after.iter())
        .zip(&shifted)
        .map(|((b, a), e)| f64::from(*e) * f64::from(b - a))
        .sum();
    Sums {
        tokens: 1.0,
        before: log_before - b,
        after: log_after - a,
        kl: (gap / total - log_before + log_after).max(0.0),
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

/// Measures what was asked for; nothing asked for is everything that fits the model.
pub fn compare(
    network: &dyn Network,
    batches: &[Batch],
    before: &Ends<'_>,
    after: &Ends<'_>,
    metrics: &[Metric],
    seed: u64,
    stop: &dyn Fn(f64) -> bool,
) -> Result<Quality> {
    if network.head_kind() != HeadKind::NextToken {
        return Err(Error::unsupported(
            "unsupported_evaluation",
            "evaluation of this kind of model is not supported in this version",
        ));
    }
    let mut sums = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        if stop(index as f64 / batches.len() as f64) {
            return Err(Error::cancelled());
        }
        let (b, a) = ((before.hidden)(index)?, (after.hidden)(index)?);
        let mut start = 0;
        for length in batch.lengths.iter().copied() {
            let cut = |x: &Tensor| -> Result<Tensor> { Ok(x.narrow(0, start, length)?) };
            let ids = &batch.ids[start..start + length];
            sums.push(sequence(
                network,
                batch,
                ids,
                [(&cut(&b)?, before.weights), (&cut(&a)?, after.weights)],
            )?);
            start += length;
        }
    }
    Ok(Quality {
        measures: measures(&sums, metrics, seed),
        ..Quality::default()
    })
}

/// One sequence, a few tokens at a time.
fn sequence(
    network: &dyn Network,
    batch: &Batch,
    ids: &[u32],
    ends: [(&Tensor, &Weights); 2],
) -> Result<Sums> {
    let mut total = Sums::default();
    let predicted = ids.len().saturating_sub(1);
    for first in (0..predicted).step_by(LOGIT_ROWS) {
        let rows = LOGIT_ROWS.min(predicted - first);
        let logits = |(hidden, weights): (&Tensor, &Weights)| -> Result<Vec<f32>> {
            let run = Run {
                batch,
                weights,
                ops: Ops::Fused,
                all_experts: false,
            };
            let logits = network.head(&hidden.narrow(0, first, rows)?.contiguous()?, &run)?;
            with_values(&logits, <[f32]>::to_vec)
        };
        let (mut before, mut after) = (logits(ends[0])?, logits(ends[1])?);
        let vocab = before.len() / rows;
        let parts: Vec<Sums> = before
            .par_chunks_mut(vocab)
            .zip(after.par_chunks_mut(vocab))
            .zip(&ids[first + 1..])
            .map(|((b, a), next)| token(b, a, *next))
            .collect();
        total = parts.into_iter().fold(total, add);
    }
    Ok(total)
}

fn measures(sums: &[Sums], metrics: &[Metric], seed: u64) -> Vec<Measure> {
    let fitting = [Metric::Perplexity, Metric::Kl, Metric::Top1Agreement];
    let wanted = |m: &&Metric| metrics.is_empty() || metrics.contains(m);
    fitting
        .iter()
        .filter(wanted)
        .map(|metric| measure(*metric, sums, seed))
        .collect()
}

fn measure(metric: Metric, sums: &[Sums], seed: u64) -> Measure {
    let all: Vec<usize> = (0..sums.len()).collect();
    let mean = |at: &[usize], of: &dyn Fn(&Sums) -> f64| {
        let tokens: f64 = at.iter().map(|i| sums[*i].tokens).sum();
        at.iter().map(|i| of(&sums[*i])).sum::<f64>() / tokens.max(1.0)
    };
    let before = |at: &[usize]| mean(at, &|s| s.before).exp();
    let after = |at: &[usize]| match metric {
        Metric::Perplexity => mean(at, &|s| s.after).exp(),
        Metric::Kl => mean(at, &|s| s.kl),
        _ => mean(at, &|s| s.same),
    };
    let change = |at: &[usize]| after(at) / before(at) - 1.0;
    let paired = metric == Metric::Perplexity;
    Measure {
        metric: metric.name().to_owned(),
        before: paired.then(|| before(&all)),
        after: after(&all),
        interval: interval(sums.len(), seed, after),
        change: paired.then(|| change(&all)),
        change_interval: paired.then(|| interval(sums.len(), seed, change)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_under_two_known_distributions() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4).
        let ln = |p: f32| p.ln() + 3.0;
        let mut p = [ln(0.5), ln(0.25), ln(0.25)];
        let mut q = [ln(0.25), ln(0.5), ln(0.25)];
        let sums = token(&mut p, &mut q, 0);
        assert!((sums.before - 2f64.ln()).abs() < 1e-6);
        assert!((sums.after - 4f64.ln()).abs() < 1e-6);
        assert!((sums.kl - 0.25 * 2f64.ln()).abs() < 1e-6, "{}", sums.kl);
        assert_eq!(sums.same, 0.0);
        let same = token(&mut p.clone(), &mut p, 1);
        assert!(same.kl < 1e-7 && same.same == 1.0);
    }
}
