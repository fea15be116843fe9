//! Merged heads against plain references.

use super::*;
use crate::kernels::factor::samples::{
    correlated_gram, distance, in_pools, multiply, never, noise, outputs_error, squared as norm,
};
use proptest::prelude::*;

const LAYOUT: Layout = Layout {
    heads: 6,
    groups: 2,
    head_dim: 8,
    cols: 20,
};
const ALL: [Freedom; 4] = [
    Freedom::Any,
    Freedom::RotaryHalves { dims: 8 },
    Freedom::RotaryPairs { dims: 8 },
    Freedom::RotaryHalves { dims: 4 },
];
const ALIGNMENTS: [Alignment; 3] = [Alignment::Mean, Alignment::Rotation, Alignment::Linear];

fn merged(w: &[f32], freedom: Freedom, alignment: Alignment) -> Merged {
    merge(
        w,
        &LAYOUT,
        freedom,
        alignment,
        &Whitening::none(LAYOUT.cols),
        &never,
    )
    .unwrap()
}

/// What old heads are taken as.
fn rebuilt(found: &Merged) -> Vec<f32> {
    let size = LAYOUT.head_dim * LAYOUT.cols;
    let head = |(h, turn): (usize, &Vec<f32>)| {
        let group = h / LAYOUT.per_group();
        multiply(
            turn,
            &found.heads[group * size..(group + 1) * size],
            LAYOUT.head_dim,
        )
    };
    found.absorbed.iter().enumerate().flat_map(head).collect()
}

/// Turns a head's rows in their planes, by angles that grow with the position.
fn rotary(head: &mut [f32], freedom: Freedom, position: f64) {
    let (dims, halves) = match freedom {
        Freedom::Any => (0, false),
        Freedom::RotaryHalves { dims } => (dims, true),
        Freedom::RotaryPairs { dims } => (dims, false),
    };
    for i in 0..dims / 2 {
        let (a, b) = if halves {
            (i, i + dims / 2)
        } else {
            (2 * i, 2 * i + 1)
        };
        let (sin, cos) = (position / 10f64.powi(i as i32)).sin_cos();
        let (x, y) = (f64::from(head[a]), f64::from(head[b]));
        head[a] = (x * cos - y * sin) as f32;
        head[b] = (x * sin + y * cos) as f32;
    }
}

/// Heads of a group that are turned copies of one, as far as the freedom allows.
fn turned_copies(freedom: Freedom, seed: u64) -> Vec<f32> {
    let d = LAYOUT.head_dim;
    let size = d * LAYOUT.cols;
    let mut w = Vec::new();
    for h in 0..LAYOUT.heads {
        let base = noise(size, seed + (h / LAYOUT.per_group()) as u64);
        let mut turn: Vec<f32> = if freedom == Freedom::Any {
            let random = transposed(&noise(d * d, seed + 50 + h as u64), d, d);
            columns_to_rows(crate::kernels::factor::dense::orthonormal(random.as_ref()).as_ref())
        } else {
            (0..d * d)
                .map(|at| if at / d == at % d { 1.0 } else { 0.0 })
                .collect()
        };
        // As it commutes with rotary positions, a rotation by some of them is allowed.
        let columns: Vec<Vec<f32>> = (0..d)
            .map(|j| {
                let mut column: Vec<f32> = (0..d).map(|i| turn[i * d + j]).collect();
                rotary(&mut column, freedom, 0.7 + 1.9 * h as f64);
                column
            })
            .collect();
        (0..d * d).for_each(|at| turn[at] = columns[at % d][at / d]);
        w.extend(multiply(&turn, &base, d));
    }
    w
}

