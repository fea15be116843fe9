//! Hadamard matrices: entries ±1, rows orthogonal to each other.
//!
//! Owns: which sizes there are, a row times such a matrix. Must not know: what the rows are.
//! Invariant: `H · Hᵀ = n · I`, exactly; a row's result depends on that row only.
//!
//! A size `m · 2^k` is a Kronecker product: a base of order `m` by Paley's constructions from the squares of a prime
//! field, times Sylvester's matrix, which costs `k` additions an element.

use super::wide;

/// Largest base. An element costs as many additions as its base has rows, and the base's square is in memory.
const MOST_ORDER: usize = 1024;

/// A Hadamard matrix of some size.
#[derive(Clone, Debug)]
pub struct Hadamard {
    /// Entries of the base, row by row: ±1.
    base: Vec<f32>,
    /// Order of the base.
    order: usize,
    /// Order of Sylvester's part: a power of two.
    doubled: usize,
}

impl Hadamard {
    /// The matrix of that size, from the smallest base that there is; none where no construction here gives one.
    pub fn of(size: usize) -> Option<Self> {
        let twos = if size == 0 {
            return None;
        } else {
            size.trailing_zeros()
        };
        (0..=twos).rev().find_map(|k| {
            let order = size >> k;
            Some(Self {
                base: base(order)?,
                order,
                doubled: 1 << k,
            })
        })
    }

    /// The largest block of that size's rows for which there is a matrix: all of it, or the largest power of two that
    /// divides it.
    pub fn block(size: usize) -> usize {
        if Self::of(size).is_some() {
            size
        } else {
            1usize.checked_shl(size.trailing_zeros()).unwrap_or(1)
        }
    }

    /// Its size.
    pub fn size(&self) -> usize {
        self.order * self.doubled
    }

    /// `values · H / √n` for each run of `n` values; `spare` is room that it may use.
    pub fn multiply(&self, values: &mut [f32], spare: &mut Vec<f32>) {
        let scale = (1.0 / (self.size() as f64).sqrt()) as f32;
        for row in values.chunks_exact_mut(self.size()) {
            for run in row.chunks_exact_mut(self.doubled) {
                sylvester(run);
            }
            if self.order > 1 {
                spare.clear();
                spare.extend_from_slice(row);
                combine(&self.base, self.order, spare, row);
            }
            for v in row {
                *v *= scale;
            }
        }
    }
}

