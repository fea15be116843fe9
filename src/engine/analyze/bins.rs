//! Entropy of numbers that are put into bins.
//!
//! Owns: the histogram of one tensor, the entropy at several bin widths.
//! Must not know: files.
//! Invariant: counts are whole numbers, so neither order nor threads change a result.

use std::sync::{Mutex, PoisonError};

use super::BinEntropy;
use crate::kernels::symbols::entropy;

/// Bins of the finest width, and how many of them make a standard deviation.
const BINS: usize = 4096;
const IN_SIGMA: f64 = 32.0;
/// Widths: 1/32, 1/16, … 1 standard deviation.
const WIDTHS: usize = 6;

/// Numbers in bins of 1/32 standard deviation around the mean; the two outermost bins take what is further out than 64
/// standard deviations.
#[derive(Debug)]
pub(super) struct Bins {
    mean: f64,
    scale: f64,
    sigma: f64,
    counts: Mutex<Vec<u64>>,
}

impl Bins {
    /// None for numbers that are all alike.
    pub(super) fn new(mean: f64, sigma: f64) -> Option<Self> {
        let scale = IN_SIGMA / sigma;
        scale.is_finite().then(|| Self {
            mean,
            scale,
            sigma,
            counts: Mutex::new(vec![0; BINS]),
        })
    }

    /// Counts some of the numbers; in any order, from any thread.
    pub(super) fn count(&self, values: &[f32]) {
        let mut counts = vec![0u32; BINS];
        let half = (BINS / 2) as f64;
        for value in values.iter().filter(|value| value.is_finite()) {
            let bin = ((f64::from(*value) - self.mean) * self.scale + half).clamp(0.0, (BINS - 1) as f64);
            counts[bin as usize] += 1;
        }
        let mut sums = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (sum, count) in sums.iter_mut().zip(&counts) {
            *sum += u64::from(*count);
        }
    }

    /// Numbers at least so many standard deviations (a whole number) from the mean.
    pub(super) fn beyond(&self, sigmas: usize) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (half, away) = (BINS / 2, sigmas * IN_SIGMA as usize);
        let (below, above) = (&counts[..half - away], &counts[half + away..]);
        below.iter().chain(above).sum()
    }

    /// Entropy at each width, the finest first.
    pub(super) fn entropies(self) -> Vec<BinEntropy> {
        let mut counts = self.counts.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut entropies = Vec::with_capacity(WIDTHS);
        for doubled in 0..WIDTHS {
            let sigmas = f64::from(1u32 << doubled) / IN_SIGMA;
            entropies.push(BinEntropy {
                width: sigmas * self.sigma,
                width_in_sigma: sigmas,
                bits: entropy(&counts),
            });
            counts = counts.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        entropies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::gaussian::differential_entropy;

    /// Quantiles of the unit Gaussian by a sum of twelve uniform numbers would be rough; these are exact enough: pairs by
    /// Box and Muller over a grid.
    fn gaussian() -> Vec<f32> {
        let side = 512;
        let at = |i: usize| (i as f64 + 0.5) / f64::from(side);
        let side = side as usize;
        (0..side * side)
            .map(|n| {
                let radius = (-2.0 * at(n / side).ln()).sqrt();
                (radius * (2.0 * std::f64::consts::PI * at(n % side)).cos()) as f32
            })
            .collect()
    }

    #[test]
    fn a_gaussian_has_its_differential_entropy_less_the_width() {
        let values = gaussian();
        let bins = Bins::new(0.0, 1.0).expect("it has a width");
        values.chunks(1000).for_each(|chunk| bins.count(chunk));
        assert_eq!(bins.beyond(6), 0);
        let share = bins.beyond(2) as f64 / values.len() as f64;
        assert!((share - 0.0455).abs() < 0.001, "{share}");
        let expected = differential_entropy(1.0).expect("it has variance");
        let entropies = bins.entropies();
        assert_eq!(entropies.len(), WIDTHS);
        for entropy in &entropies[..4] {
            let found = entropy.bits + entropy.width.log2();
            assert!((found - expected).abs() < 0.01, "{entropy:?}");
        }
    }

    #[test]
    fn equal_numbers_have_no_bins() {
        assert!(Bins::new(1.0, 0.0).is_none());
    }
}