#[test]
fn turned_copies_of_a_head_become_it_without_loss() {
    for freedom in ALL {
        let w = turned_copies(freedom, 1);
        assert!(merged(&w, freedom, Alignment::Mean).relative_error > 0.3);
        for alignment in [Alignment::Rotation, Alignment::Linear] {
            let found = merged(&w, freedom, alignment);
            assert!(
                found.relative_error < 1e-3,
                "{freedom:?} {alignment:?}: {}",
                found.relative_error
            );
            assert!(distance(&w, &rebuilt(&found)) < 1e-6 * norm(&w));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_more_is_allowed_the_nearer_and_the_error_is_as_said(seed in any::<u64>()) {
        let w = noise(LAYOUT.heads * LAYOUT.head_dim * LAYOUT.cols, seed);
        for freedom in ALL {
            let errors = ALIGNMENTS.map(|alignment| {
                let found = merged(&w, freedom, alignment);
                let error = (distance(&w, &rebuilt(&found)) / norm(&w)).sqrt();
                assert!((error - found.relative_error).abs() < 1e-5, "{freedom:?} {alignment:?}");
                error
            });
            prop_assert!(errors[1] < errors[0] && errors[2] < errors[1], "{:?}: {:?}", freedom, errors);
            let any = merged(&w, Freedom::Any, Alignment::Linear).relative_error;
            prop_assert!(any <= errors[2] + 1e-6);
        }
    }
}

/// Linear alignment without rotary positions is the truncated decomposition of a group's rows.
#[test]
fn the_best_merged_head_is_that_of_the_singular_values() {
    let w = noise(LAYOUT.heads * LAYOUT.head_dim * LAYOUT.cols, 3);
    let found = merged(&w, Freedom::Any, Alignment::Linear);
    let rows = LAYOUT.per_group() * LAYOUT.head_dim;
    let tails = w.chunks(rows * LAYOUT.cols).map(|group| {
        let options = crate::kernels::factor::svd::Options::default();
        let svd = crate::kernels::factor::svd::decompose(group, rows, LAYOUT.cols, &options, &never);
        svd.unwrap().losses()[LAYOUT.head_dim]
    });
    let wanted = (tails.sum::<f64>() / norm(&w)).sqrt();
    assert!(
        (found.relative_error - wanted).abs() < 1e-9,
        "{} {wanted}",
        found.relative_error
    );
}

#[test]
fn what_keys_are_turned_by_commutes_with_every_position() {
    let w = noise(LAYOUT.heads * LAYOUT.head_dim * LAYOUT.cols, 9);
    for freedom in &ALL[1..] {
        for alignment in ALIGNMENTS {
            for turn in merged(&w, *freedom, alignment).absorbed {
                let x = noise(LAYOUT.head_dim, 4);
                let mut before = x.clone();
                rotary(&mut before, *freedom, 5.3);
                let before = multiply(&turn, &before, LAYOUT.head_dim);
                let mut after = multiply(&turn, &x, LAYOUT.head_dim);
                rotary(&mut after, *freedom, 5.3);
                assert!(
                    distance(&before, &after) < 1e-9 * norm(&after),
                    "{freedom:?} {alignment:?}"
                );
            }
        }
    }
}

#[test]
fn scores_and_outputs_stay_when_other_projections_absorb() {
    let (d, cols, query_heads) = (LAYOUT.head_dim, LAYOUT.cols, 12);
    let (x, y) = (noise(cols, 70), noise(cols, 71));
    for freedom in ALL {
        let keys = turned_copies(freedom, 5);
        let found = merged(&keys, freedom, Alignment::Linear);
        let mut queries = noise(query_heads * d * cols, 6);
        let score = |queries: &[f32], keys: &[f32], head: usize, key: usize| {
            let mut q = multiply(&queries[head * d * cols..(head + 1) * d * cols], &x, cols);
            let mut k = multiply(&keys[key * d * cols..(key + 1) * d * cols], &y, cols);
            rotary(&mut q, freedom, 11.0);
            rotary(&mut k, freedom, 4.0);
            q.iter().zip(&k).map(|(a, b)| f64::from(a * b)).sum::<f64>()
        };
        let before: Vec<f64> = (0..query_heads)
            .map(|q| score(&queries, &keys, q, q / 2))
            .collect();
        absorb_keys(&mut queries, &LAYOUT, query_heads, &found).unwrap();
        for (q, before) in before.iter().enumerate() {
            let after = score(&queries, &found.heads, q, q / 6);
            assert!(
                (before - after).abs() < 1e-3 * before.abs() + 1e-2,
                "{freedom:?}: {before} {after}"
            );
        }
    }
    let values = turned_copies(Freedom::Any, 8);
    let found = merged(&values, Freedom::Any, Alignment::Rotation);
    let mut o = noise(3 * query_heads * d, 9);
    let out = |o: &[f32], values: &[f32], per: usize| {
        let v = multiply(values, &x, cols);
        let read: Vec<f32> = (0..query_heads)
            .flat_map(|q| v[q / per * d..(q / per + 1) * d].to_vec())
            .collect();
        multiply(o, &read, query_heads * d)
    };
    let before = out(&o, &values, 2);
    absorb_values(&mut o, &LAYOUT, query_heads, &found).unwrap();
    let after = out(&o, &found.heads, 6);
    assert!(
        distance(&before, &after) < 1e-5 * norm(&before),
        "{before:?} {after:?}"
    );
}

#[test]
fn what_is_known_of_inputs_brings_outputs_nearer() {
    let w = noise(LAYOUT.heads * LAYOUT.head_dim * LAYOUT.cols, 3);
    let gram = correlated_gram(LAYOUT.cols, 300, 4);
    let whitening = Whitening::gram(&gram, LAYOUT.cols, 0.0, &never).unwrap();
    for alignment in [Alignment::Rotation, Alignment::Linear] {
        let weighed = merge(&w, &LAYOUT, Freedom::Any, alignment, &whitening, &never).unwrap();
        let error = |found: &Merged| outputs_error(&w, &rebuilt(found), &gram, LAYOUT.cols);
        let (plain, best) = (error(&merged(&w, Freedom::Any, alignment)), error(&weighed));
        assert!(best < 0.9 * plain, "{alignment:?}: {best} {plain}");
        let none = outputs_error(&w, &vec![0.0; w.len()], &gram, LAYOUT.cols);
        assert!((weighed.relative_error - (best / none).sqrt()).abs() < 1e-4);
    }
}

#[test]
fn degenerate_heads_are_merged_and_what_cannot_be_is_refused() {
    let size = LAYOUT.heads * LAYOUT.head_dim * LAYOUT.cols;
    for alignment in ALIGNMENTS {
        for freedom in ALL {
            let zero = merged(&vec![0.0; size], freedom, alignment);
            assert!(zero.relative_error == 0.0 && zero.heads.iter().all(|v| *v == 0.0));
        }
    }
    // As many groups as heads.
    let w = noise(size, 1);
    let same = Layout { groups: 6, ..LAYOUT };
    let none = Whitening::none(LAYOUT.cols);
    let found = merge(&w, &same, Freedom::Any, Alignment::Linear, &none, &never).unwrap();
    assert!(found.relative_error < 1e-6);
    let code = |layout: &Layout, freedom, w: &[f32]| {
        merge(w, layout, freedom, Alignment::Mean, &none, &never)
            .unwrap_err()
            .code
    };
    assert_eq!(
        code(&Layout { groups: 4, ..LAYOUT }, Freedom::Any, &w),
        "bad_groups"
    );
    assert_eq!(
        code(&Layout { groups: 0, ..LAYOUT }, Freedom::Any, &w),
        "bad_groups"
    );
    assert_eq!(
        code(&LAYOUT, Freedom::RotaryPairs { dims: 3 }, &w),
        "bad_rotary_dims"
    );
    assert_eq!(
        code(&LAYOUT, Freedom::RotaryHalves { dims: 10 }, &w),
        "bad_rotary_dims"
    );
    assert_eq!(
        code(&LAYOUT, Freedom::Any, &vec![f32::NAN; size]),
        "non_finite_values"
    );
    let stopped = merge(&w, &LAYOUT, Freedom::Any, Alignment::Mean, &none, &|| true).unwrap_err();
    assert_eq!(stopped.code, "cancelled");
    assert_eq!(
        absorb_keys(&mut [0.0; 8], &LAYOUT, 7, &found).unwrap_err().code,
        "bad_groups"
    );
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let layout = Layout {
        heads: 8,
        groups: 2,
        head_dim: 64,
        cols: 300,
    };
    let w = noise(8 * 64 * 300, 4);
    for freedom in [Freedom::Any, Freedom::RotaryHalves { dims: 64 }] {
        for alignment in [Alignment::Rotation, Alignment::Linear] {
            let runs =
                in_pools(|| merge(&w, &layout, freedom, alignment, &Whitening::none(300), &never).unwrap());
            assert!(runs.windows(2).all(|two| two[0] == two[1]));
        }
    }
}
