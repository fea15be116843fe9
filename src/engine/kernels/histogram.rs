//! How large values are: a histogram of magnitudes, and where to clip them before they are quantized.
//!
//! Owns: the counts, the choice of a threshold. Must not know: where the values come from, how codes are stored.
//! Invariant: bins are as wide as a power of two and merge in pairs, so counts are exact and the order of threads does
//! not matter.

use crate::error::{Error, Result};
use rayon::prelude::*;

/// Bins; at least half of them are in use.
const BINS: usize = 2048;
/// Values that one task counts.
const CHUNK: usize = 256 * 1024;
/// Parts of the largest magnitude that are tried as thresholds for the least squared error.
const TRIES: usize = 128;

/// Magnitudes by size.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Width of a bin: a power of two; 0 while nothing but zeros came.
    width: f32,
    bins: Vec<u64>,
    largest: f32,
    count: u64,
}

/// What values are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// 255 equal steps, symmetric.
    Int8,
    /// E4M3.
    Float8,
}

impl Steps {
    /// The threshold in steps.
    fn top(self) -> f32 {
        match self {
            Self::Int8 => 127.5,
            Self::Float8 => super::float8::MAX,
        }
    }

    /// A step, where magnitudes up to the threshold are told apart.
    pub fn scale(self, threshold: f32) -> f32 {
        let scale = threshold / self.top();
        if scale >= f32::MIN_POSITIVE { scale } else { 1.0 }
    }

    /// A magnitude as it comes back.
    fn rounded(self, magnitude: f32, scale: f32) -> f32 {
        match self {
            Self::Int8 => (magnitude / scale).round_ties_even().min(127.0) * scale,
            Self::Float8 => super::float8::rounded(magnitude / scale) * scale,
        }
    }
}

/// How a threshold is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observer {
    /// The largest magnitude.
    MinMax,
    /// So many percent of all magnitudes are not clipped.
    Percentile(f64),
    /// Least squared error of the rounded values.
    Mse,
    /// Least Kullback-Leibler divergence of the rounded distribution from the one of the values (Migacz 2017).
    Entropy,
}

impl Histogram {
    /// Bytes that one takes.
    pub const BYTES: u64 = 8 * BINS as u64;

    /// Counts values.
    pub fn add(&mut self, values: &[f32]) -> Result<()> {
        // NaN does not win a max: it is looked for.
        let chunks = values.par_chunks(CHUNK);
        let (largest, finite) = chunks
            .map(|c| {
                c.iter()
                    .fold((0f32, true), |(m, f), v| (m.max(v.abs()), f && v.is_finite()))
            })
            .reduce(|| (0.0, true), |a, b| (a.0.max(b.0), a.1 && b.1));
        if !finite {
            return Err(Error::numeric(
                "non_finite_activations",
                "the inputs of this layer hold NaN or infinities: the model overflows on the calibration data",
            ));
        }
        self.make_room(largest);
        self.count += values.len() as u64;
        if self.width == 0.0 {
            return Ok(());
        }
        let inverse = 1.0 / self.width;
        let counted = values
            .par_chunks(CHUNK)
            .map(|chunk| {
                let mut bins = vec![0u64; BINS];
                for v in chunk {
                    bins[((v.abs() * inverse) as usize).min(BINS - 1)] += 1;
                }
                bins
            })
            .reduce(
                || vec![0; BINS],
                |a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect(),
            );
        for (sum, n) in self.bins.iter_mut().zip(counted) {
            *sum += n;
        }
        Ok(())
    }

    /// Widens the bins until `largest` has one.
    fn make_room(&mut self, largest: f32) {
        self.largest = self.largest.max(largest);
        if self.largest == 0.0 {
            return;
        }
        if self.width == 0.0 {
            // Zeros that came before have no bin yet.
            self.width = f32::MIN_POSITIVE;
            self.bins = vec![0; BINS];
            self.bins[0] = self.count;
        }
        while self.width * (BINS as f32) <= self.largest && self.width.is_finite() {
            self.width *= 2.0;
            for i in 0..BINS / 2 {
                self.bins[i] = self.bins[2 * i] + self.bins[2 * i + 1];
            }
            self.bins[BINS / 2..].fill(0);
        }
    }

    /// Values that were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Largest magnitude that is still told apart.
    pub fn threshold(&self, observer: Observer, steps: Steps) -> f32 {
        if self.largest == 0.0 {
            return 0.0;
        }
        match observer {
            Observer::MinMax => self.largest,
            Observer::Percentile(percent) => self.percentile(percent),
            Observer::Mse => self.least_error(steps),
            Observer::Entropy => self.least_divergence(),
        }
    }

