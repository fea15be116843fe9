//! Codebooks: few values that stand for many, of least squared error.
//!
//! Owns: fitting them to distinct values ([`fit`]), to groups ([`fit_groups`]) and to vectors ([`product`]), and codes
//! ([`assign()`]). Must not know: which tensors have one, how codes are packed.
//! Source: Deep Compression (Han et al. 2016) for a zero that stays exact.
//! Invariant: centroids ascend and are numbers that their type can hold; the same seed gives the same bits for any
//! number of threads.

mod assign;
mod distinct;
mod exact;
mod groups;
mod lloyd;
mod prefix;
pub mod product;

pub use assign::{Codes, assign};
pub use distinct::Distinct;
pub use exact::{evaluations, working_bytes};
pub use groups::{Groups, fit_groups};

use crate::error::{Error, Result};
use crate::tensor::{DType, round_to};

/// Centroids of a codebook at most.
pub const MAX_CENTROIDS: usize = 4096;

/// Cost evaluations up to which the exact solution is found, `k · n · log2 n`: all 65,536 values of sixteen bits in 256
/// clusters. That takes a second or less on one core, and a table of 64 MiB.
pub const AFFORDABLE: u64 = 1 << 28;

/// What a codebook shall be like.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Centroids, 1 to [`MAX_CENTROIDS`].
    pub centroids: usize,
    /// Of the random starts, where there are any.
    pub seed: u64,
    /// One centroid is exactly 0, whatever the values are: pruned weights stay pruned.
    pub keep_zero: bool,
    /// The type centroids are stored in: f32, f16 or bf16.
    pub dtype: DType,
}

/// A codebook and what it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Ascending and distinct; fewer than asked for where fewer values are distinct in the stored type, at least one.
    pub centroids: Vec<f32>,
    /// Σ w (v − nearest centroid)², of the rounded centroids.
    pub inertia: f64,
    /// Whether no other centroids, before rounding, cost less.
    pub optimal: bool,
}

impl Spec {
    fn check(&self) -> Result<()> {
        if !(1..=MAX_CENTROIDS).contains(&self.centroids) {
            let message = format!(
                "{} centroids: a codebook has 1 to {MAX_CENTROIDS}",
                self.centroids
            );
            return Err(Error::bad_input("bad_codebook_size", message));
        }
        check_dtype(self.dtype)
    }
}

fn check_dtype(dtype: DType) -> Result<()> {
    if matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Ok(());
    }
    Err(Error::unsupported(
        "bad_codebook_dtype",
        format!("a codebook of {dtype}: store it as F32, F16 or BF16"),
    ))
}

/// The codebook of least squared error for weighted values.
///
/// It is exact where that takes at most [`AFFORDABLE`] evaluations, so for every tensor of sixteen bits with up to 256
/// centroids. Otherwise Lloyd's iteration starts from the exact solution for 8,192 to 16,384 merged values or, where
/// even that is too much (more than about 1,170 centroids), from the best of four k-means++ starts on them.
///
/// Errors: `bad_codebook_size`, `bad_codebook_dtype`; `centroid_overflow` where the type cannot hold a centroid.
pub fn fit(distinct: &Distinct, spec: &Spec) -> Result<Fit> {
    spec.check()?;
    let k = spec.centroids;
    let optimal = distinct.len() <= k || evaluations(distinct.len(), k) <= AFFORDABLE;
    let centroids = match (optimal, spec.keep_zero) {
        (true, false) => exact::centroids(distinct, k),
        (true, true) => exact::centroids_with_zero(distinct, k),
        (false, zero) => lloyd::centroids(distinct, k, zero, spec.seed, AFFORDABLE),
    };
    let centroids = stored(&centroids, spec.dtype)?;
    let inertia = inertia(distinct, &centroids);
    Ok(Fit {
        centroids,
        inertia,
        optimal,
    })
}

/// Ascending centroids as their type holds them, each once; a zero where there are none.
fn stored(centroids: &[f64], dtype: DType) -> Result<Vec<f32>> {
    let mut made = Vec::with_capacity(centroids.len().max(1));
    for centroid in centroids {
        // −0 is 0.
        made.push(rounded(*centroid, dtype)? + 0.0);
    }
    if made.is_empty() {
        made.push(0.0);
    }
    made.dedup();
    Ok(made)
}

fn rounded(centroid: f64, dtype: DType) -> Result<f32> {
    let stored = round_to(dtype, centroid as f32);
    if stored.is_finite() {
        return Ok(stored);
    }
    Err(Error::numeric(
        "centroid_overflow",
        format!("the weights are so large that the centroid {centroid} does not fit into {dtype}"),
    ))
}

/// Σ w (v − nearest centroid)², value by value: nothing cancels.
fn inertia(distinct: &Distinct, centroids: &[f32]) -> f64 {
    let centroids: Vec<f64> = centroids.iter().map(|c| f64::from(*c)).collect();
    let cuts = lloyd::cuts_between(distinct.values(), &centroids);
    let clusters = cuts.windows(2).zip(&centroids).map(|(run, centroid)| {
        let run = run[0]..run[1];
        let values = distinct.values()[run.clone()]
            .iter()
            .zip(&distinct.weights()[run]);
        values
            .map(|(v, w)| w * (f64::from(*v) - centroid).powi(2))
            .sum::<f64>()
    });
    clusters.sum()
}

#[cfg(test)]
mod tests;
