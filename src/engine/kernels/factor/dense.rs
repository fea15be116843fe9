//! Dense f64 matrices: products on all threads, and the way from and to f32.
//!
//! Owns: how products are cut into tasks. Must not know: what the matrices mean.
//! Invariant: tasks are cut by the shapes alone and each runs on one thread, so the bits do not depend on the number
//! of threads.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::Solve;
use faer::linalg::triangular_solve::solve_upper_triangular_in_place;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::kernels::check_finite;

/// Sides of the rectangle of a product that one task makes.
const TASK: usize = 256;

/// Refuses what is no finite matrix of these sides.
pub(super) fn check(values: &[f32], rows: usize, cols: usize) -> Result<()> {
    if rows == 0 || cols == 0 {
        return Err(Error::bad_input(
            "empty_matrix",
            format!("a matrix of {rows} × {cols} has nothing to factor"),
        ));
    }
    if rows.checked_mul(cols) != Some(values.len()) {
        return Err(Error::internal(format!(
            "{} values were given for a matrix of {rows} × {cols}",
            values.len()
        )));
    }
    check_finite(values, 0)
}

/// The transpose of a row-major `[rows, cols]`: each of its columns is a row as it lies.
pub(super) fn transposed(values: &[f32], rows: usize, cols: usize) -> Mat<f64> {
    let mut out = Mat::zeros(cols, rows);
    strips(out.as_mut())
        .into_par_iter()
        .for_each(|(first, mut strip)| {
            for j in 0..strip.ncols() {
                let from = &values[(first + j) * cols..(first + j + 1) * cols];
                for (to, v) in strip.as_mut().col_mut(j).iter_mut().zip(from) {
                    *to = f64::from(*v);
                }
            }
        });
    out
}

/// Row-major f32 of the transpose: each column becomes a row.
pub(super) fn columns_to_rows(a: MatRef<'_, f64>) -> Vec<f32> {
    let mut out = Vec::with_capacity(a.nrows() * a.ncols());
    for column in a.col_iter() {
        out.extend(column.iter().map(|v| *v as f32));
    }
    out
}

/// `a · b`.
pub(super) fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    rectangles(out.as_mut())
        .into_par_iter()
        .for_each(|(row, col, to)| {
            let (a, b) = (a.subrows(row, to.nrows()), b.subcols(col, to.ncols()));
            matmul(to, Accum::Replace, a, b, 1.0, Par::Seq);
        });
    out
}

/// `a · lower`, whose upper triangle is zero and not multiplied with.
pub(super) fn product_lower(a: MatRef<'_, f64>, lower: MatRef<'_, f64>) -> Mat<f64> {
    let n = lower.nrows();
    let mut out = Mat::zeros(a.nrows(), n);
    rectangles(out.as_mut())
        .into_par_iter()
        .for_each(|(row, col, to)| {
            let left = a.submatrix(row, col, to.nrows(), n - col);
            let right = lower.submatrix(col, col, n - col, to.ncols());
            matmul(to, Accum::Replace, left, right, 1.0, Par::Seq);
        });
    out
}

/// `a · aᵀ`; what lies above the diagonal's rectangles is left zero.
pub(super) fn square_lower(a: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), a.nrows());
    rectangles(out.as_mut())
        .into_par_iter()
        .filter(|(row, col, _)| row >= col)
        .for_each(|(row, col, to)| {
            let (left, right) = (a.subrows(row, to.nrows()), a.subrows(col, to.ncols()));
            matmul(to, Accum::Replace, left, right.transpose(), 1.0, Par::Seq);
        });
    out
}

/// `lower⁻ᵀ · x` in place of x.
pub(super) fn solve_transposed(lower: MatRef<'_, f64>, x: &mut Mat<f64>) {
    strips(x.as_mut()).into_par_iter().for_each(|(_, strip)| {
        solve_upper_triangular_in_place(lower.transpose(), strip, Par::Seq);
    });
}

/// right · (gram + ridge)⁻¹ for a symmetric matrix, the ridge a part of its mean diagonal; none where that is not positive
/// definite.
pub(super) fn divided(right: MatRef<'_, f64>, gram: &Mat<f64>, ridge: f64) -> Option<Mat<f64>> {
    let n = gram.nrows();
    let mean = (0..n).map(|i| gram[(i, i)]).sum::<f64>() / n as f64;
    let mut ridged = gram.clone();
    // Where all is zero every ridge will do.
    let added = if mean > 0.0 { ridge * mean } else { 1.0 };
    (0..n).for_each(|i| ridged[(i, i)] += added);
    let factor = ridged.llt(Side::Lower).ok()?;
    Some(factor.solve(right.transpose()).transpose().to_owned())
}

/// Squared Frobenius norm.
pub(super) fn squared(a: MatRef<'_, f64>) -> f64 {
    // Along the shorter distance: the other way every number is in another line of the cache.
    let a = if a.row_stride() == 1 { a } else { a.transpose() };
    let of = |j: usize| a.col(j).iter().map(|v| v * v).sum::<f64>();
    let sums: Vec<f64> = (0..a.ncols()).into_par_iter().map(of).collect();
    sums.iter().sum()
}

/// Orthonormal columns that span those of a tall matrix, also where they depend on each other.
pub(super) fn orthonormal(a: MatRef<'_, f64>) -> Mat<f64> {
    a.qr().compute_thin_Q()
}

/// Strips of whole columns, each with its first.
fn strips(mut rest: MatMut<'_, f64>) -> Vec<(usize, MatMut<'_, f64>)> {
    // A quarter of a rectangle's side: factors are narrow, and all threads shall have something.
    let width = TASK / 4;
    let mut out = Vec::with_capacity(rest.ncols().div_ceil(width));
    let mut at = 0;
    while rest.ncols() > width {
        let (strip, behind) = rest.split_at_col_mut(width);
        out.push((at, strip));
        at += width;
        rest = behind;
    }
    out.push((at, rest));
    out
}

/// Rectangles of at most `TASK × TASK`, each with its first row and column.
fn rectangles(mut rest: MatMut<'_, f64>) -> Vec<(usize, usize, MatMut<'_, f64>)> {
    let mut out = Vec::new();
    let mut col = 0;
    loop {
        let width = rest.ncols().min(TASK);
        let (mut strip, behind) = rest.split_at_col_mut(width);
        let mut row = 0;
        while strip.nrows() > TASK {
            let (top, below) = strip.split_at_row_mut(TASK);
            out.push((row, col, top));
            row += TASK;
            strip = below;
        }
        out.push((row, col, strip));
        if behind.ncols() == 0 {
            return out;
        }
        col += width;
        rest = behind;
    }
}
