//! The triangular factor that error compensation needs.
//!
//! Owns: blocked Cholesky and triangular inversion in f64. Must not know: what the matrix stands for.
//! Invariant: pieces are cut by the size alone, so the bits do not depend on the number of threads.
//!
//! For a symmetric positive definite H, the upper triangular U with `UᵀU` = H⁻¹ is found without inverting H: reversing
//! rows and columns of H turns its Cholesky factor into R with `RRᵀ` = H, R upper triangular, and U = R⁻¹.

use gemm::Parallelism;
use rayon::prelude::*;

/// Side of a block.
const BLOCK: usize = 64;

/// U with `UᵀU` = H⁻¹, `[n, n]`, row-major; `None` where H is not positive definite. `reversed` holds the lower triangle
/// of H with rows and columns in reverse order, and zeros above it. `stop` is asked between blocks; `None` too once it
/// says so.
pub(super) fn inverse_factor(
    mut reversed: Vec<f64>,
    n: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<f64>> {
    lower_factor(&mut reversed, n, stop)?;
    invert(&mut reversed, n, stop)?;
    // The inverse has zeros above its diagonal; turned around they are below it.
    reversed.reverse();
    Some(reversed)
}

/// Lower Cholesky factor in place of the lower triangle of `[n, n]`, row-major; what lies above it is not read and holds
/// nothing of use afterwards. `None` where the matrix is not positive definite, and once `stop` says so.
pub(super) fn lower_factor(a: &mut [f64], n: usize, stop: &(dyn Fn() -> bool + Sync)) -> Option<()> {
    for k in (0..n).step_by(BLOCK) {
        if stop() {
            return None;
        }
        let end = (k + BLOCK).min(n);
        let (top, below) = a.split_at_mut(end * n);
        for i in k..end {
            for j in k..=i {
                let dot: f64 = (k..j).map(|t| top[i * n + t] * top[j * n + t]).sum();
                let value = top[i * n + j] - dot;
                if i == j {
                    // Not above: a NaN is refused too.
                    if !(value > 0.0 && value.is_finite()) {
                        return None;
                    }
                    top[i * n + i] = value.sqrt();
                } else {
                    top[i * n + j] = value / top[j * n + j];
                }
            }
        }
        // The panel below is L₂₁ = A₂₁ · L₁₁⁻ᵀ: a product, where solving column by column would be a chain of sums.
        let width = end - k;
        let panel = times_small(below, (n, k), &small_inverse(top, n, k, end), (1, width));
        for (to, from) in below.chunks_mut(n).zip(panel.chunks(width)) {
            to[k..end].copy_from_slice(from);
        }
        // What is below and to the right loses the product of the panel with itself.
        below.par_chunks_mut(BLOCK * n).enumerate().for_each(|(b, rows)| {
            let (first, count) = (b * BLOCK, rows.len() / n);
            let cols = (first + count).min(n - end);
            let left = &panel[first * width..];
            subtract(
                &mut rows[end..],
                n,
                count,
                cols,
                left,
                (width, 1),
                &panel,
                (1, width),
                width,
            );
        });
    }
    Some(())
}

/// Inverse of a lower triangular matrix in place, block column by block column from the last.
fn invert(l: &mut [f64], n: usize, stop: &(dyn Fn() -> bool + Sync)) -> Option<()> {
    let blocks: Vec<usize> = (0..n).step_by(BLOCK).collect();
    for k in blocks.into_iter().rev() {
        if stop() {
            return None;
        }
        let end = (k + BLOCK).min(n);
        let width = end - k;
        let small = small_inverse(l, n, k, end);
        // Below the block: X = −M · L₂₁ · L₁₁⁻¹, M the inverse found already.
        let rest = n - end;
        let below = &l[end * n..];
        let scaled = times_small(below, (n, k), &small, (width, 1));
        let mut product = vec![0.0; rest * width];
        product
            .par_chunks_mut(BLOCK * width)
            .enumerate()
            .for_each(|(b, out)| {
                let (first, count) = (b * BLOCK, out.len() / width);
                let inner = first + count;
                subtract(
                    out,
                    width,
                    count,
                    width,
                    &below[first * n + end..],
                    (n, 1),
                    &scaled,
                    (width, 1),
                    inner,
                );
            });
        for i in 0..width {
            l[(k + i) * n + k..(k + i) * n + end].copy_from_slice(&small[i * width..(i + 1) * width]);
        }
        for (i, row) in product.chunks(width).enumerate() {
            l[(end + i) * n + k..(end + i) * n + end].copy_from_slice(row);
        }
    }
    Some(())
}

/// Columns from `k` on of rows of `n` values, times a small square matrix: as it lies with distances (width, 1) of its rows
/// and columns, transposed with (1, width).
fn times_small(rows: &[f64], (n, k): (usize, usize), small: &[f64], distances: (usize, usize)) -> Vec<f64> {
    let width = distances.0.max(distances.1);
    let negated: Vec<f64> = small.iter().map(|v| -v).collect();
    let mut out = vec![0.0; rows.len() / n * width];
    let tasks = out.par_chunks_mut(BLOCK * width).zip(rows.par_chunks(BLOCK * n));
    tasks.for_each(|(out, rows)| {
        subtract(
            out,
            width,
            rows.len() / n,
            width,
            &rows[k..],
            (n, 1),
            &negated,
            distances,
            width,
        );
    });
    out
}

/// Inverse of the triangular block on the diagonal; zeros above its diagonal.
fn small_inverse(l: &[f64], n: usize, k: usize, end: usize) -> Vec<f64> {
    let width = end - k;
    let mut out = vec![0.0; width * width];
    for j in 0..width {
        out[j * width + j] = 1.0 / l[(k + j) * n + k + j];
        for i in j + 1..width {
            let dot: f64 = (j..i).map(|t| l[(k + i) * n + k + t] * out[t * width + j]).sum();
            out[i * width + j] = -dot / l[(k + i) * n + k + i];
        }
    }
    out
}

/// `out −= a · b` on the calling thread; out `[m, n]` with rows `stride` apart, a `[m, inner]`, b `[inner, n]`, each with
/// its distances of rows and columns.
#[expect(clippy::too_many_arguments, reason = "a matrix product has this many sides")]
fn subtract(
    out: &mut [f64],
    stride: usize,
    m: usize,
    n: usize,
    a: &[f64],
    (a_row, a_col): (usize, usize),
    b: &[f64],
    (b_row, b_col): (usize, usize),
    inner: usize,
) {
    if m == 0 || n == 0 || inner == 0 {
        return;
    }
    let last = |rows: usize, cols: usize, row: usize, col: usize| (rows - 1) * row + (cols - 1) * col;
    assert!(
        stride >= n && out.len() > last(m, n, stride, 1),
        "destination of a product"
    );
    assert!(
        a.len() > last(m, inner, a_row, a_col) && b.len() > last(inner, n, b_row, b_col),
        "its factors"
    );
    #[expect(unsafe_code, reason = "gemm takes pointers and strides")]
    // SAFETY: sides and strides stay within the slices: asserted above; `out` is borrowed mutably and overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            inner,
            out.as_mut_ptr(),
            1,
            stride as isize,
            true,
            a.as_ptr(),
            a_col as isize,
            a_row as isize,
            b.as_ptr(),
            b_col as isize,
            b_row as isize,
            1.0,
            -1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> bool {
        false
    }

    /// A Gram matrix of more rows than columns.
    fn positive(n: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..2 * n * n)
            .map(|i| ((i * 7919 % 2003) as f64 - 1000.0) / 500.0)
            .collect();
        let mut h = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                h[i * n + j] = (0..2 * n).map(|t| x[t * n + i] * x[t * n + j]).sum::<f64>() / n as f64;
            }
            h[i * n + i] += 0.1;
        }
        h
    }

    /// What the factor is asked of: the lower triangle, last row and column first.
    fn reversed(h: &[f64], n: usize) -> Vec<f64> {
        let cell = |i: usize, j: usize| {
            if j <= i {
                h[(n - 1 - i) * n + n - 1 - j]
            } else {
                0.0
            }
        };
        (0..n * n).map(|at| cell(at / n, at % n)).collect()
    }

    #[test]
    fn the_factor_inverts_the_matrix() {
        for n in [1, 5, 64, 65, 150] {
            let h = positive(n);
            let u = inverse_factor(reversed(&h, n), n, &never).unwrap();
            for i in 0..n {
                assert!(u[i * n..i * n + i].iter().all(|v| *v == 0.0));
                for j in 0..n {
                    // H · UᵀU = 1.
                    let cell: f64 = (0..n)
                        .map(|t| {
                            h[i * n + t] * (0..=t.min(j)).map(|s| u[s * n + t] * u[s * n + j]).sum::<f64>()
                        })
                        .sum();
                    let wanted = if i == j { 1.0 } else { 0.0 };
                    assert!((cell - wanted).abs() < 1e-8, "n {n}: {i} {j} {cell}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_none() {
        assert!(inverse_factor(vec![1.0, 0.0, 2.0, 1.0], 2, &never).is_none());
        assert!(inverse_factor(vec![f64::NAN], 1, &never).is_none());
        assert!(inverse_factor(reversed(&positive(100), 100), 100, &|| true).is_none());
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let h = positive(200);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| inverse_factor(reversed(&h, 200), 200, &never))
                .unwrap()
        };
        assert_eq!(run(1), run(3));
    }
}
