//! Depthwise-separable: each input alone through a few planes, then a pointwise convolution.
//!
//! Owns: the planes of each input, and the pointwise weights that are best for them. Must not know: what multiplier pays.
//! Invariant: without moments of inputs, no such pair with the same multiplier is nearer to the kernel; with them, the
//! pointwise weights are the best for the planes.
//!
//! The layer is that of Howard et al., "`MobileNets`", 2017; the closed form is that of Guo et al., "Network decoupling", 2018: the
//! truncated decomposition of each input's slice O × (kh·kw). The error of outputs couples inputs, so that with moments planes
//! are found with those of each input alone, and the pointwise weights by least squares with all.

use faer::Mat;
use rayon::prelude::*;

use super::dense::{divided, product};
use super::kernel::{Chain, Draft, Kernel, working_bytes as chain_bytes};
use super::svd::Options;
use super::whitened::{Whitening, decompose};
use super::{Stop, go_on};
use crate::error::{Class, Error, Result};
use crate::kernels::check_finite;

/// Ridge of the least squares as a part of the mean diagonal, and how often it is raised tenfold.
const RIDGE: f64 = 1e-7;
const ATTEMPTS: i32 = 6;

/// Planes per input whose stages have at most `ratio` of the kernel's parameters; from 1 to what can be of use.
pub fn multiplier_for_ratio(shape: [usize; 4], ratio: f64) -> usize {
    let [outputs, _, height, width] = shape;
    let plane = height * width;
    let multiplier = ratio * (outputs * plane) as f64 / (outputs + plane).max(1) as f64;
    (multiplier as usize).clamp(1, outputs.min(plane).max(1))
}

/// Bytes that [`factorize`] holds at its peak, beside the kernel and the moments.
pub fn working_bytes(shape: [usize; 4], multiplier: usize, with_moments: bool) -> u64 {
    let [outputs, inputs, height, width] = shape;
    let patch = inputs * height * width;
    let channels = inputs * multiplier;
    let stages = channels * (height * width + outputs);
    let refit = if with_moments {
        outputs * patch + patch * channels + 3 * channels * channels + 2 * outputs * channels
    } else {
        0
    };
    // The first stage is multiplied out as a dense one.
    (8 * (2 * stages + refit) as u64).max(chain_bytes(shape, channels))
}

/// Stages kh×kw depthwise `[I·m, 1, kh, kw]` of I groups and 1×1 `[O, I·m]`. `moments` is the Gram matrix of the patches
/// of the input that outputs are made of, `[I·kh·kw, I·kh·kw]` in order (i, h, w); a multiplier beyond what can be of use
/// is that.
///
/// # Errors
/// `bad_rank` for 0, `non_finite_activations`, `singular_activations`; `cancelled`.
pub fn factorize(
    kernel: &Kernel<'_>,
    multiplier: usize,
    moments: Option<&[f32]>,
    stop: Stop<'_>,
) -> Result<Chain> {
    let [outputs, inputs, height, width] = kernel.shape();
    let plane = height * width;
    if multiplier == 0 {
        return Err(Error::bad_input(
            "bad_rank",
            "a multiplier of 0 keeps nothing: it is at least 1",
        ));
    }
    let multiplier = multiplier.min(outputs.min(plane));
    if let Some(moments) = moments {
        check_moments(moments, inputs * plane)?;
    }
    let by_output = kernel.by_output();
    let slices: Vec<Slice> = (0..inputs)
        .into_par_iter()
        .map(|input| slice(&by_output, input, plane, multiplier, moments, stop))
        .collect::<Result<_>>()?;
    let pointwise = match moments {
        None => Mat::from_fn(outputs, inputs * multiplier, |o, c| {
            slices[c / multiplier].weights[(o, c % multiplier)]
        }),
        Some(moments) => refit(&by_output, &slices, moments, stop)?,
    };
    drop(by_output);
    let planes = Draft::new(
        [inputs * multiplier, 1, height, width],
        [true; 2],
        |[c, _, h, w]| slices[c / multiplier].planes[(h * width + w, c % multiplier)],
    );
    Chain::of(
        kernel,
        vec![planes.grouped(inputs), Draft::pointwise(pointwise.as_ref())],
    )
}

fn check_moments(moments: &[f32], patch: usize) -> Result<()> {
    if moments.len() != patch * patch {
        return Err(Error::internal(format!(
            "a Gram matrix of patches of {patch} has {} values",
            moments.len()
        )));
    }
    check_finite(moments, 0).map_err(|_nan| {
        Error::numeric(
            "non_finite_activations",
            "the inputs of this layer hold NaN or infinities: the model overflows on the calibration data",
        )
    })
}

