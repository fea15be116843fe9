//! Matrix products in f32, by the gemm crate.
//!
//! Owns: how products are cut into tasks, and the one call into gemm. Must not know: what the matrices mean.
//! Invariant: tasks are cut by the shapes alone and each runs on one thread, so the bits do not depend on the number
//! of threads. They may differ between CPUs with different vector units.

use gemm::Parallelism;
use rayon::prelude::*;

/// Rows of the left matrix that one task multiplies.
const TASK_ROWS: usize = 512;
/// Rows of the right matrix that one task multiplies, where the left one has few.
const TASK_COLS: usize = 2048;
/// Side of the tiles of a Gram matrix.
const TILE: usize = 128;

/// A matrix in a slice: element (i, j) lies at `i · row + j · col`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The elements.
    pub values: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Distance of rows.
    pub row: usize,
    /// Distance of columns.
    pub col: usize,
}

impl<'a> View<'a> {
    /// Rows of `cols` elements at a distance of `stride`.
    pub fn rows(values: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        Self {
            values,
            rows,
            cols,
            row: stride,
            col: 1,
        }
    }

    /// The transposed matrix.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row: self.col,
            col: self.row,
            ..self
        }
    }

    fn last(&self) -> usize {
        last(self.rows, self.cols, self.row, self.col)
    }
}

/// Index just past the last element of a matrix.
fn last(rows: usize, cols: usize, row: usize, col: usize) -> usize {
    if rows == 0 || cols == 0 {
        return 0;
    }
    (rows - 1) * row + (cols - 1) * col + 1
}

/// What becomes of the old values of a product's destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Into {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = (out +) factor · a · b` on the calling thread; rows of `out` lie `stride` apart.
///
/// # Panics
/// Where the sides do not fit together or a slice is too short.
pub fn product(out: &mut [f32], stride: usize, into: Into, a: View<'_>, b: View<'_>, factor: f32) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(b.rows == k && stride >= n, "sides of a product");
    assert!(out.len() >= last(m, n, stride, 1) && a.values.len() >= a.last() && b.values.len() >= b.last());
    if m == 0 || n == 0 {
        return;
    }
    let keep = into == Into::Add;
    #[expect(unsafe_code, reason = "gemm takes pointers and strides")]
    // SAFETY: every element that the sides and strides reach lies within its slice: asserted above. `out` is borrowed
    // mutably, so it overlaps with neither of the others, and rows of it do not overlap: `stride` is at least `n`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            keep,
            a.values.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.col as isize,
            b.row as isize,
            if keep { 1.0 } else { 0.0 },
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `out = x · wᵀ`; x `[m, k]`, w `[n, k]`, out `[m, n]`, row-major.
pub fn matmul_nt(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    let n = w.len() / k.max(1);
    if x.len() <= TASK_ROWS * k && n > TASK_COLS {
        return few_rows(x, w, k, out);
    }
    rows_times(x, View::rows(w, n, k, k).t(), out);
}

/// `out = a · b`; a `[m, k]`, b `[k, n]`, out `[m, n]`, row-major.
pub fn matmul_nn(a: &[f32], b: &[f32], k: usize, out: &mut [f32]) {
    let n = b.len() / k.max(1);
    rows_times(a, View::rows(b, k, n, n), out);
}

/// As [`matmul_nt`], cut along the rows of `w`: there are too few of `x` to keep all threads busy.
fn few_rows(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    let (m, n) = (x.len() / k, w.len() / k);
    let x = View::rows(x, m, k, k);
    let parts: Vec<Vec<f32>> = w
        .par_chunks(TASK_COLS * k)
        .map(|w| {
            let cols = w.len() / k;
            let mut part = vec![0.0; m * cols];
            product(
                &mut part,
                cols,
                Into::Replace,
                x,
                View::rows(w, cols, k, k).t(),
                1.0,
            );
            part
        })
        .collect();
    out.par_chunks_mut(n).enumerate().for_each(|(r, row)| {
        for (out, part) in row.chunks_mut(TASK_COLS).zip(&parts) {
            out.copy_from_slice(&part[r * out.len()..(r + 1) * out.len()]);
        }
    });
}

fn rows_times(a: &[f32], b: View<'_>, out: &mut [f32]) {
    let (k, n) = (b.rows, b.cols);
    if n == 0 || k == 0 {
        return;
    }
    out.par_chunks_mut(TASK_ROWS * n)
        .zip(a.par_chunks(TASK_ROWS * k))
        .for_each(|(out, a)| {
            let a = View::rows(a, a.len() / k, k, k);
            product(out, n, Into::Replace, a, b, 1.0);
        });
}

