//! What [`fit`] promises, against simple references.

use super::*;
use crate::kernels::random::Random;
use proptest::prelude::*;

fn spec(centroids: usize) -> Spec {
    Spec {
        centroids,
        seed: 7,
        keep_zero: false,
        dtype: DType::F32,
    }
}

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut sum = || (0..12).map(|_| random.share()).sum::<f64>() - 6.0;
    (0..n).map(|_| sum() as f32 * 0.05).collect()
}

fn distinct(values: &[f32]) -> Distinct {
    Distinct::of(values, None).unwrap()
}

/// Σ w (v − mean)² of a run, or about zero.
fn cost(run: &[(f64, f64)], about_zero: bool) -> f64 {
    let weight: f64 = run.iter().map(|r| r.1).sum();
    let mean = if about_zero {
        0.0
    } else {
        run.iter().map(|r| r.0 * r.1).sum::<f64>() / weight
    };
    run.iter().map(|(v, w)| w * (v - mean).powi(2)).sum()
}

/// Least cost of at most `k` runs, one of them about zero where `zero` says so, by trying all of them.
fn brute_force(values: &[(f64, f64)], k: usize, zero: bool) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let mut best = f64::INFINITY;
    for end in 1..=values.len() {
        let (run, rest) = values.split_at(end);
        if k > usize::from(zero) {
            best = best.min(cost(run, false) + brute_force(rest, k - 1, zero));
        }
        if zero {
            best = best.min(cost(run, true) + brute_force(rest, k - 1, false));
        }
    }
    best
}

/// The cost of centroids by looking at each of them.
fn cost_of(d: &Distinct, centroids: &[f32]) -> f64 {
    let nearest = |v: f32| {
        centroids
            .iter()
            .map(|c| (f64::from(v) - f64::from(*c)).powi(2))
            .fold(f64::MAX, f64::min)
    };
    d.values()
        .iter()
        .zip(d.weights())
        .map(|(v, w)| w * nearest(*v))
        .sum()
}

fn squares(d: &Distinct) -> f64 {
    d.values()
        .iter()
        .zip(d.weights())
        .map(|(v, w)| w * f64::from(*v).powi(2))
        .sum()
}

proptest! {
    #[test]
    fn no_partition_of_few_values_costs_less(
        values in prop::collection::vec(-20i32..20, 1..10),
        weights in prop::collection::vec(1u8..9, 9),
        k in 1usize..5,
        zero in any::<bool>(),
    ) {
        let values: Vec<f32> = values.iter().map(|v| *v as f32 * 0.37).collect();
        let weights: Vec<f32> = weights[..values.len()].iter().map(|w| f32::from(*w)).collect();
        let d = Distinct::of(&values, Some(&weights)).unwrap();
        let pairs: Vec<_> = d.values().iter().map(|v| f64::from(*v)).zip(d.weights().iter().copied()).collect();
        let fit = fit(&d, &Spec { keep_zero: zero, ..spec(k) }).unwrap();
        let least = brute_force(&pairs, k, zero);
        prop_assert!((fit.inertia - least).abs() <= 1e-6 * squares(&d), "{} {}", fit.inertia, least);
        prop_assert!(!zero || fit.centroids.contains(&0.0));
        prop_assert!(fit.optimal && fit.centroids.len() <= k);
    }

    #[test]
    fn lloyd_is_never_better_than_the_exact_solution(seed in any::<u64>(), k in 1usize..40, zero in any::<bool>()) {
        let d = distinct(&normal(700, seed));
        let s = Spec { keep_zero: zero, ..spec(k) };
        let exact = fit(&d, &s).unwrap();
        let start: Vec<f64> = exact.centroids.iter().map(|c| f64::from(*c)).collect();
        let polished = stored(&lloyd::polished(&d, start, zero), DType::F32).unwrap();
        // Nothing affordable: from random starts.
        let random = stored(&lloyd::centroids(&d, k, zero, seed, 0), DType::F32).unwrap();
        for other in [polished, random] {
            prop_assert!(!zero || other.contains(&0.0));
            prop_assert!(exact.inertia <= inertia(&d, &other) * (1.0 + 1e-6) + 1e-12);
        }
    }

    #[test]
    fn the_order_of_values_does_not_matter(seed in any::<u64>(), k in 1usize..20) {
        let values = normal(300, seed);
        let mut other = values.clone();
        other.reverse();
        other.rotate_left(101);
        prop_assert_eq!(fit(&distinct(&values), &spec(k)).unwrap(), fit(&distinct(&other), &spec(k)).unwrap());
    }

    #[test]
    fn powers_of_two_scale_values_and_weights_exactly(seed in any::<u64>(), k in 1usize..20, zero in any::<bool>()) {
        let values = normal(300, seed);
        let weights: Vec<f32> = (0..60).map(|j| 1.0 + (j % 11) as f32).collect();
        let by = |factor: f32, values: &[f32]| values.iter().map(|v| v * factor).collect::<Vec<_>>();
        let s = Spec { keep_zero: zero, ..spec(k) };
        let one = fit(&Distinct::of(&values, Some(&weights)).unwrap(), &s).unwrap();
        let two = fit(&Distinct::of(&by(8.0, &values), Some(&by(0.25, &weights))).unwrap(), &s).unwrap();
        prop_assert_eq!(by(8.0, &one.centroids), two.centroids);
        prop_assert_eq!(one.inertia * 16.0, two.inertia);
    }

    #[test]
    fn shifted_values_have_shifted_centroids(seed in any::<u64>(), k in 1usize..20) {
        // Values in steps that survive the shift.
        let values: Vec<f32> = normal(300, seed).iter().map(|v| (v * 4096.0).round() / 4096.0).collect();
        let shifted: Vec<f32> = values.iter().map(|v| v + 64.0).collect();
        let [one, two] = [values, shifted].map(|v| fit(&distinct(&v), &spec(k)).unwrap());
        prop_assert!((one.inertia - two.inertia).abs() <= 1e-4 * one.inertia + 1e-8, "{} {}", one.inertia, two.inertia);
    }
}