/// What one input goes through.
struct Slice {
    /// `[kh·kw, m]`.
    planes: Mat<f64>,
    /// `[O, m]`.
    weights: Mat<f64>,
}

fn slice(
    by_output: &Mat<f64>,
    input: usize,
    plane: usize,
    multiplier: usize,
    moments: Option<&[f32]>,
    stop: Stop<'_>,
) -> Result<Slice> {
    go_on(stop)?;
    let outputs = by_output.ncols();
    let values: Vec<f32> = (0..outputs * plane)
        .map(|at| by_output[(input * plane + at % plane, at / plane)] as f32)
        .collect();
    let whitening = match moments {
        None => Whitening::none(plane),
        Some(moments) => own_moments(moments, by_output.nrows(), input, plane, stop)?,
    };
    let options = Options {
        most: Some(multiplier),
        ..Options::default()
    };
    let found = decompose(&values, outputs, &whitening, &options, stop)?;
    Ok(Slice {
        planes: found.right().to_owned(),
        weights: found.left().to_owned(),
    })
}

/// What weighs the patches of one input; nothing where that input says nothing.
fn own_moments(
    moments: &[f32],
    patch: usize,
    input: usize,
    plane: usize,
    stop: Stop<'_>,
) -> Result<Whitening> {
    let first = input * plane;
    let block: Vec<f32> = (0..plane * plane)
        .map(|at| moments[(first + at / plane) * patch + first + at % plane])
        .collect();
    match Whitening::gram(&block, plane, RIDGE, stop) {
        Err(error) if error.class == Class::Numeric => Ok(Whitening::none(plane)),
        found => found,
    }
}

