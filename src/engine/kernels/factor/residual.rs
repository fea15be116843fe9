//! What quantization lost, kept as a product of low rank.
//!
//! Owns: the factors of a residual, and quantizing against them in turns. Must not know: how is quantized.
//! Invariant: in turns, what is returned is the best round, never worse than the first.
//!
//! LQER (Zhang et al. 2024) factors W − Q once, plain or weighted by inputs (L²QER by their scales, QERA by their Gram matrix);
//! `LoftQ` (Li et al. 2023) then quantizes W − BA, factors what that leaves, and so on.

use super::svd::Options;
use super::whitened::{Whitening, factorize, working_bytes as whitened_bytes};
use super::{Factors, Stop, Truncation, go_on};
use crate::error::{Error, Result};

/// A quantized matrix and the product that makes up for it: W ≈ quantized + left · right.
#[derive(Clone, Debug)]
pub struct Compensated<Q> {
    /// As the quantizer stores it.
    pub quantized: Q,
    /// The product; its loss is what is left of W after both.
    pub factors: Factors,
    /// Squared (weighted) error after each round.
    pub losses: Vec<f64>,
}

/// Bytes that both functions hold at their peak, beside what is given and what the quantizer holds.
pub fn working_bytes(rows: usize, cols: usize, options: &Options) -> u64 {
    // The residual, the quantized, the best so far and a product multiplied out.
    whitened_bytes(rows, cols, options) + 4 * 4 * (rows * cols) as u64
}

/// The product that is nearest to W − Q; both `[rows, n]`.
pub fn compensate(
    w: &[f32],
    quantized: &[f32],
    rows: usize,
    whitening: &Whitening,
    truncation: Truncation,
    options: &Options,
    stop: Stop<'_>,
) -> Result<Factors> {
    let residual = difference(w, quantized)?;
    factorize(&residual, rows, whitening, truncation, options, stop)
}

/// What a matrix becomes when it is quantized, and what is read back of that, `[rows, cols]`.
pub type Quantize<'a, Q> = &'a dyn Fn(&[f32]) -> Result<(Q, Vec<f32>)>;

/// Quantizes and factors in turns, `rounds` times, at least once.
#[expect(
    clippy::too_many_arguments,
    reason = "a matrix, its weights, two ways to lose some of it"
)]
pub fn alternate<Q>(
    w: &[f32],
    rows: usize,
    whitening: &Whitening,
    truncation: Truncation,
    rounds: usize,
    quantize: Quantize<'_, Q>,
    options: &Options,
    stop: Stop<'_>,
) -> Result<Compensated<Q>> {
    let mut target = w.to_vec();
    let mut best: Option<Compensated<Q>> = None;
    let mut losses = Vec::with_capacity(rounds);
    for _ in 0..rounds.max(1) {
        go_on(stop)?;
        let (quantized, read) = quantize(&target)?;
        let factors = compensate(w, &read, rows, whitening, truncation, options, stop)?;
        target = difference(w, &factors.multiply_out())?;
        losses.push(factors.loss);
        // Rounds are not monotone: a quantizer's grid may fit the next target worse.
        if best.as_ref().is_none_or(|best| factors.loss < best.factors.loss) {
            let losses = Vec::new();
            best = Some(Compensated {
                quantized,
                factors,
                losses,
            });
        }
    }
    let mut best = best.ok_or_else(|| Error::internal("no round of quantizing and factoring was run"))?;
    best.losses = losses;
    Ok(best)
}

fn difference(a: &[f32], b: &[f32]) -> Result<Vec<f32>> {
    if a.len() != b.len() {
        return Err(Error::internal(format!(
            "a matrix of {} values came back from quantization with {}",
            a.len(),
            b.len()
        )));
    }
    Ok(a.iter().zip(b).map(|(a, b)| a - b).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::factor::samples::{correlated_gram, never, noise, outputs_error};

    const ROWS: usize = 24;
    const COLS: usize = 40;

    /// Rounding to nearest with one step per row of three bits.
    fn coarse(values: &[f32]) -> Vec<f32> {
        let row = |row: &[f32]| {
            let step = row.iter().fold(0f32, |a, v| a.max(v.abs())) / 3.0;
            row.iter()
                .map(|v| {
                    if step > 0.0 {
                        (v / step).round() * step
                    } else {
                        0.0
                    }
                })
                .collect::<Vec<_>>()
        };
        values.chunks(COLS).flat_map(row).collect()
    }

    fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
        a.iter().zip(b).map(|(a, b)| a + b).collect()
    }

    #[test]
    fn a_product_makes_up_for_part_of_what_was_lost_and_all_of_it_at_full_rank() {
        let w = noise(ROWS * COLS, 1);
        let quantized = coarse(&w);
        let gram = correlated_gram(COLS, 300, 2);
        let whitening = Whitening::gram(&gram, COLS, 1e-4, &never).unwrap();
        let mut before = outputs_error(&w, &quantized, &gram, COLS);
        for rank in [1, 4, 12, ROWS] {
            let found = compensate(
                &w,
                &quantized,
                ROWS,
                &whitening,
                Truncation::Rank(rank),
                &Options::default(),
                &never,
            )
            .unwrap();
            let error = outputs_error(&w, &sum(&quantized, &found.multiply_out()), &gram, COLS);
            assert!(error < before, "rank {rank}: {error} {before}");
            before = error;
        }
        assert!(
            before < 1e-9 * outputs_error(&w, &quantized, &gram, COLS),
            "{before}"
        );
    }

    #[test]
    fn turns_are_never_worse_than_one() {
        let w = noise(ROWS * COLS, 5);
        let run = |rounds| {
            alternate(
                &w,
                ROWS,
                &Whitening::none(COLS),
                Truncation::Rank(6),
                rounds,
                &|values| Ok((coarse(values), coarse(values))),
                &Options::default(),
                &never,
            )
            .unwrap()
        };
        let (once, five) = (run(1), run(5));
        assert_eq!(five.losses.len(), 5);
        assert_eq!(once.losses[0], five.losses[0]);
        assert!(five.factors.loss < 0.95 * once.factors.loss, "{:?}", five.losses);
        let back = sum(&five.quantized, &five.factors.multiply_out());
        let error: f64 = w.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        assert!(
            (error - five.factors.loss).abs() < 1e-4 * error,
            "{error} {}",
            five.factors.loss
        );
    }

    #[test]
    fn a_quantizer_that_fails_or_gives_too_little_is_an_error() {
        let w = noise(ROWS * COLS, 5);
        let run = |quantize: Quantize<'_, ()>| {
            let none = Whitening::none(COLS);
            let options = Options::default();
            alternate(
                &w,
                ROWS,
                &none,
                Truncation::Rank(1),
                2,
                quantize,
                &options,
                &never,
            )
            .unwrap_err()
        };
        assert_eq!(
            run(&|_| Err(Error::numeric("scale_overflow", "too large"))).code,
            "scale_overflow"
        );
        assert_eq!(run(&|_| Ok(((), vec![0.0]))).code, "internal");
        assert_eq!(
            run(&|v| Ok(((), vec![f32::NAN; v.len()]))).code,
            "non_finite_values"
        );
    }
}
