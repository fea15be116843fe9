//! Matrix products and factorizations in f32, by faer.
//!
//! Owns: how products are cut into tasks. Must not know: what the matrices mean.
//! Invariant: tasks are cut by the shapes alone and each runs on one thread, so the bits do not depend on the number
//! of threads. They may differ between CPUs with different vector units.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular_matmul};
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Rows of the left matrix that one task multiplies.
const TASK_ROWS: usize = 256;
/// Side of the tiles of a Gram matrix.
const TILE: usize = 384;

/// `out = x · wᵀ`; x `[m, k]`, w `[n, k]`, out `[m, n]`, row-major.
pub fn matmul_nt(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    let n = w.len() / k.max(1);
    if n == 0 || k == 0 {
        return;
    }
    let w = MatRef::from_row_major_slice(w, n, k);
    out.par_chunks_mut(TASK_ROWS * n)
        .zip(x.par_chunks(TASK_ROWS * k))
        .for_each(|(out, x)| {
            let m = x.len() / k;
            let out = MatMut::from_row_major_slice_mut(out, m, n);
            let x = MatRef::from_row_major_slice(x, m, k);
            matmul(out, Accum::Replace, x, w.transpose(), 1.0, Par::Seq);
        });
}

/// `out = a · b`; a `[m, k]`, b `[k, n]`, out `[m, n]`, row-major.
pub fn matmul_nn(a: &[f32], b: &[f32], k: usize, out: &mut [f32]) {
    let n = b.len() / k.max(1);
    if n == 0 || k == 0 {
        return;
    }
    let b = MatRef::from_row_major_slice(b, k, n);
    out.par_chunks_mut(TASK_ROWS * n)
        .zip(a.par_chunks(TASK_ROWS * k))
        .for_each(|(out, a)| {
            let m = a.len() / k;
            let out = MatMut::from_row_major_slice_mut(out, m, n);
            let a = MatRef::from_row_major_slice(a, m, k);
            matmul(out, Accum::Replace, a, b, 1.0, Par::Seq);
        });
}

/// The lower triangle of a Gram matrix XᵀX of `[k, k]`, kept as tiles.
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
    /// Column-major, so that each tile is what faer likes to write.
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
        // Full tiles first: the halves on the diagonal fill the gaps at the end.
        tiles.sort_by_key(|t| (t.row == t.col, t.row, t.col));
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
        let x = MatRef::from_row_major_slice(x, m, k);
        self.tiles.par_iter_mut().for_each(|tile| {
            let (rows, cols) = (tile.rows, tile.cols);
            let out = MatMut::from_column_major_slice_mut(&mut tile.values, rows, cols);
            let left = x.subcols(tile.row, rows).transpose();
            let right = x.subcols(tile.col, cols);
            if tile.row == tile.col {
                let (half, whole) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
                triangular_matmul(out, half, Accum::Add, left, whole, right, whole, 1.0, Par::Seq);
            } else {
                matmul(out, Accum::Add, left, right, 1.0, Par::Seq);
            }
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
                        let value = tile.values[c * tile.rows + r];
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
        (0..n).map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 300.0).collect()
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
    fn a_gram_matrix_is_symmetric_and_adds_up() {
        let k = TILE + 17;
        let x = pattern(9 * k);
        let mut gram = Gram::new(k);
        gram.add(&x[..4 * k]);
        gram.add(&x[4 * k..]);
        assert!(Gram::bytes(k) >= gram.tiles.iter().map(|t| 4 * t.values.len() as u64).sum());
        let full = gram.into_full();
        for (i, j) in [(0, 0), (5, 390), (400, 3), (k - 1, k - 1), (390, 388)] {
            let sum: f32 = (0..9).map(|t| x[t * k + i] * x[t * k + j]).sum();
            assert!((full[i * k + j] - sum).abs() < 1e-3, "{i} {j}");
            assert_eq!(full[i * k + j], full[j * k + i]);
        }
    }
}
