//! Moments of many numbers, chunk by chunk.
//!
//! Owns: count, mean, second to fourth central moment, extremes.
//! Must not know: tensors.
//! Invariant: merged in a fixed order the result has the same bits, however many threads made the parts.
//!
//! Parts are merged as in Pébay, Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order
//! Statistical Moments, Sandia report SAND2008-6212.

/// What is known of some numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moments {
    /// Finite ones; the others are in no moment.
    pub(super) count: u64,
    pub(super) not_finite: u64,
    pub(super) zeros: u64,
    pub(super) mean: f64,
    /// Sums of the second, third and fourth power of the distance to the mean.
    sums: [f64; 3],
    pub(super) min: f32,
    pub(super) max: f32,
    /// The smallest magnitude that is not zero; infinite if there is none.
    pub(super) smallest: f32,
}

impl Default for Moments {
    fn default() -> Self {
        Self {
            count: 0,
            not_finite: 0,
            zeros: 0,
            mean: 0.0,
            sums: [0.0; 3],
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            smallest: f32::INFINITY,
        }
    }
}

impl Moments {
    /// Of these numbers.
    pub(super) fn of(values: &[f32]) -> Self {
        let mut seen = Self::default();
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let mut sum = 0.0;
        for value in finite() {
            seen.count += 1;
            sum += f64::from(value);
            seen.min = seen.min.min(value);
            seen.max = seen.max.max(value);
            if value == 0.0 {
                seen.zeros += 1;
            } else {
                seen.smallest = seen.smallest.min(value.abs());
            }
        }
        seen.not_finite = values.len() as u64 - seen.count;
        seen.mean = sum / seen.count.max(1) as f64;
        for value in finite() {
            let d = f64::from(value) - seen.mean;
            let square = d * d;
            seen.sums[0] += square;
            seen.sums[1] += square * d;
            seen.sums[2] += square * square;
        }
        seen
    }

    /// Of both.
    pub(super) fn merge(self, other: Self) -> Self {
        let mut both = Self {
            count: self.count + other.count,
            not_finite: self.not_finite + other.not_finite,
            zeros: self.zeros + other.zeros,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            smallest: self.smallest.min(other.smallest),
            ..self
        };
        if other.count == 0 {
            return both;
        }
        if self.count == 0 {
            (both.mean, both.sums) = (other.mean, other.sums);
            return both;
        }
        let (a, b, n) = (self.count as f64, other.count as f64, both.count as f64);
        let d = other.mean - self.mean;
        let ([a2, a3, a4], [b2, b3, b4]) = (self.sums, other.sums);
        both.mean = self.mean + d * b / n;
        both.sums = [
            a2 + b2 + d * d * a * b / n,
            a3 + b3 + d.powi(3) * a * b * (a - b) / (n * n) + 3.0 * d * (a * b2 - b * a2) / n,
            a4 + b4
                + d.powi(4) * a * b * (a * a - a * b + b * b) / n.powi(3)
                + 6.0 * d * d * (a * a * b2 + b * b * a2) / (n * n)
                + 4.0 * d * (a * b3 - b * a3) / n,
        ];
        both
    }

    /// Mean square distance to the mean.
    pub(super) fn variance(&self) -> f64 {
        self.sums[0] / self.count.max(1) as f64
    }

    /// Fourth moment over the squared second, less 3: 0 for a Gaussian, more with heavier tails; none without variance.
    pub(super) fn excess_kurtosis(&self) -> Option<f64> {
        let variance = self.variance();
        (variance > 0.0).then(|| self.sums[2] / self.count as f64 / (variance * variance) - 3.0)
    }

    /// The largest magnitude.
    pub(super) fn largest(&self) -> f32 {
        if self.count == 0 {
            0.0
        } else {
            self.max.abs().max(self.min.abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_known_numbers() {
        let seen = Moments::of(&[-1.0, 0.0, 1.0, 4.0, f32::NAN, f32::INFINITY]);
        assert_eq!((seen.count, seen.not_finite, seen.zeros), (4, 2, 1));
        assert_eq!((seen.mean, seen.variance()), (1.0, 3.5));
        assert_eq!(
            (seen.min, seen.max, seen.smallest, seen.largest()),
            (-1.0, 4.0, 1.0, 4.0)
        );
        // Fourth powers of -2, -1, 0, 3: 98 over 4, by 3.5 squared.
        assert_eq!(seen.excess_kurtosis(), Some(24.5 / 12.25 - 3.0));
    }

    proptest! {
        /// Wherever the numbers are cut, the parts say what the whole says.
        #[test]
        fn parts_say_what_the_whole_says(values in prop::collection::vec(-100f32..100.0, 2..200), at in any::<prop::sample::Index>()) {
            let (one, two) = values.split_at(at.index(values.len()));
            let (parts, whole) = (Moments::of(one).merge(Moments::of(two)), Moments::of(&values));
            let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-9 * (1.0 + scale.abs());
            prop_assert!(close(parts.mean, whole.mean, 100.0));
            for i in 0..3 {
                prop_assert!(close(parts.sums[i], whole.sums[i], 200f64.powi(i as i32 + 2) * values.len() as f64));
            }
            prop_assert_eq!((parts.count, parts.zeros, parts.min, parts.max), (whole.count, whole.zeros, whole.min, whole.max));
        }
    }
}