wide! {
    /// A row times Sylvester's matrix, in place: butterflies of twice the width each time.
    fn sylvester(row: &mut [f32]) {
        let mut half = 1;
        while half < row.len() {
            for pair in row.chunks_exact_mut(2 * half) {
                let (a, b) = pair.split_at_mut(half);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
    }
}

wide! {
    /// Runs of a row times the base: run `j` becomes the sum of all runs, each with its sign in column `j`.
    fn combine(base: &[f32], order: usize, row: &[f32], out: &mut [f32]) {
        let run = row.len() / order;
        for (column, out) in out.chunks_exact_mut(run).enumerate() {
            out.fill(0.0);
            for (values, signs) in row.chunks_exact(run).zip(base.chunks_exact(order)) {
                let sign = signs[column];
                for (out, value) in out.iter_mut().zip(values) {
                    *out += sign * value;
                }
            }
        }
    }
}

/// A base of that order: the trivial one, or one of Paley's two.
fn base(order: usize) -> Option<Vec<f32>> {
    if order == 1 {
        return Some(vec![1.0]);
    }
    if !order.is_multiple_of(4) || order > MOST_ORDER {
        return None;
    }
    paley_one(order - 1).or_else(|| paley_two(order / 2 - 1))
}

/// Order `q + 1` for a prime `q ≡ 3 mod 4`: the identity plus a skew conference matrix.
fn paley_one(q: usize) -> Option<Vec<f32>> {
    let mut entries = conference(q).filter(|_| q % 4 == 3)?;
    for (at, entry) in entries.iter_mut().enumerate() {
        // The first column's signs make it skew.
        if at > 0 && at % (q + 1) == 0 {
            *entry = -1.0;
        }
        if at % (q + 2) == 0 {
            *entry = 1.0;
        }
    }
    Some(entries)
}

/// Order `2(q + 1)` for a prime `q ≡ 1 mod 4`: each entry of a symmetric conference matrix becomes a square of four.
fn paley_two(q: usize) -> Option<Vec<f32>> {
    let entries = conference(q).filter(|_| q % 4 == 1)?;
    let side = 2 * (q + 1);
    let entry = |at: usize| {
        let (row, col) = (at / side, at % side);
        let value = entries[row / 2 * (q + 1) + col / 2];
        match (value == 0.0, row % 2, col % 2) {
            (true, 0, 0) => 1.0,
            (true, _, _) => -1.0,
            (false, 1, 1) => -value,
            (false, _, _) => value,
        }
    };
    Some((0..side * side).map(entry).collect())
}

/// The matrix of order `q + 1` whose first row and column are ones and whose other entries say whether the
/// difference of row and column is a square modulo the prime `q`; zeros on the diagonal.
fn conference(q: usize) -> Option<Vec<f32>> {
    if !is_prime(q) {
        return None;
    }
    let mut character = vec![-1.0; q];
    for i in 1..q {
        character[i * i % q] = 1.0;
    }
    character[0] = 0.0;
    let side = q + 1;
    let entry = |at: usize| match (at / side, at % side) {
        (0, 0) => 0.0,
        (0, _) | (_, 0) => 1.0,
        (row, col) => character[(q + row - col) % q],
    };
    Some((0..side * side).map(entry).collect())
}

fn is_prime(q: usize) -> bool {
    q > 1 && (2..=q.isqrt()).all(|d| !q.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Random;

    fn sizes() -> impl Iterator<Item = usize> {
        (1..=1024).chain((1088..=4096).step_by(64))
    }

    /// Entry of the matrix as a whole.
    fn entry(matrix: &Hadamard, row: usize, col: usize) -> i64 {
        let run = matrix.doubled;
        let base = matrix.base[row / run * matrix.order + col / run];
        let ones = ((row % run) & (col % run)).count_ones();
        if ones.is_multiple_of(2) {
            base as i64
        } else {
            -(base as i64)
        }
    }

    /// All pairs of rows of a base; of a large one each row with a few others.
    #[test]
    fn rows_are_orthogonal_in_integers() {
        for order in 1..=MOST_ORDER {
            let Some(base) = base(order) else { continue };
            assert!(base.iter().all(|v| v.abs() == 1.0), "{order}");
            let rows: Vec<&[f32]> = base.chunks_exact(order).collect();
            let mut random = Random::new(order as u64);
            for (a, row) in rows.iter().enumerate() {
                let others = if order <= 128 { order } else { 2 };
                for i in 0..others {
                    let b = if order <= 128 {
                        i
                    } else {
                        random.below(order as u64) as usize
                    };
                    let dot: i64 = row.iter().zip(rows[b]).map(|(x, y)| (x * y) as i64).sum();
                    assert_eq!(dot, if a == b { order as i64 } else { 0 }, "{order}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn the_sizes_of_models_are_there() {
        for size in [
            64, 80, 96, 128, 576, 768, 896, 960, 1024, 1536, 2048, 2304, 2560, 3072, 3584, 4096, 5120, 6656,
            8192, 12_288, 14_336,
        ] {
            assert_eq!(Hadamard::block(size), size);
        }
        assert_eq!(Hadamard::of(576).map(|m| (m.order, m.doubled)), Some((36, 16)));
        // No construction here for 4 · 23, 8 · 23; nothing at all for what is not a multiple of four.
        assert_eq!(
            (Hadamard::block(92), Hadamard::block(6), Hadamard::block(7)),
            (4, 2, 1)
        );
        assert!(Hadamard::of(0).is_none());
    }

    #[test]
    fn a_product_is_that_with_the_entries() {
        for size in [1, 2, 8, 12, 20, 36, 56, 72, 576] {
            let matrix = Hadamard::of(size).unwrap();
            let mut random = Random::new(size as u64);
            let row: Vec<f32> = (0..size).map(|_| random.below(17) as f32 - 8.0).collect();
            let mut out = row.clone();
            matrix.multiply(&mut out, &mut Vec::new());
            for (col, out) in out.iter().enumerate() {
                let sum: i64 = (0..size).map(|r| row[r] as i64 * entry(&matrix, r, col)).sum();
                let right = sum as f64 / (size as f64).sqrt();
                assert!((f64::from(*out) - right).abs() < 1e-4, "{size}: {out} {right}");
            }
        }
    }

    /// Lengths stay, for every size that there is; with the transpose, the row comes back.
    #[test]
    fn every_size_turns_and_turns_back() {
        for size in sizes() {
            let Some(matrix) = Hadamard::of(size) else {
                continue;
            };
            let mut random = Random::new(size as u64);
            let row: Vec<f32> = (0..size)
                .map(|_| random.below(2001) as f32 / 1000.0 - 1.0)
                .collect();
            let mut out = row.clone();
            matrix.multiply(&mut out, &mut Vec::new());
            let length = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            assert!((length(&out) / length(&row) - 1.0).abs() < 1e-5, "{size}");
            let side = matrix.order;
            let turned = (0..side * side).map(|at| matrix.base[at % side * side + at / side]);
            let back = Hadamard {
                base: turned.collect(),
                ..matrix
            };
            back.multiply(&mut out, &mut Vec::new());
            assert!(out.iter().zip(&row).all(|(a, b)| (a - b).abs() < 1e-5), "{size}");
        }
    }

    #[test]
    fn an_outlier_is_spread() {
        let matrix = Hadamard::of(576).unwrap();
        let mut row = vec![0.0; 576];
        row[5] = 24.0;
        matrix.multiply(&mut row, &mut Vec::new());
        assert!(row.iter().all(|v| (v.abs() - 1.0).abs() < 1e-5));
    }
}
