//! Products and Gram matrices against plain sums.

use super::gram::{STRIP, WIDE};
use super::*;

fn pattern(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 300.0)
        .collect()
}

/// Values without a pattern, whose rounding errors do not add up.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut random = crate::kernels::random::Random::new(seed);
    (0..n)
        .map(|_| random.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

#[test]
fn products_agree_with_sums() {
    let (m, n, k) = (300, 37, 41);
    let (x, w) = (pattern(m * k), pattern(n * k));
    let mut out = vec![0.0; m * n];
    matmul_nt(&x, &w, k, &mut out, Precision::Full);
    let mut transposed = vec![0.0; n * k];
    for i in 0..n {
        for j in 0..k {
            transposed[j * n + i] = w[i * k + j];
        }
    }
    let mut other = vec![0.0; m * n];
    matmul_nn(&x, &transposed, k, &mut other, Precision::Full);
    let mut turned = vec![0.0; k * m];
    for i in 0..m {
        for j in 0..k {
            turned[j * m + i] = x[i * k + j];
        }
    }
    let mut third = vec![0.0; m * n];
    matmul_tn(&turned, &transposed, k, &mut third, Precision::Full);
    for i in 0..m {
        for j in 0..n {
            let sum: f32 = (0..k).map(|t| x[i * k + t] * w[j * k + t]).sum();
            assert!((out[i * n + j] - sum).abs() < 1e-3);
            assert!((other[i * n + j] - sum).abs() < 1e-3);
            assert!((third[i * n + j] - sum).abs() < 1e-3);
        }
    }
}

/// Largest error of `out`, and the root of its mean square, relative to the root of the sum of squared terms;
/// the terms of (i, j) are `a(i, t) · b(j, t)`.
fn errors(
    out: &[f32],
    (m, n, k): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> (f64, f64) {
    let (mut worst, mut sum) = (0f64, 0f64);
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let terms = || (0..k).map(|t| f64::from(a(i, t)) * f64::from(b(j, t)));
        let error =
            (f64::from(out[i * n + j]) - terms().sum::<f64>()) / terms().map(|t| t * t).sum::<f64>().sqrt();
        worst = worst.max(error.abs());
        sum += error * error;
    }
    (worst, (sum / (m * n) as f64).sqrt())
}

/// Sides on both sides of every multiple that matters: of lanes, tiles, blocks, tasks and depths.
#[test]
fn split_products_are_as_exact_as_promised() {
    for (m, n, k) in [(64, 64, 64), (65, 97, 79), (131, 70, 801), (300, 66, 65)] {
        let (x, w) = (noise(m * k, 1), noise(n * k, 2));
        let turned = |values: &[f32], cols: usize| -> Vec<f32> {
            let rows = values.len() / cols;
            (0..values.len())
                .map(|at| values[at % rows * cols + at / rows])
                .collect()
        };
        let (xt, wt) = (turned(&x, k), turned(&w, k));
        let mut nn = vec![f32::NAN; m * n];
        matmul_nn(&x, &wt, k, &mut nn, Precision::Split);
        let mut tn = vec![f32::NAN; m * n];
        matmul_tn(&xt, &wt, k, &mut tn, Precision::Split);
        for out in [product_nt(&x, &w, k, Precision::Split), nn, tn] {
            let (worst, rms) = errors(&out, (m, n, k), |i, t| x[i * k + t], |j, t| w[j * k + t]);
            assert!(worst < 5e-5 && rms < 6e-6, "{m} {n} {k}: {worst} {rms}");
        }
    }
}

/// The same sides; bf16 has 8 bits of mantissa.
#[test]
fn products_of_bf16_are_as_exact_as_promised() {
    for (m, n, k) in [(64, 64, 64), (65, 97, 79), (131, 70, 801), (300, 66, 65)] {
        let (x, w) = (noise(m * k, 1), noise(n * k, 2));
        let out = product_nt(&x, &w, k, Precision::Bf16);
        let (worst, rms) = errors(&out, (m, n, k), |i, t| x[i * k + t], |j, t| w[j * k + t]);
        assert!(worst < 2e-2 && rms < 3.5e-3, "{m} {n} {k}: {worst} {rms}");
        assert_eq!(rms > 1e-4, Precision::Bf16.products() == "bf16");
    }
}

#[test]
fn a_split_gram_matrix_is_as_exact_as_promised() {
    for k in [70, 200, WIDE + 5] {
        let rows = 150;
        let x = noise(rows * k, 3);
        let mut gram = Gram::new(k);
        gram.add(&x[..80 * k], Precision::Split);
        gram.add(&x[80 * k..], Precision::Split);
        let full = gram.into_full();
        assert!((0..k * k).all(|at| full[at] == full[at % k * k + at / k]));
        let sides = (k.min(100), k, rows);
        let (worst, rms) = errors(
            &full[..sides.0 * k],
            sides,
            |i, t| x[t * k + i],
            |j, t| x[t * k + j],
        );
        assert!(worst < 5e-5 && rms < 6e-6, "{k}: {worst} {rms}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_of_a_split_product() {
    let (m, n, k) = (700, 90, 130);
    let (x, w) = (pattern(m * k), pattern(n * k));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut gram = Gram::new(k);
            gram.add(&x, Precision::Split);
            let products = [Precision::Split, Precision::Bf16].map(|p| product_nt(&x, &w, k, p));
            (products, gram.into_full())
        })
    };
    assert!(run(1) == run(3));
}

#[test]
fn what_is_not_finite_stays_so_and_in_its_row() {
    let (m, n, k) = (100, 80, 70);
    let w = pattern(n * k);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = pattern(m * k);
        x[40 * k + 3] = bad;
        for precision in [Precision::Split, Precision::Bf16] {
            let out = product_nt(&x, &w, k, precision);
            for (row, values) in out.chunks(n).enumerate() {
                assert_eq!(values.iter().all(|v| v.is_finite()), row != 40, "row {row}");
            }
        }
    }
}

#[test]
fn a_product_is_cut_in_both_directions() {
    let (m, n, k) = (TASK_ROWS + 3, 2 * TASK_COLS + 5, 7);
    let (x, w) = (pattern(m * k), pattern(n * k));
    let mut out = vec![0.0; m * n];
    matmul_nt(&x, &w, k, &mut out, Precision::Full);
    for (i, j) in [
        (0, 0),
        (m - 1, n - 1),
        (TASK_ROWS, TASK_COLS),
        (TASK_ROWS - 1, TASK_COLS - 1),
    ] {
        let sum: f32 = (0..k).map(|t| x[i * k + t] * w[j * k + t]).sum();
        assert!((out[i * n + j] - sum).abs() < 1e-4);
    }
}

#[test]
fn a_gram_matrix_is_symmetric_and_adds_up() {
    let k = 2 * STRIP + 17;
    let x = pattern(9 * k);
    let mut gram = Gram::new(k);
    gram.add(&x[..4 * k], Precision::Full);
    gram.add(&x[4 * k..], Precision::Full);
    assert_eq!(
        Gram::bytes(k),
        gram.strips.iter().map(|s| 4 * s.values.len() as u64).sum::<u64>()
    );
    let full = gram.into_full();
    for (i, j) in [(0, 0), (5, 130), (140, 3), (k - 1, k - 1), (140, 131)] {
        let sum: f32 = (0..9).map(|t| x[t * k + i] * x[t * k + j]).sum();
        assert!((full[i * k + j] - sum).abs() < 1e-3, "{i} {j}");
        assert_eq!(full[i * k + j], full[j * k + i]);
    }
}
