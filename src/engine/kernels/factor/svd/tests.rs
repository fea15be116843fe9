//! Decompositions against plain references.

use super::*;
use crate::kernels::factor::rank_for_ratio;
use crate::kernels::factor::samples::{distance, in_pools, multiply, never, noise, squared as norm};
use proptest::prelude::*;

const METHODS: [Method; 3] = [Method::Direct, Method::Gram, Method::Randomized];

fn by(method: Method) -> Options {
    Options {
        method,
        ..Options::default()
    }
}

fn at_rank(w: &[f32], rows: usize, cols: usize, rank: usize, method: Method) -> Factors {
    factorize(w, rows, cols, Truncation::Rank(rank), &by(method), &never).unwrap()
}

/// Singular values by one-sided Jacobi rotations of the rows, in f64.
fn reference_values(w: &[f32], rows: usize, cols: usize) -> Vec<f64> {
    let mut a: Vec<Vec<f64>> = w
        .chunks(cols)
        .map(|row| row.iter().map(|v| f64::from(*v)).collect())
        .collect();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    for _ in 0..60 {
        for p in 0..rows {
            for q in p + 1..rows {
                let (pp, qq, pq) = (dot(&a[p], &a[p]), dot(&a[q], &a[q]), dot(&a[p], &a[q]));
                if pq.abs() <= 1e-15 * (pp * qq).sqrt() {
                    continue;
                }
                let zeta = (qq - pp) / (2.0 * pq);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let c = 1.0 / (1.0 + t * t).sqrt();
                let (above, below) = a.split_at_mut(q);
                for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
                    (*x, *y) = (c * (*x - t * *y), c * (t * *x + *y));
                }
            }
        }
    }
    let mut values: Vec<f64> = a.iter().map(|row| dot(row, row).sqrt()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values.truncate(rows.min(cols));
    values
}

