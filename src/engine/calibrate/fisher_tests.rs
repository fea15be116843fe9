//! The sums, and how labels are drawn; what they mean for a model is shown in `execute/fisher_tests.rs`.

use super::*;

/// Two stripes and a bit, values that f32 sums would round.
#[test]
fn sums_are_those_of_the_squares_whatever_the_threads() {
    let (rows, cols) = (37, 5);
    let values: Vec<f32> = (0..rows * cols)
        .map(|i| ((i * 37) % 101) as f32 * 0.013 - 0.6)
        .collect();
    let mut sum = Sum::default();
    sum.add(&values, cols);
    sum.add(&values, cols);
    let square = |i: usize| 2.0 * f64::from(values[i]).powi(2);
    let by_hand: f64 = (0..cols).map(|c| square(36 * cols + c)).sum();
    assert!((sum.rows[36] - by_hand).abs() < 1e-12);
    let by_hand: f64 = (0..rows).map(|r| square(r * cols + 3)).sum();
    assert!((sum.cols[3] - by_hand).abs() < 1e-12);
    let mut other = Sum::default();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    pool.install(|| (0..2).for_each(|_| other.add(&values, cols)));
    assert_eq!((sum.rows, sum.cols), (other.rows, other.cols));
}

#[test]
fn a_label_is_drawn_as_often_as_it_is_likely_and_slopes_add_up_to_nothing() {
    let logits = [0.0f32, 1.0, 2.0];
    let mut random = Random::new(3);
    let mut drawn_at = [0usize; 3];
    for _ in 0..20_000 {
        let mut row = logits;
        let draw = random.share();
        less_one_at(&mut row, |exponentials, sum| drawn(exponentials, draw * sum));
        assert!(row.iter().sum::<f32>().abs() < 1e-6);
        drawn_at[row.iter().position(|v| *v < 0.0).unwrap()] += 1;
    }
    let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
    for (logit, count) in logits.iter().zip(drawn_at) {
        let share = f64::from(*logit).exp() / total;
        assert!((count as f64 / 20_000.0 - share).abs() < 0.012, "{drawn_at:?}");
    }
}

/// Over all signs, the mean of the products is `diag(p) − p·pᵀ`: what drawn labels have in the mean.
#[test]
fn directions_have_the_covariance_of_labels() {
    let logits = [0.0f32, 1.0, 2.5];
    let mut sums = [[0f64; 3]; 3];
    for bits in 0..8 {
        let signs: Vec<f32> = (0..3)
            .map(|i| if bits >> i & 1 == 0 { -1.0 } else { 1.0 })
            .collect();
        let mut row = logits;
        projected(&mut row, &signs);
        for (i, a) in row.iter().enumerate() {
            for (j, b) in row.iter().enumerate() {
                sums[i][j] += f64::from(a * b) / 8.0;
            }
        }
    }
    let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
    let p = logits.map(|l| f64::from(l).exp() / total);
    for (i, row) in sums.iter().enumerate() {
        for (j, found) in row.iter().enumerate() {
            let own = if i == j { p[i] } else { 0.0 };
            assert!((found - own + p[i] * p[j]).abs() < 1e-6, "{i} {j}: {found}");
        }
    }
}
