//! Codebooks of vectors: one code for several consecutive weights.
//!
//! Owns: codebooks `[k, d]`, fitting and codes of whole matrices. Must not know: which tensors have one, packing.
//! Source: product quantization with a codebook that all subspaces share (Jégou et al. 2011; Stock et al. 2020), errors
//! weighted by column.
//! Invariant: training sees a sample whose size depends on the shapes only, sums have a fixed order: one seed gives the
//! same bits for any number of threads.

mod metric;
mod seeding;
mod train;

use super::assign::Codes;
use super::{Distinct, MAX_CENTROIDS, check_dtype, rounded};
use crate::error::{Error, Result};
use crate::tensor::DType;
use metric::{Metric, Table, nearest};
use rayon::prelude::*;

/// Weights that share a code.
const WIDTHS: std::ops::RangeInclusive<usize> = 1..=16;

/// What a codebook of vectors shall be like.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// `d`, weights that share a code: 1 to 16.
    pub width: usize,
    /// `k`, 1 to [`MAX_CENTROIDS`].
    pub centroids: usize,
    /// Of the sample and the start.
    pub seed: u64,
    /// The type centroids are stored in: f32, f16 or bf16.
    pub dtype: DType,
}

/// Vectors that stand for others.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebook {
    /// `d`.
    pub width: usize,
    /// `[k, d]`, in ascending order of the first element, then the next; fewer than asked for where the matrix has
    /// fewer vectors, at least one.
    pub centroids: Vec<f32>,
}

/// A matrix's codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    /// One for each `d` consecutive weights, row by row.
    pub codes: Codes,
    /// Σ w (v − its centroid's element)².
    pub inertia: f64,
}

/// Fits a codebook to the rows of `values`, `[rows, cols]`, `d` consecutive values a vector. Column `j` weighs
/// `weights[j]`, all alike without weights or where all are 0; vectors of columns that all weigh 0 are not trained on.
///
/// The start is greedy k-means++ on at most 16 vectors a centroid; Lloyd's iteration runs on at most 64 a centroid, or
/// on as many as it can assign with 2^28 multiplications a step if those are more. A cluster that gets empty is moved
/// to the vector that is worst off. With `d` = 1 it is [`super::fit`]'s codebook. `stop` is asked before each step.
///
/// Errors: `bad_codebook_size`, `bad_codebook_dtype`, `bad_vector_width` where it does not divide the columns;
/// `non_finite_values`, `bad_column_weights`, `centroid_overflow`; `cancelled`.
pub fn fit(
    values: &[f32],
    cols: usize,
    weights: Option<&[f32]>,
    spec: &Spec,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Codebook> {
    check_dtype(spec.dtype)?;
    if !(1..=MAX_CENTROIDS).contains(&spec.centroids) {
        let message = format!(
            "{} centroids: a codebook has 1 to {MAX_CENTROIDS}",
            spec.centroids
        );
        return Err(Error::bad_input("bad_codebook_size", message));
    }
    let metric = Metric::of(values, cols, spec.width, weights)?;
    if stop() {
        return Err(Error::cancelled());
    }
    if spec.width == 1 {
        let centroids = scalars(values, weights, spec)?;
        return Ok(Codebook { width: 1, centroids });
    }
    let mut vectors = train::centroids(values, &metric, spec, stop)?;
    let inverse = 1.0 / f64::from(metric.scale());
    for v in &mut vectors {
        *v = rounded(f64::from(*v) * inverse, spec.dtype)? + 0.0;
    }
    let mut rows: Vec<&[f32]> = vectors.chunks_exact(spec.width).collect();
    rows.sort_by(|a, b| {
        let pairs = a.iter().zip(b.iter());
        pairs
            .map(|(a, b)| a.total_cmp(b))
            .find(|o| o.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    Ok(Codebook {
        width: spec.width,
        centroids: rows.concat(),
    })
}

/// Vectors of one element are values, which have a better solver.
fn scalars(values: &[f32], weights: Option<&[f32]>, spec: &Spec) -> Result<Vec<f32>> {
    let scalar = crate::kernels::kmeans::Spec {
        centroids: spec.centroids,
        seed: spec.seed,
        keep_zero: false,
        dtype: spec.dtype,
    };
    Ok(crate::kernels::kmeans::fit(&Distinct::of(values, weights)?, &scalar)?.centroids)
}

/// The code of every vector of `values`, `[rows, cols]`: its nearest centroid by the columns' weights, of equals the
/// first. Where all of a vector's columns weigh 0 they count as 1 for the choice, as nothing for the inertia.
///
/// Errors: as [`fit`]; `bad_codebook` where it is no `[k, d]` of finite numbers.
pub fn assign(values: &[f32], cols: usize, weights: Option<&[f32]>, codebook: &Codebook) -> Result<Assigned> {
    let metric = Metric::of(values, cols, codebook.width, weights)?.covering(&codebook.centroids);
    let count = codebook.centroids.len() / codebook.width;
    let whole = codebook.centroids.len().is_multiple_of(codebook.width);
    if !whole || !(1..=MAX_CENTROIDS).contains(&count) || !codebook.centroids.iter().all(|c| c.is_finite()) {
        let message = format!(
            "{} numbers as centroids of {}",
            codebook.centroids.len(),
            codebook.width
        );
        return Err(Error::bad_input("bad_codebook", message));
    }
    let scaled: Vec<f32> = codebook.centroids.iter().map(|c| c * metric.scale()).collect();
    let table = Table::of(&scaled, codebook.width);
    let per_row = cols / codebook.width;
    let mut codes = vec![0u16; values.len() / codebook.width];
    let rows = codes.par_chunks_mut(per_row).zip(values.par_chunks(cols));
    let errors: Vec<f64> = rows
        .map_init(
            || (vec![0.0; cols], vec![0.0; per_row]),
            |(row, errors), (codes, values)| {
                metric.scaled(values, row);
                nearest(row, metric.weights(), &table, codes, errors);
                let seen = errors.iter().zip(metric.seen()).filter(|(_, seen)| **seen);
                seen.map(|(error, _)| f64::from(*error)).sum()
            },
        )
        .collect();
    let codes = if count <= 256 {
        Codes::Narrow(codes.iter().map(|c| *c as u8).collect())
    } else {
        Codes::Wide(codes)
    };
    Ok(Assigned {
        codes,
        inertia: errors.iter().sum::<f64>() * metric.unit(),
    })
}

#[cfg(test)]
mod tests;
