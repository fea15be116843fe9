//! From what a choice is said to lose to what it will be measured to lose.
//!
//! Owns: the fit between the two, and how far it can be trusted. Must not know: how either is found.
//! Invariant: the interval never narrows to nothing, however well the samples agree.

/// How far a first guess may be off, as a factor's logarithm.
const PRIOR_SPREAD: f64 = 0.2;
/// How many samples the guess counts as.
const PRIOR_WEIGHT: f64 = 2.0;
/// Spread that stays however many samples agree: they are of one model and similar choices.
const LEAST_SPREAD: f64 = 0.08;

/// A choice's loss as it was said and as it was measured, both above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Said.
    pub said: f64,
    /// Measured.
    pub measured: f64,
}

/// `measured ≈ said · factor`, on a logarithmic scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Logarithm of the factor.
    shift: f64,
    /// Standard deviation around it.
    spread: f64,
}

impl Forecast {
    /// From samples that were measured; none give what is said itself, with little trust.
    pub fn of(samples: &[Sample]) -> Self {
        let good = samples.iter().filter(|s| s.said > 0.0 && s.measured > 0.0);
        let logs: Vec<f64> = good.map(|s| (s.measured / s.said).ln()).collect();
        let count = logs.len() as f64;
        if logs.is_empty() {
            return Self {
                shift: 0.0,
                spread: PRIOR_SPREAD,
            };
        }
        let shift = logs.iter().sum::<f64>() / count;
        let squares: f64 = logs.iter().map(|log| (log - shift).powi(2)).sum();
        let spread = ((PRIOR_WEIGHT * PRIOR_SPREAD.powi(2) / count.max(1.0).powi(2) + squares)
            / (PRIOR_WEIGHT + count - 1.0))
            .sqrt()
            .max(LEAST_SPREAD);
        Self { shift, spread }
    }

    /// What will be measured of a loss that is said.
    pub fn expected(&self, said: f64) -> f64 {
        said * self.shift.exp()
    }

    /// 95 % interval of that.
    pub fn interval(&self, said: f64) -> [f64; 2] {
        let [low, high] = [-1.96, 1.96].map(|z| (self.shift + z * self.spread).exp());
        [said * low, said * high]
    }

    /// The loss to ask for so that `measured` is what is expected.
    pub fn asking(&self, measured: f64) -> f64 {
        measured * (-self.shift).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_move_the_factor_and_narrow_the_interval() {
        let none = Forecast::of(&[]);
        assert_eq!(none.expected(2.0), 2.0);
        let sample = |said: f64, measured: f64| Sample { said, measured };
        let few = Forecast::of(&[sample(1.0, 1.5), sample(2.0, 3.1), sample(0.5, 0.74)]);
        assert!((few.expected(1.0) - 1.5).abs() < 0.05);
        assert!((few.asking(few.expected(0.3)) - 0.3).abs() < 1e-12);
        let width = |f: &Forecast| f.interval(1.0)[1] / f.interval(1.0)[0];
        assert!(width(&few) < width(&none) && width(&few) > 1.2, "{few:?}");
    }

    #[test]
    fn samples_that_disagree_are_not_trusted() {
        let sample = |said: f64, measured: f64| Sample { said, measured };
        let apart = Forecast::of(&[sample(1.0, 0.5), sample(1.0, 2.0), sample(1.0, 1.0)]);
        assert!(apart.interval(1.0)[1] > 2.5, "{apart:?}");
    }
}
