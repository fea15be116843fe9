//! What tests factor: seeded matrices, correlated inputs, slow f64 references.
//!
//! Owns: inputs of tests. Must not know: what is tested.
//! Invariant: the same seed gives the same sample.

use super::randomized::normal;
use crate::kernels::random::Random;

pub(super) fn never() -> bool {
    false
}

/// Nearly normal numbers.
pub(super) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| normal(&mut random) as f32).collect()
}

/// a · b in f64.
pub(super) fn multiply(a: &[f32], b: &[f32], inner: usize) -> Vec<f32> {
    let (m, n) = (a.len() / inner, b.len() / inner);
    let cell = |at: usize| {
        (0..inner)
            .map(|k| f64::from(a[at / n * inner + k]) * f64::from(b[k * n + at % n]))
            .sum::<f64>() as f32
    };
    (0..m * n).map(cell).collect()
}

pub(super) fn squared(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum()
}

/// Squared distance.
pub(super) fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum()
}

/// `XᵀX` of inputs that follow each other and differ in size, `[n, n]`.
pub(super) fn correlated_gram(n: usize, samples: usize, seed: u64) -> Vec<f32> {
    let base = noise(samples * n, seed);
    let mut x = vec![0f64; samples * n];
    for r in 0..samples {
        for c in 0..n {
            let before = if c > 0 { x[r * n + c - 1] } else { 0.0 };
            x[r * n + c] = 0.9 * before + f64::from(base[r * n + c]) * (0.1 + (c % 7) as f64);
        }
    }
    let cell = |at: usize| {
        (0..samples)
            .map(|t| x[t * n + at / n] * x[t * n + at % n])
            .sum::<f64>() as f32
    };
    (0..n * n).map(cell).collect()
}

/// Σ (w − v) H (w − v)ᵀ over rows of n.
pub(super) fn outputs_error(w: &[f32], v: &[f32], gram: &[f32], n: usize) -> f64 {
    let gap: Vec<f64> = w
        .iter()
        .zip(v)
        .map(|(a, b)| f64::from(*a) - f64::from(*b))
        .collect();
    let row = |gap: &[f64]| {
        (0..n)
            .map(|i| gap[i] * (0..n).map(|j| f64::from(gram[i * n + j]) * gap[j]).sum::<f64>())
            .sum::<f64>()
    };
    gap.chunks(n).map(row).sum()
}

/// The same computation in pools of 1, 2 and 5 threads.
pub(super) fn in_pools<T: Send>(run: impl Fn() -> T + Sync) -> Vec<T> {
    let pool = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(&run)
    };
    [1, 2, 5].map(pool).into()
}
