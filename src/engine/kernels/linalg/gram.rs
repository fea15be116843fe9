//! Gram matrices, summed up batch by batch.
//!
//! Owns: the layout of their lower triangle. Must not know: what is summed.
//! Invariant: strips are cut by the size alone, so the bits do not depend on the number of threads.

use super::{Into, Precision, View, product};
use crate::kernels::bf16;
use rayon::prelude::*;

/// Rows of the strips of a Gram matrix that has at least `WIDE` columns: 3 and 32 times those of gemm's widest kernel.
/// Narrower strips, of half that, compute less above the diagonal; wider ones pack less.
pub(super) const STRIP: usize = 192;
pub(super) const WIDE: usize = 1024;

/// The lower triangle of a Gram matrix `XᵀX` of `[k, k]`, kept as strips of rows that end with the diagonal.
#[derive(Clone, Debug)]
pub struct Gram {
    k: usize,
    pub(super) strips: Vec<Strip>,
}

#[derive(Clone, Debug)]
pub(super) struct Strip {
    /// First row.
    row: usize,
    /// Columns: up to the last row's diagonal.
    cols: usize,
    /// Row-major.
    pub(super) values: Vec<f32>,
}

/// Rows and columns of the strips of a matrix of `[k, k]`: the longest, the shortest, the second longest and so on, so
/// that threads that take halves of the list have the same work.
fn strips(k: usize) -> impl Iterator<Item = (usize, usize)> {
    let rows = if k < WIDE { STRIP / 2 } else { STRIP };
    let count = k.div_ceil(rows);
    (0..count).map(move |i| {
        let at = if i % 2 == 0 { count - 1 - i / 2 } else { i / 2 };
        (at * rows, ((at + 1) * rows).min(k))
    })
}

impl Gram {
    /// All zeros.
    pub fn new(k: usize) -> Self {
        let strips = strips(k).map(|(row, cols)| Strip {
            row,
            cols,
            values: vec![0.0; (cols - row) * cols],
        });
        Self {
            k,
            strips: strips.collect(),
        }
    }

    /// Bytes that [`Gram::new`] takes.
    pub fn bytes(k: usize) -> u64 {
        strips(k)
            .map(|(row, cols)| 4 * ((cols - row) * cols) as u64)
            .sum()
    }

    /// Adds xᵀx; x is `[rows, k]`, row-major. What is summed is never rounded to bf16: [`Precision::Bf16`] counts as
    /// [`Precision::Split`].
    pub fn add(&mut self, x: &[f32], precision: Precision) {
        let (k, m) = (self.k, x.len() / self.k.max(1));
        if m == 0 {
            return;
        }
        if precision != Precision::Full && bf16::pays(k, k, m, bf16::Parts::Two) {
            let strips = self.strips.par_iter_mut();
            return bf16::add_gram(
                View::rows(x, m, k, k),
                strips.map(|s| (s.row, s.cols, &mut s.values)),
            );
        }
        self.strips.par_iter_mut().with_max_len(1).for_each(|strip| {
            let left = View::rows(&x[strip.row..], m, strip.cols - strip.row, k).t();
            let right = View::rows(x, m, strip.cols, k);
            product(&mut strip.values, strip.cols, Into::Add, left, right, 1.0);
        });
    }

    /// The whole symmetric matrix, row-major.
    pub fn into_full(self) -> Vec<f32> {
        let k = self.k;
        let mut full = vec![0.0; k * k];
        for strip in &self.strips {
            let rows = full[strip.row * k..].chunks_mut(k);
            for (to, from) in rows.zip(strip.values.chunks(strip.cols)) {
                to[..strip.cols].copy_from_slice(from);
            }
        }
        mirror(&mut full, k);
        full
    }
}

/// Copies what is below the diagonal to above it, square by square: both sides of the copy stay in the cache.
fn mirror(full: &mut [f32], k: usize) {
    const SIDE: usize = 32;
    for (top, left) in (0..k)
        .step_by(SIDE)
        .flat_map(|top| (top..k).step_by(SIDE).map(move |left| (top, left)))
    {
        for row in top..(top + SIDE).min(k) {
            for col in left.max(row + 1)..(left + SIDE).min(k) {
                full[row * k + col] = full[col * k + row];
            }
        }
    }
}