#[test]
fn the_plain_quadratic_program_costs_the_same() {
    // Clumps, gaps and a far outlier, of uneven weights.
    let mut values: Vec<f32> = normal(260, 3).iter().map(|v| v + (v * 40.0).round()).collect();
    values.push(3e4);
    let weights: Vec<f32> = (0..values.len()).map(|j| 0.01 + (j % 13) as f32).collect();
    let d = Distinct::of(&values, Some(&weights)).unwrap();
    let pairs: Vec<_> = d
        .values()
        .iter()
        .map(|v| f64::from(*v))
        .zip(d.weights().iter().copied())
        .collect();
    let mut before = vec![f64::INFINITY; pairs.len() + 1];
    before[0] = 0.0;
    for k in 1..=24 {
        let least = |end: usize| {
            let runs = (0..end).map(|begin| before[begin] + cost(&pairs[begin..end], false));
            runs.fold(f64::INFINITY, f64::min)
        };
        let mut row: Vec<f64> = (0..=pairs.len()).map(least).collect();
        std::mem::swap(&mut before, &mut row);
        let least = before[pairs.len()];
        let made = fit(&d, &spec(k)).unwrap().inertia;
        assert!((made / least - 1.0).abs() < 1e-5, "{k}: {made} {least}");
    }
}

#[test]
fn more_centroids_cost_less_and_the_inertia_is_what_the_codes_give() {
    let values = normal(20_000, 5);
    let d = distinct(&values);
    let mut before = f64::INFINITY;
    for k in [1, 2, 4, 16, 64, 256] {
        let fit = fit(&d, &spec(k)).unwrap();
        assert!(fit.inertia < before && fit.centroids.is_sorted_by(|a, b| a < b));
        before = fit.inertia;
        let codes = assign(&values, &fit.centroids).unwrap();
        let error = |(i, v): (usize, &f32)| f64::from(v - fit.centroids[codes.get(i).unwrap()]).powi(2);
        let sum: f64 = values.iter().enumerate().map(error).sum();
        assert!((sum - fit.inertia).abs() < 1e-5 * sum, "{k}");
        assert!(
            (cost_of(&d, &fit.centroids) - fit.inertia).abs() < 1e-9 * sum,
            "{k}"
        );
    }
}