    fn percentile(&self, percent: f64) -> f32 {
        let wanted = (self.count as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (i, n) in self.bins.iter().enumerate() {
            seen += n;
            if seen >= wanted {
                return ((i + 1) as f32 * self.width).min(self.largest);
            }
        }
        self.largest
    }

    fn centre(&self, bin: usize) -> f32 {
        ((bin as f32 + 0.5) * self.width).min(self.largest)
    }

    fn least_error(&self, steps: Steps) -> f32 {
        let error = |threshold: f32| -> f64 {
            let scale = steps.scale(threshold);
            let term = |(i, n): (usize, &u64)| {
                let x = self.centre(i);
                let gap = f64::from(x - steps.rounded(x, scale));
                *n as f64 * gap * gap
            };
            self.bins.iter().enumerate().map(term).sum()
        };
        let mut best = (error(self.largest), self.largest);
        for i in (1..TRIES).rev() {
            let threshold = self.largest * i as f32 / TRIES as f32;
            let e = error(threshold);
            if e < best.0 {
                best = (e, threshold);
            }
        }
        best.1
    }

    /// Tries every number of bins from 128 on: what lies beyond falls into the last one, and 128 levels are told apart.
    fn least_divergence(&self) -> f32 {
        const LEVELS: usize = 128;
        let used = self.bins.iter().rposition(|n| *n > 0).map_or(0, |i| i + 1);
        let mut best = (f64::INFINITY, self.largest);
        for kept in LEVELS..=used {
            let beyond: u64 = self.bins[kept..].iter().sum();
            let divergence = divergence(&self.bins[..kept], beyond, LEVELS);
            if divergence < best.0 {
                best = (divergence, (kept as f32 * self.width).min(self.largest));
            }
        }
        best.1
    }
}

/// KL divergence of the bins, told apart in so many levels, from the bins with what lies beyond in the last one.
fn divergence(bins: &[u64], beyond: u64, levels: usize) -> f64 {
    let last = bins.len() - 1;
    let own = |i: usize| bins[i] as f64 + if i == last { beyond as f64 } else { 0.0 };
    let total = bins.iter().sum::<u64>() as f64 + beyond as f64;
    let within: f64 = bins.iter().sum::<u64>() as f64;
    if within == 0.0 {
        return f64::INFINITY;
    }
    let mut sum = 0.0;
    for level in 0..levels {
        let (from, to) = (level * bins.len() / levels, (level + 1) * bins.len() / levels);
        let mass: u64 = bins[from..to].iter().sum();
        let filled = (from..to)
            .filter(|i| bins[*i] > 0 || *i == last && beyond > 0)
            .count();
        for i in (from..to).filter(|i| own(*i) > 0.0) {
            let p = own(i) / total;
            // A bin that only holds what was clipped has no mass of its own: it counts as the rarest.
            let q = (mass as f64 / filled as f64).max(0.5) / within;
            sum += p * (p / q).ln();
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many small values, a few large ones.
    fn outliers() -> Vec<f32> {
        let mut values: Vec<f32> = (0..100_000u64)
            .map(|i| {
                let u = ((i * 7919) % 10_007) as f32 / 10_007.0 - 0.5;
                let v = ((i * 104_729) % 10_009) as f32 / 10_009.0 - 0.5;
                u + v
            })
            .collect();
        values.extend([30.0, -29.0, 28.0]);
        values
    }

    fn of(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        for part in values.chunks(10_000) {
            histogram.add(part).unwrap();
        }
        histogram
    }

    #[test]
    fn parts_and_threads_change_nothing() {
        let values = outliers();
        let mut whole = Histogram::default();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| whole.add(&values)).unwrap();
        let parts = of(&values);
        assert_eq!((whole.bins, whole.width), (parts.bins, parts.width));
        assert_eq!(parts.count, values.len() as u64);
    }

    #[test]
    fn observers_clip_outliers_as_they_promise() {
        let values = outliers();
        let histogram = of(&values);
        let at = |observer| histogram.threshold(observer, Steps::Int8);
        assert_eq!(at(Observer::MinMax), 30.0);
        let percentile = at(Observer::Percentile(99.99));
        let beyond = values.iter().filter(|v| v.abs() > percentile).count();
        assert!(
            beyond <= values.len() / 10_000 && percentile < 1.1,
            "{percentile} {beyond}"
        );
        assert!(at(Observer::Entropy) < 5.0, "{}", at(Observer::Entropy));
        let error = |threshold: f32| {
            let mut rounded = values.clone();
            crate::kernels::tokens::round_int8_by(&mut rounded, Steps::Int8.scale(threshold));
            let gaps = values.iter().zip(&rounded).map(|(a, b)| f64::from(a - b).powi(2));
            gaps.sum::<f64>()
        };
        let mse = error(at(Observer::Mse));
        for other in [Observer::MinMax, Observer::Percentile(99.99), Observer::Entropy] {
            assert!(mse <= error(at(other)) * 1.01, "{other:?}");
        }
    }

    #[test]
    fn an_even_spread_is_not_clipped() {
        let values: Vec<f32> = (0..20_000).map(|i| i as f32 / 20_000.0 - 0.5).collect();
        let histogram = of(&values);
        for observer in [Observer::Mse, Observer::Entropy, Observer::Percentile(99.99)] {
            let threshold = histogram.threshold(observer, Steps::Int8);
            assert!((threshold - 0.5).abs() < 0.01, "{observer:?} {threshold}");
        }
    }

    #[test]
    fn zeros_and_what_is_no_number() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0; 10]).unwrap();
        assert_eq!(histogram.threshold(Observer::Entropy, Steps::Float8), 0.0);
        assert_eq!(Steps::Int8.scale(0.0), 1.0);
        histogram.add(&[1e-30, 1e30]).unwrap();
        assert_eq!((histogram.count(), histogram.bins[0]), (12, 11));
        assert_eq!(
            histogram.add(&[f32::NAN]).unwrap_err().code,
            "non_finite_activations"
        );
    }
}