/// The lower triangle of a Gram matrix `XᵀX` of `[k, k]`, kept as tiles.
#[derive(Clone, Debug)]
pub struct Gram {
    k: usize,
    tiles: Vec<Tile>,
}

#[derive(Clone, Debug)]
struct Tile {
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
    /// Row-major.
    values: Vec<f32>,
}

impl Gram {
    /// All zeros.
    pub fn new(k: usize) -> Self {
        let mut tiles = Vec::new();
        for row in (0..k).step_by(TILE) {
            for col in (0..=row).step_by(TILE) {
                let (rows, cols) = (TILE.min(k - row), TILE.min(k - col));
                let values = vec![0.0; rows * cols];
                tiles.push(Tile {
                    row,
                    col,
                    rows,
                    cols,
                    values,
                });
            }
        }
        Self { k, tiles }
    }

    /// Bytes that [`Gram::new`] takes.
    pub fn bytes(k: usize) -> u64 {
        let sides = k.div_ceil(TILE) as u64;
        sides * (sides + 1) / 2 * (TILE.min(k) * TILE.min(k) * 4) as u64
    }

    /// Adds xᵀx; x is `[rows, k]`, row-major.
    pub fn add(&mut self, x: &[f32]) {
        let (k, m) = (self.k, x.len() / self.k.max(1));
        if m == 0 {
            return;
        }
        self.tiles.par_iter_mut().for_each(|tile| {
            let left = View::rows(&x[tile.row..], m, tile.rows, k).t();
            let right = View::rows(&x[tile.col..], m, tile.cols, k);
            product(&mut tile.values, tile.cols, Into::Add, left, right, 1.0);
        });
    }

    /// The whole symmetric matrix, row-major.
    pub fn into_full(self) -> Vec<f32> {
        let k = self.k;
        let mut full = vec![0.0; k * k];
        for tile in self.tiles {
            for c in 0..tile.cols {
                for r in 0..tile.rows {
                    let (i, j) = (tile.row + r, tile.col + c);
                    if i >= j {
                        let value = tile.values[r * tile.cols + c];
                        full[i * k + j] = value;
                        full[j * k + i] = value;
                    }
                }
            }
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 300.0)
            .collect()
    }

    #[test]
    fn products_agree_with_sums() {
        let (m, n, k) = (300, 37, 41);
        let (x, w) = (pattern(m * k), pattern(n * k));
        let mut out = vec![0.0; m * n];
        matmul_nt(&x, &w, k, &mut out);
        let mut transposed = vec![0.0; n * k];
        for i in 0..n {
            for j in 0..k {
                transposed[j * n + i] = w[i * k + j];
            }
        }
        let mut other = vec![0.0; m * n];
        matmul_nn(&x, &transposed, k, &mut other);
        for i in 0..m {
            for j in 0..n {
                let sum: f32 = (0..k).map(|t| x[i * k + t] * w[j * k + t]).sum();
                assert!((out[i * n + j] - sum).abs() < 1e-3);
                assert!((other[i * n + j] - sum).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn few_rows_times_many_are_cut_the_other_way() {
        let (m, n, k) = (3, 2 * TASK_COLS + 5, 7);
        let (x, w) = (pattern(m * k), pattern(n * k));
        let mut out = vec![0.0; m * n];
        matmul_nt(&x, &w, k, &mut out);
        for (i, j) in [(0, 0), (2, n - 1), (1, TASK_COLS), (2, TASK_COLS - 1)] {
            let sum: f32 = (0..k).map(|t| x[i * k + t] * w[j * k + t]).sum();
            assert!((out[i * n + j] - sum).abs() < 1e-4);
        }
    }

    #[test]
    fn a_gram_matrix_is_symmetric_and_adds_up() {
        let k = TILE + 17;
        let x = pattern(9 * k);
        let mut gram = Gram::new(k);
        gram.add(&x[..4 * k]);
        gram.add(&x[4 * k..]);
        assert!(Gram::bytes(k) >= gram.tiles.iter().map(|t| 4 * t.values.len() as u64).sum());
        let full = gram.into_full();
        for (i, j) in [(0, 0), (5, 130), (140, 3), (k - 1, k - 1), (140, 131)] {
            let sum: f32 = (0..9).map(|t| x[t * k + i] * x[t * k + j]).sum();
            assert!((full[i * k + j] - sum).abs() < 1e-3, "{i} {j}");
            assert_eq!(full[i * k + j], full[j * k + i]);
        }
    }
}