#[test]
fn what_is_too_much_to_solve_is_nearly_solved() {
    let d = distinct(&normal(60_000, 8));
    for zero in [false, true] {
        let best = exact_cost(&d, 64, zero);
        // Merged values are affordable, then not even they.
        for (affordable, slack) in [(1 << 26, 1.0005), (0, 1.05)] {
            let made = stored(&lloyd::centroids(&d, 64, zero, 1, affordable), DType::F32).unwrap();
            let made = inertia(&d, &made);
            assert!(
                made <= slack * best && made >= best * (1.0 - 1e-7),
                "{zero} {affordable} {made} {best}"
            );
        }
    }
}

fn exact_cost(d: &Distinct, k: usize, zero: bool) -> f64 {
    fit(
        d,
        &Spec {
            keep_zero: zero,
            ..spec(k)
        },
    )
    .unwrap()
    .inertia
}

#[test]
fn threads_change_nothing() {
    let values = normal(60_000, 9);
    for (centroids, keep_zero) in [(16, false), (16, true), (2000, false)] {
        let s = Spec {
            keep_zero,
            ..spec(centroids)
        };
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| fit(&distinct(&values), &s)).unwrap()
        });
        assert_eq!(one, three);
        assert_eq!(one.optimal, centroids == 16);
    }
}

#[test]
fn pruned_weights_stay_exactly_zero() {
    let mut values = normal(4000, 2);
    values
        .iter_mut()
        .filter(|v| v.abs() < 0.05)
        .for_each(|v| *v = 0.0);
    let s = Spec {
        keep_zero: true,
        dtype: DType::F16,
        ..spec(16)
    };
    let fit = fit(&distinct(&values), &s).unwrap();
    let codes = assign(&values, &fit.centroids).unwrap();
    for (i, v) in values.iter().enumerate() {
        let back = fit.centroids[codes.get(i).unwrap()];
        assert_eq!(*v == 0.0, back == 0.0);
    }
    assert_eq!(fit.centroids.len(), 16);
}

#[test]
fn few_or_equal_values_are_their_own_centroids() {
    let of = |values: &[f32], k, keep_zero| fit(&distinct(values), &Spec { keep_zero, ..spec(k) }).unwrap();
    assert_eq!(of(&[], 4, false).centroids, [0.0]);
    assert_eq!(of(&[3.0; 9], 4, false).centroids, [3.0]);
    assert_eq!(of(&[3.0; 9], 4, true).centroids, [0.0, 3.0]);
    assert_eq!(of(&[0.0, -0.0], 4, true).centroids, [0.0]);
    assert_eq!(of(&[3.0, -1.0, 3.0], 3, false).centroids, [-1.0, 3.0]);
    let one = of(&[3.0, -1.0, 1.0], 1, true);
    assert_eq!((one.centroids, one.inertia), (vec![0.0], 11.0));
    let one = of(&[3.0, -1.0, 1.0], 1, false);
    assert_eq!((one.centroids, one.inertia), (vec![1.0], 8.0));
    // The largest numbers: no sum overflows.
    assert_eq!(of(&[f32::MAX, f32::MIN, f32::MAX], 2, false).inertia, 0.0);
}

#[test]
fn centroids_are_numbers_of_their_type() {
    let values = normal(2000, 4);
    for dtype in [DType::F16, DType::BF16] {
        let fit = fit(&distinct(&values), &Spec { dtype, ..spec(64) }).unwrap();
        assert!(fit.centroids.iter().all(|c| round_to(dtype, *c) == *c));
    }
    let large = distinct(&[1e6, -1e6]);
    let code = |s: &Spec| fit(&large, s).unwrap_err().code;
    assert_eq!(
        code(&Spec {
            dtype: DType::F16,
            ..spec(2)
        }),
        "centroid_overflow"
    );
    assert_eq!(
        code(&Spec {
            dtype: DType::I8,
            ..spec(2)
        }),
        "bad_codebook_dtype"
    );
    assert_eq!(code(&spec(0)), "bad_codebook_size");
    assert_eq!(code(&spec(MAX_CENTROIDS + 1)), "bad_codebook_size");
}