#[test]
fn the_error_is_the_energy_of_the_tail() {
    for (rows, cols) in [(20, 33), (33, 20), (16, 16)] {
        let w = noise(rows * cols, 3);
        let values = reference_values(&w, rows, cols);
        for method in METHODS {
            for rank in [1, 5, 15] {
                let found = at_rank(&w, rows, cols, rank, method);
                let tail: f64 = values[rank..].iter().map(|v| v * v).sum();
                let error = distance(&w, &found.multiply_out());
                let slack = if method == Method::Randomized { 0.02 } else { 1e-5 };
                assert!(
                    (error - tail).abs() < slack * tail,
                    "{method:?} {rank}: {error} {tail}"
                );
                if method == Method::Randomized {
                    continue;
                }
                assert!((found.loss - tail).abs() < 1e-9 * tail, "{method:?} {rank}");
                for (a, b) in found.values.iter().zip(&values) {
                    assert!((a - b).abs() < 1e-9 * values[0], "{method:?}: {a} {b}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Eckart and Young: neither random factors, nor random ones refit by least squares, come nearer.
    #[test]
    fn no_other_product_of_the_same_rank_is_nearer(
        (rows, cols, rank) in (2_usize..20, 2_usize..20, 1_usize..6),
        seed in any::<u64>(),
    ) {
        let w = noise(rows * cols, seed);
        let found = at_rank(&w, rows, cols, rank, Method::Auto);
        let best = distance(&w, &found.multiply_out());
        let left = noise(rows * found.rank, seed ^ 1);
        let basis = crate::kernels::factor::dense::orthonormal(
            transposed(&left, rows, found.rank).transpose().to_owned().as_ref(),
        );
        let whole = transposed(&w, rows, cols);
        let kept = squared(product(whole.as_ref(), basis.as_ref()).as_ref());
        prop_assert!(best <= (norm(&w) - kept) * (1.0 + 1e-5) + 1e-9 * norm(&w));
        let random = multiply(&left, &noise(found.rank * cols, seed ^ 2), found.rank);
        prop_assert!(best <= distance(&w, &random));
    }

    #[test]
    fn losses_fall_and_bend_upwards(
        (rows, cols) in (1_usize..24, 1_usize..24),
        seed in any::<u64>(),
    ) {
        let w = noise(rows * cols, seed);
        let found = decompose(&w, rows, cols, &Options::default(), &never).unwrap();
        let losses = found.losses();
        prop_assert_eq!(losses.len(), rows.min(cols) + 1);
        prop_assert!((losses[0] - norm(&w)).abs() <= 1e-9 * norm(&w));
        for three in losses.windows(3) {
            prop_assert!(three[0] >= three[1] && three[0] - three[1] >= (three[1] - three[2]) * (1.0 - 1e-9));
        }
        for rank in 1..losses.len() {
            let cut = found.truncate(Truncation::Rank(rank)).unwrap();
            let error = distance(&w, &cut.multiply_out());
            prop_assert!((error - losses[rank]).abs() <= 1e-5 * losses[0], "rank {}", rank);
        }
    }
}

/// Theorem 10.5 of Halko et al. for what no iteration is done for; with iterations, two percent.
#[test]
fn subspace_iteration_is_within_its_bound_and_within_two_percent() {
    let (rows, cols) = (90, 150);
    for (seed, decay) in [(1, 0.0), (2, 0.5), (3, 1.0)] {
        let mut w = noise(rows * cols, seed);
        for (at, v) in w.iter_mut().enumerate() {
            *v *= (1.0 + (at % cols) as f32).powf(-decay);
        }
        for rank in [4, 20] {
            let best = at_rank(&w, rows, cols, rank, Method::Direct).loss;
            let found = at_rank(&w, rows, cols, rank, Method::Randomized);
            let bound = 1.0 + rank as f64 / (OVERSAMPLE as f64 - 1.0);
            assert!(
                found.loss <= bound * best,
                "decay {decay}, rank {rank}: {} {best}",
                found.loss
            );
            assert!(
                found.loss <= 1.02 * best,
                "decay {decay}, rank {rank}: {} {best}",
                found.loss
            );
            assert!(found.loss >= best * (1.0 - 1e-9));
            let error = distance(&w, &found.multiply_out());
            assert!((error - found.loss).abs() < 1e-5 * error);
        }
    }
}

#[test]
fn a_product_of_low_rank_is_found_again() {
    let (rows, cols, rank) = (60, 80, 3);
    let w = multiply(&noise(rows * rank, 1), &noise(rank * cols, 2), rank);
    for method in METHODS {
        // Three are enough and more do no harm.
        for asked in [3, 9] {
            let found = at_rank(&w, rows, cols, asked, method);
            let error = distance(&w, &found.multiply_out());
            assert!(error < 1e-11 * norm(&w), "{method:?} {asked}: {error}");
        }
        let found = factorize(
            &w,
            rows,
            cols,
            Truncation::Energy(1.0 - 1e-9),
            &by(method),
            &never,
        )
        .unwrap();
        assert_eq!(found.rank, rank, "{method:?}");
    }
}

#[test]
fn truncations_say_ranks() {
    let (rows, cols) = (64, 96);
    let w = noise(rows * cols, 7);
    let found = decompose(&w, rows, cols, &Options::default(), &never).unwrap();
    let rank = |truncation| found.truncate(truncation).unwrap().rank;
    assert_eq!(rank(Truncation::Rank(1000)), rows);
    assert_eq!(rank(Truncation::Ratio(0.5)), 19);
    assert_eq!(rank(Truncation::Ratio(1e-9)), 1);
    assert_eq!(rank_for_ratio(576, 1536, 0.25), 104);
    let losses = found.losses();
    let half = rank(Truncation::Energy(0.5));
    assert!(losses[half] <= 0.5 * losses[0] && losses[half - 1] > 0.5 * losses[0]);
    assert_eq!(rank(Truncation::Energy(1.0)), rows);
    let ratio = found.truncate(Truncation::Ratio(0.5)).unwrap();
    assert!(ratio.parameters() * 2 <= w.len());
    for (truncation, code) in [
        (Truncation::Rank(0), "bad_rank"),
        (Truncation::Energy(0.0), "bad_energy"),
        (Truncation::Energy(f64::NAN), "bad_energy"),
        (Truncation::Ratio(-1.0), "bad_ratio"),
        (Truncation::Ratio(f64::INFINITY), "bad_ratio"),
    ] {
        assert_eq!(found.truncate(truncation).unwrap_err().code, code);
    }
}

#[test]
fn both_factors_carry_the_root_of_each_value() {
    let (rows, cols, rank) = (70, 50, 8);
    let found = at_rank(&noise(rows * cols, 4), rows, cols, rank, Method::Gram);
    for (j, value) in found.values.iter().enumerate() {
        let left: Vec<f32> = (0..rows).map(|i| found.left[i * rank + j]).collect();
        for square in [norm(&left), norm(&found.right[j * cols..(j + 1) * cols])] {
            assert!(
                (square - value).abs() < 1e-5 * value,
                "direction {j}: {square} {value}"
            );
        }
    }
}

#[test]
fn degenerate_matrices_have_factors_too() {
    for method in METHODS {
        let zero = at_rank(&[0.0; 60], 6, 10, 2, method);
        assert!(zero.left.iter().chain(&zero.right).all(|v| *v == 0.0));
        assert_eq!((zero.loss, zero.relative_error), (0.0, 0.0));
        for (rows, cols) in [(1, 9), (9, 1), (1, 1)] {
            let w = noise(rows * cols, 2);
            let found = at_rank(&w, rows, cols, 5, method);
            assert_eq!(found.rank, 1);
            assert!(
                distance(&w, &found.multiply_out()) < 1e-12 * norm(&w),
                "{method:?}"
            );
        }
        // The largest and the smallest numbers of f32.
        for scale in [3e38, 1e-38] {
            let w: Vec<f32> = (0..12).map(|i| scale * (((i % 5) as f32 - 2.0) / 4.0)).collect();
            let found = at_rank(&w, 3, 4, 3, method);
            let error = distance(&w, &found.multiply_out());
            assert!(error < 1e-10 * norm(&w), "{method:?} {scale}: {error}");
        }
    }
}

#[test]
fn what_is_no_matrix_is_refused() {
    let run = |w: &[f32], rows, cols| {
        decompose(w, rows, cols, &Options::default(), &never)
            .unwrap_err()
            .code
    };
    assert_eq!(run(&[1.0, f32::NAN], 1, 2), "non_finite_values");
    assert_eq!(run(&[], 0, 2), "empty_matrix");
    assert_eq!(run(&[1.0], 1, 2), "internal");
    let stopped = decompose(&[1.0, 2.0], 1, 2, &Options::default(), &|| true).unwrap_err();
    assert_eq!(stopped.code, "cancelled");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (rows, cols) = (300, 520);
    let w = noise(rows * cols, 11);
    for method in METHODS {
        let found = in_pools(|| at_rank(&w, rows, cols, 40, method));
        assert!(found.windows(2).all(|two| two[0] == two[1]), "{method:?}");
    }
}

#[test]
fn the_way_follows_the_sides_and_the_rank() {
    let chosen = |short, most| {
        Options {
            most,
            ..Options::default()
        }
        .chosen(short)
    };
    assert_eq!(chosen(DIRECT_SIDE, None), Method::Direct);
    assert_eq!(chosen(576, Some(10)), Method::Gram);
    assert_eq!(chosen(2048, Some(64)), Method::Randomized);
    assert_eq!(chosen(2048, Some(1000)), Method::Gram);
    assert_eq!(chosen(2048, None), Method::Gram);
}
