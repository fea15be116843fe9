//! Convolutions that follow each other against plain references.

use super::*;
use crate::kernels::factor::samples::{distance, noise, squared as norm};

fn stage(shape: [usize; 4], groups: usize, seed: u64) -> Stage {
    Stage {
        values: noise(shape.iter().product(), seed),
        shape,
        groups,
        spans: [shape[2] > 1, shape[3] > 1],
    }
}

/// A correlation without padding, by its definition; x `[I, h, w]`.
fn convolve(x: &[f64], sides: [usize; 3], stage: &Stage) -> (Vec<f64>, [usize; 3]) {
    let [outputs, inner, kh, kw] = stage.shape;
    let [_, h, w] = sides;
    let (oh, ow) = (h + 1 - kh, w + 1 - kw);
    let mut out = vec![0.0; outputs * oh * ow];
    for (at, to) in out.iter_mut().enumerate() {
        let (o, y, x0) = (at / (oh * ow), at / ow % oh, at % ow);
        let group = o / (outputs / stage.groups);
        for i in 0..inner {
            for (a, b) in (0..kh).flat_map(|a| (0..kw).map(move |b| (a, b))) {
                let weight = f64::from(stage.values[((o * inner + i) * kh + a) * kw + b]);
                *to += weight * x[((group * inner + i) * h + y + a) * w + x0 + b];
            }
        }
    }
    (out, [outputs, oh, ow])
}

#[test]
fn stages_one_after_the_other_do_what_their_product_does() {
    let chains = [
        vec![
            stage([4, 3, 1, 1], 1, 1),
            stage([5, 4, 3, 2], 1, 2),
            stage([6, 5, 1, 1], 1, 3),
        ],
        vec![stage([4, 3, 3, 1], 1, 4), stage([6, 4, 1, 3], 1, 5)],
        vec![stage([6, 1, 3, 3], 3, 6), stage([5, 6, 1, 1], 1, 7)],
        vec![
            stage([4, 3, 1, 1], 1, 8),
            stage([4, 1, 3, 1], 4, 9),
            stage([8, 2, 1, 3], 2, 10),
            stage([5, 8, 1, 1], 1, 11),
        ],
    ];
    for stages in chains {
        let x: Vec<f64> = noise(3 * 6 * 7, 12).iter().map(|v| f64::from(*v)).collect();
        let mut by_stages = (x.clone(), [3, 6, 7]);
        for stage in &stages {
            by_stages = convolve(&by_stages.0, by_stages.1, stage);
        }
        let chain = Chain {
            stages,
            relative_error: 0.0,
        };
        let whole = chain.compose().unwrap();
        let one = Stage {
            values: chain.multiply_out().unwrap(),
            shape: whole.shape,
            groups: 1,
            spans: [true; 2],
        };
        let at_once = convolve(&x, [3, 6, 7], &one);
        assert_eq!(by_stages.1, at_once.1);
        for (a, b) in by_stages.0.iter().zip(&at_once.0) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}

/// Balancing moves norms between stages and leaves their product.
#[test]
fn stages_that_follow_each_other_weigh_alike() {
    let draft = |shape: [usize; 4], groups, seed, scale: f64| {
        let values = noise(shape.iter().product(), seed);
        let [_, inner, h, w] = shape;
        let at = |[o, i, y, x]: [usize; 4]| scale * f64::from(values[((o * inner + i) * h + y) * w + x]);
        Draft::new(shape, [false; 2], at).grouped(groups)
    };
    let drafts = vec![
        draft([6, 1, 3, 3], 3, 1, 1e3),
        draft([6, 1, 1, 1], 6, 2, 1.0),
        draft([5, 6, 1, 1], 1, 3, 1e-6),
    ];
    let plain: Vec<Stage> = drafts.iter().map(|d| d.clone().stored().unwrap()).collect();
    let wanted = Chain {
        stages: plain,
        relative_error: 0.0,
    }
    .multiply_out()
    .unwrap();
    let kernel = Kernel::new(&wanted, [5, 3, 3, 3]).unwrap();
    let chain = Chain::of(&kernel, drafts).unwrap();
    assert!(chain.relative_error < 1e-6, "{}", chain.relative_error);
    let norms: Vec<f64> = chain.stages.iter().map(|stage| norm(&stage.values)).collect();
    assert!(
        norms.iter().all(|n| *n > 0.3 * norms[0] && *n < 3.0 * norms[0]),
        "{norms:?}"
    );
    assert!(distance(&wanted, &chain.multiply_out().unwrap()) < 1e-10 * norm(&wanted));
}

#[test]
fn what_is_no_kernel_or_no_chain_is_refused() {
    let code = |values: &[f32], shape| Kernel::new(values, shape).unwrap_err().code;
    assert_eq!(code(&[1.0, f32::NAN], [1, 2, 1, 1]), "non_finite_values");
    assert_eq!(code(&[], [1, 0, 3, 3]), "empty_matrix");
    assert_eq!(code(&[1.0], [1, 2, 1, 1]), "internal");
    assert_eq!(code(&[1.0], [1, usize::MAX, 2, 2]), "empty_matrix");
    let chain = |stages| {
        Chain {
            stages,
            relative_error: 0.0,
        }
        .multiply_out()
    };
    assert!(chain(Vec::new()).is_err());
    assert!(chain(vec![stage([2, 3, 1, 1], 1, 1), stage([2, 3, 1, 1], 1, 1)]).is_err());
    assert!(chain(vec![stage([3, 1, 1, 1], 2, 1)]).is_err());
}

#[test]
fn the_error_of_outputs_is_that_of_weights_for_even_inputs() {
    let (values, other) = (noise(4 * 6, 1), noise(4 * 6, 2));
    let kernel = Kernel::new(&values, [4, 3, 2, 1]).unwrap();
    let even: Vec<f32> = (0..36)
        .map(|at| if at / 6 == at % 6 { 2.0 } else { 0.0 })
        .collect();
    let found = kernel.outputs_error(&other, &even).unwrap();
    let wanted = (distance(&values, &other) / norm(&values)).sqrt();
    assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
}
