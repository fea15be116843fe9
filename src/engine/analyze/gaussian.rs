//! The Gaussian source: what theory says of numbers with a given variance.
//!
//! Owns: its differential entropy, its rate–distortion function, the curve of many sources together.
//! Must not know: tensors.
//! Invariant: of all sources with a variance the Gaussian is the hardest to code (Cover and Thomas, Elements of Information
//! Theory, theorem 10.3.2 and what follows it), so at any rate a distortion below its bound is no mistake where the numbers
//! are not Gaussian.

use std::f64::consts::{E, PI};

use super::RatePoint;

/// `½ log₂(2πe σ²)`: differential entropy in bits; none without variance.
pub(super) fn differential_entropy(variance: f64) -> Option<f64> {
    (variance > 0.0).then(|| 0.5 * (2.0 * PI * E * variance).log2())
}

/// The least mean square error of independent Gaussian sources at each of these rates in bits a number, by reverse
/// water-filling: every source is coded down to one level of error, and one whose variance is below it not at all.
/// A source is how many numbers it has and their variance.
pub(super) fn curve(sources: &[(u64, f64)], rates: &[f64]) -> Vec<RatePoint> {
    let count: f64 = sources.iter().map(|(n, _)| *n as f64).sum();
    let power: f64 = sources.iter().map(|(n, variance)| *n as f64 * variance).sum();
    if count == 0.0 || power <= 0.0 {
        return Vec::new();
    }
    let point = |rate: &f64| {
        let level = level(sources, *rate, count);
        let error: f64 = sources
            .iter()
            .map(|(n, variance)| *n as f64 * variance.min(level))
            .sum();
        RatePoint {
            bits_per_weight: *rate,
            mse: error / count,
            snr_db: 10.0 * (power / error).log10(),
        }
    };
    rates.iter().map(point).collect()
}

/// The level of error at which the sources take that many bits a number: found by halving its logarithm.
fn level(sources: &[(u64, f64)], rate: f64, count: f64) -> f64 {
    let bits = |log: f64| -> f64 {
        let of = |(n, variance): &(u64, f64)| {
            let above = if *variance > 0.0 {
                variance.log2() - log
            } else {
                0.0
            };
            *n as f64 * 0.5 * above.max(0.0)
        };
        sources.iter().map(of).sum::<f64>() / count
    };
    let most = sources
        .iter()
        .map(|(_, variance)| *variance)
        .fold(0.0, f64::max)
        .log2();
    // At this level the smallest share of numbers with the largest variance takes the whole rate.
    let (mut low, mut high) = (most - 2.0 * rate * count - 1.0, most);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if bits(middle) > rate {
            low = middle;
        } else {
            high = middle;
        }
    }
    high.exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_loses_six_decibels_a_bit() {
        for variance in [1.0, 4e-4] {
            for point in curve(&[(1000, variance)], &[0.0, 1.0, 2.5, 8.0]) {
                let expected = variance * (-2.0 * point.bits_per_weight).exp2();
                assert!((point.mse / expected - 1.0).abs() < 1e-9, "{point:?}");
                assert!(
                    (point.snr_db - 6.0206 * point.bits_per_weight).abs() < 1e-3,
                    "{point:?}"
                );
            }
        }
    }

    /// Two sources, 16 and 1, half of the numbers each: at one bit a number the level is 1, where the first takes two bits
    /// and the second none; at two bits both are coded down to ¼.
    #[test]
    fn the_water_covers_small_sources_first() {
        let curve = curve(&[(5, 16.0), (5, 1.0)], &[1.0, 2.0]);
        assert!((curve[0].mse - 1.0).abs() < 1e-9, "{curve:?}");
        assert!((curve[1].mse - 0.25).abs() < 1e-9, "{curve:?}");
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert!(curve(&[], &[1.0]).is_empty() && curve(&[(3, 0.0)], &[1.0]).is_empty());
        assert_eq!(differential_entropy(0.0), None);
    }

    #[test]
    fn entropy_of_the_unit_gaussian() {
        let entropy = differential_entropy(1.0).expect("it has variance");
        assert!((entropy - 2.047_095_585).abs() < 1e-8, "{entropy}");
    }
}