/// P that minimises ‖(K − PD)X‖ for the planes D: `P = K H Dᵀ (D H Dᵀ)⁻¹`.
fn refit(by_output: &Mat<f64>, slices: &[Slice], moments: &[f32], stop: Stop<'_>) -> Result<Mat<f64>> {
    let patch = by_output.nrows();
    let (plane, multiplier) = slices.first().map_or((1, 1), |slice| slice.planes.shape());
    let channels = slices.len() * multiplier;
    // H is symmetric: a row of it is read for a column.
    let weighed = Mat::from_fn(patch, channels, |row, c| {
        let (input, k) = (c / multiplier, c % multiplier);
        let planes = &slices[input].planes;
        (0..plane)
            .map(|p| f64::from(moments[(input * plane + p) * patch + row]) * planes[(p, k)])
            .sum()
    });
    go_on(stop)?;
    let gram = Mat::from_fn(channels, channels, |a, c| {
        let (input, k) = (a / multiplier, a % multiplier);
        let planes = &slices[input].planes;
        (0..plane)
            .map(|p| planes[(p, k)] * weighed[(input * plane + p, c)])
            .sum()
    });
    let right = product(by_output.transpose(), weighed.as_ref());
    for attempt in 0..ATTEMPTS {
        go_on(stop)?;
        if let Some(found) = divided(right.as_ref(), &gram, RIDGE * 10f64.powi(attempt)) {
            return Ok(found);
        }
    }
    Err(Error::numeric(
        "singular_activations",
        "the moments of this layer's patches are not positive definite, whatever the ridge",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::factor::kernel::Stage;
    use crate::kernels::factor::samples::{correlated_gram, distance, in_pools, never, noise, squared};

    fn found(values: &[f32], shape: [usize; 4], multiplier: usize) -> Chain {
        factorize(&Kernel::new(values, shape).unwrap(), multiplier, None, &never).unwrap()
    }

    fn random([o, i, h, w]: [usize; 4], m: usize, seed: u64) -> Vec<f32> {
        let planes = Stage {
            values: noise(i * m * h * w, seed),
            shape: [i * m, 1, h, w],
            groups: i,
            spans: [true; 2],
        };
        let pointwise = Stage {
            values: noise(o * i * m, seed + 1),
            shape: [o, i * m, 1, 1],
            groups: 1,
            spans: [false; 2],
        };
        Chain {
            stages: vec![planes, pointwise],
            relative_error: 0.0,
        }
        .multiply_out()
        .unwrap()
    }

    #[test]
    fn a_separable_kernel_is_found_again() {
        let shape = [12, 6, 3, 3];
        for m in [1, 2] {
            let chain = found(&random(shape, m, 1), shape, m);
            assert!(chain.relative_error < 1e-6, "{}", chain.relative_error);
            assert_eq!(
                (chain.stages[0].shape, chain.stages[0].groups),
                ([6 * m, 1, 3, 3], 6)
            );
            assert_eq!(
                (chain.stages[1].shape, chain.stages[1].groups),
                ([12, 6 * m, 1, 1], 1)
            );
        }
    }

    #[test]
    fn more_planes_come_nearer_and_no_random_ones_do() {
        let shape = [10, 5, 3, 3];
        let values = noise(10 * 5 * 9, 3);
        let mut before = 1.0;
        for m in 1..=9 {
            let error = found(&values, shape, m).relative_error;
            assert!(error < before, "{m}: {error} {before}");
            before = error;
            assert!(error * error * squared(&values) < distance(&values, &random(shape, m, 40 + m as u64)));
        }
        assert!(before < 1e-6);
        assert_eq!(found(&values, shape, 100).stages[0].shape[0], 45);
    }

    #[test]
    fn what_is_known_of_inputs_brings_outputs_nearer() {
        let shape = [10, 5, 3, 3];
        let values = noise(10 * 5 * 9, 3);
        let moments = correlated_gram(45, 400, 6);
        let kernel = Kernel::new(&values, shape).unwrap();
        let mut before = 1.0;
        for m in 1..=9 {
            let error = |moments_known: Option<&[f32]>| {
                let chain = factorize(&kernel, m, moments_known, &never).unwrap();
                kernel
                    .outputs_error(&chain.multiply_out().unwrap(), &moments)
                    .unwrap()
            };
            let (plain, weighed) = (error(None), error(Some(&moments)));
            assert!(weighed < before, "{m}: {weighed} {before}");
            assert!(weighed < plain || weighed < 1e-5, "{m}: {weighed} {plain}");
            before = weighed;
        }
        assert!(before < 1e-5, "{before}");
    }

    /// No other pointwise weights do better with the planes found: a step in any direction loses.
    #[test]
    fn pointwise_weights_are_the_best_for_the_planes() {
        let values = noise(6 * 4 * 4, 3);
        let moments = correlated_gram(16, 200, 6);
        let kernel = Kernel::new(&values, [6, 4, 2, 2]).unwrap();
        let chain = factorize(&kernel, 2, Some(&moments), &never).unwrap();
        let error = |chain: &Chain| {
            kernel
                .outputs_error(&chain.multiply_out().unwrap(), &moments)
                .unwrap()
        };
        let best = error(&chain);
        for at in 0..chain.stages[1].values.len() {
            for step in [-0.01, 0.01] {
                let mut other = chain.clone();
                other.stages[1].values[at] += step;
                assert!(error(&other) > best, "weight {at}");
            }
        }
    }

    #[test]
    fn degenerate_kernels_and_inputs_have_stages_too() {
        assert_eq!(found(&[0.0; 36], [2, 2, 3, 3], 2).relative_error, 0.0);
        assert!(found(&noise(9, 1), [1, 1, 3, 3], 1).relative_error < 1e-6);
        let values = noise(36, 2);
        let kernel = Kernel::new(&values, [2, 2, 3, 3]).unwrap();
        // One input that never comes.
        let mut moments = vec![0.0; 18 * 18];
        (0..9).for_each(|i| moments[i * 18 + i] = 1.0);
        let chain = factorize(&kernel, 1, Some(&moments), &never).unwrap();
        assert!(
            kernel
                .outputs_error(&chain.multiply_out().unwrap(), &moments)
                .unwrap()
                < 0.95
        );
        factorize(&kernel, 1, Some(&[0.0; 18 * 18]), &never).unwrap();
        let code = |m, moments: Option<&[f32]>| factorize(&kernel, m, moments, &never).unwrap_err().code;
        assert_eq!(code(0, None), "bad_rank");
        assert_eq!(code(1, Some(&[f32::NAN; 18 * 18])), "non_finite_activations");
        assert_eq!(code(1, Some(&[1.0])), "internal");
        assert_eq!(
            factorize(&kernel, 1, None, &|| true).unwrap_err().code,
            "cancelled"
        );
    }

    #[test]
    fn ratios_are_kept_to() {
        assert_eq!(multiplier_for_ratio([64, 48, 3, 3], 0.5), 3);
        assert_eq!(multiplier_for_ratio([64, 48, 3, 3], 0.0), 1);
        assert_eq!(multiplier_for_ratio([64, 48, 3, 3], 9.0), 9);
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let values = noise(40 * 30 * 9, 4);
        let moments = correlated_gram(270, 300, 6);
        let runs = in_pools(|| {
            let kernel = Kernel::new(&values, [40, 30, 3, 3]).unwrap();
            factorize(&kernel, 2, Some(&moments), &never).unwrap()
        });
        assert!(runs.windows(2).all(|two| two[0] == two[1]));
    }
}
