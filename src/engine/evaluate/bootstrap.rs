//! Intervals by resampling sequences.
//!
//! Owns: the paired bootstrap (Efron 1979; percentile interval). Must not know: metrics.
//! Invariant: the same seed gives the same interval; both models' numbers of a sequence are drawn together.

use crate::kernels::random::Random;

/// Resamples.
const DRAWS: usize = 1000;

/// 95 % interval of a statistic of resampled items, by its percentiles.
pub(super) fn interval(items: usize, seed: u64, statistic: impl Fn(&[usize]) -> f64) -> [f64; 2] {
    let mut random = Random::new(seed ^ 0x5851_F42D_4C95_7F2D);
    let mut values = Vec::with_capacity(DRAWS);
    let mut drawn = vec![0; items];
    for _ in 0..DRAWS {
        for at in &mut drawn {
            *at = random.below(items.max(1) as u64) as usize;
        }
        values.push(statistic(&drawn));
    }
    values.sort_by(f64::total_cmp);
    [values[DRAWS * 25 / 1000], values[DRAWS * 975 / 1000 - 1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_about_two_standard_errors() {
        let items: Vec<f64> = (0..200).map(|i| f64::from(i % 10)).collect();
        let mean = |at: &[usize]| at.iter().map(|i| items[*i]).sum::<f64>() / at.len() as f64;
        let [low, high] = interval(items.len(), 7, mean);
        let error = (8.25f64 / 200.0).sqrt();
        assert!((4.5 - low - 1.96 * error).abs() < 0.06 && (high - 4.5 - 1.96 * error).abs() < 0.06);
        assert_eq!(interval(items.len(), 7, mean), [low, high]);
    }
}
