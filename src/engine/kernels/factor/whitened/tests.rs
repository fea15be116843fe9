//! Whitened decompositions against plain references.

use super::*;
use crate::kernels::factor::samples::{
    correlated_gram, distance, in_pools, never, noise, outputs_error, squared as norm,
};
use crate::kernels::factor::svd;

const ROWS: usize = 48;
const COLS: usize = 64;

fn cut(w: &[f32], rows: usize, whitening: &Whitening, rank: usize) -> Vec<f32> {
    factorize(
        w,
        rows,
        whitening,
        Truncation::Rank(rank),
        &Options::default(),
        &never,
    )
    .unwrap()
    .multiply_out()
}

fn identity(n: usize) -> Vec<f32> {
    (0..n * n)
        .map(|at| if at / n == at % n { 1.0 } else { 0.0 })
        .collect()
}

#[test]
fn outputs_are_nearer_than_those_of_the_plain_decomposition_at_every_rank() {
    let gram = correlated_gram(COLS, 500, 1);
    for rows in [ROWS, 2 * COLS] {
        let w = noise(rows * COLS, 2);
        let whole = Whitening::gram(&gram, COLS, 0.0, &never).unwrap();
        let moments: Vec<f32> = (0..COLS).map(|i| gram[i * COLS + i]).collect();
        let diagonal = Whitening::diagonal(&moments, 1.0, 0.0).unwrap();
        for rank in 1..rows.min(COLS) {
            let error =
                |whitening: &Whitening| outputs_error(&w, &cut(&w, rows, whitening, rank), &gram, COLS);
            let (plain, scaled, best) = (error(&Whitening::none(COLS)), error(&diagonal), error(&whole));
            assert!(
                best < plain && best < scaled,
                "rank {rank}: {best} {scaled} {plain}"
            );
            if rank < rows.min(COLS) * 3 / 4 {
                assert!(best < 0.8 * plain, "rank {rank}: {best} {plain}");
            }
        }
    }
}

#[test]
fn one_decomposition_says_the_loss_at_every_rank() {
    let gram = correlated_gram(COLS, 500, 1);
    let w = noise(ROWS * COLS, 2);
    let whitening = Whitening::gram(&gram, COLS, 0.0, &never).unwrap();
    let found = decompose(&w, ROWS, &whitening, &Options::default(), &never).unwrap();
    let losses = found.losses();
    assert_eq!(losses.len(), ROWS + 1);
    for (rank, loss) in losses.iter().enumerate().skip(1) {
        let factors = found.truncate(Truncation::Rank(rank)).unwrap();
        let error = outputs_error(&w, &factors.multiply_out(), &gram, COLS);
        assert!(
            (error - loss).abs() < 1e-4 * loss + 1e-7 * losses[0],
            "rank {rank}: {error} {loss}"
        );
        let gap: Vec<f32> = w.iter().zip(factors.multiply_out()).map(|(a, b)| a - b).collect();
        let weighed = whitening.loss(&gap, ROWS).unwrap();
        assert!(
            (error - weighed).abs() < 1e-4 * error + 1e-7 * losses[0],
            "rank {rank}"
        );
    }
}

#[test]
fn inputs_that_are_all_alike_change_nothing() {
    let w = noise(ROWS * COLS, 2);
    let plain = svd::factorize(&w, ROWS, COLS, Truncation::Rank(9), &Options::default(), &never)
        .unwrap()
        .multiply_out();
    let whitenings = [
        Whitening::none(COLS),
        Whitening::gram(&identity(COLS), COLS, 0.01, &never).unwrap(),
        Whitening::diagonal(&[4.0; COLS], 1.0, 0.01).unwrap(),
    ];
    for whitening in whitenings {
        let gap = distance(&plain, &cut(&w, ROWS, &whitening, 9));
        assert!(gap < 1e-11 * norm(&w), "{gap}");
    }
}

#[test]
fn a_diagonal_gram_matrix_is_what_its_diagonal_says() {
    let w = noise(ROWS * COLS, 2);
    let moments: Vec<f32> = (0..COLS).map(|i| 0.1 + (i % 11) as f32).collect();
    let mut gram = identity(COLS);
    (0..COLS).for_each(|i| gram[i * COLS + i] = moments[i]);
    let whole = cut(&w, ROWS, &Whitening::gram(&gram, COLS, 0.01, &never).unwrap(), 9);
    let diagonal = cut(&w, ROWS, &Whitening::diagonal(&moments, 1.0, 0.01).unwrap(), 9);
    let error = |v: &[f32]| outputs_error(&w, v, &gram, COLS);
    assert!(error(&diagonal) < 0.95 * error(&cut(&w, ROWS, &Whitening::none(COLS), 9)));
    let gap = distance(&whole, &diagonal);
    assert!(gap < 1e-10 * norm(&w), "{gap}");
}

#[test]
fn inputs_that_span_little_are_damped_until_they_can_be_factored() {
    // Fewer samples than inputs.
    let gram = correlated_gram(COLS, 5, 3);
    let whitening = Whitening::gram(&gram, COLS, 0.0, &never).unwrap();
    assert!(whitening.damp() > 0.0);
    let w = noise(ROWS * COLS, 2);
    let found = outputs_error(&w, &cut(&w, ROWS, &whitening, 5), &gram, COLS);
    let none = outputs_error(&w, &vec![0.0; w.len()], &gram, COLS);
    assert!(
        found < 0.01 * none,
        "five directions hold the outputs: {found} {none}"
    );
    // Not damped more than asked where it is not needed.
    let enough = Whitening::gram(&correlated_gram(COLS, 500, 3), COLS, 0.01, &never).unwrap();
    assert_eq!(enough.damp(), 0.01);
}

#[test]
fn what_weighs_nothing_is_refused() {
    let code = |gram: &[f32], n| Whitening::gram(gram, n, 0.01, &never).unwrap_err().code;
    assert_eq!(code(&[0.0; 4], 2), "no_activations");
    assert_eq!(code(&[f32::NAN; 4], 2), "non_finite_activations");
    assert_eq!(code(&[1.0, 0.0, 0.0, -1.0], 2), "non_finite_activations");
    assert_eq!(code(&[1.0, 0.0, 1e9, 1.0], 2), "singular_activations");
    assert_eq!(code(&[1.0], 2), "internal");
    let code = |moments: &[f32]| Whitening::diagonal(moments, 1.0, 0.0).unwrap_err().code;
    assert_eq!(code(&[0.0, 0.0]), "no_activations");
    assert_eq!(code(&[1.0, f32::INFINITY]), "non_finite_activations");
    assert!(
        Whitening::diagonal(&[1.0, 0.0], 1.0, 0.0).is_ok(),
        "a dead input among others"
    );
    let none = Whitening::none(2);
    let run = |w: &[f32]| {
        decompose(w, 1, &none, &Options::default(), &never)
            .unwrap_err()
            .code
    };
    assert_eq!(run(&[1.0, f32::NAN]), "non_finite_values");
    let stopped = Whitening::gram(&identity(4), 4, 0.01, &|| true).unwrap_err();
    assert_eq!(stopped.code, "cancelled");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (rows, cols) = (150, 300);
    let (gram, w) = (correlated_gram(cols, 320, 5), noise(rows * cols, 6));
    let found = in_pools(|| {
        let whitening = Whitening::gram(&gram, cols, 0.01, &never).unwrap();
        cut(&w, rows, &whitening, 30)
    });
    assert!(found.windows(2).all(|two| two[0] == two[1]));
}
