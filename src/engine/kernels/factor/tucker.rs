//! Tucker-2: a pointwise convolution to fewer channels, a small kernel between them, a pointwise one back.
//!
//! Owns: the two subspaces of channels. Must not know: how many channels pay.
//! Invariant: iterations never lose fit; the starting point is that of the higher-order SVD.
//!
//! Kim et al., "Compression of deep convolutional neural networks for fast and low power mobile applications", 2016; the
//! iterations are HOOI (De Lathauwer, De Moor and Vandewalle 2000): each side's subspace is made best for the other's.

use faer::{Mat, MatRef};

use super::dense::{product, squared};
use super::kernel::{Chain, Draft, Kernel, working_bytes as chain_bytes};
use super::svd::{Options, leading, working_bytes as svd_bytes};
use super::{Stop, go_on};
use crate::error::{Error, Result};

/// Most iterations.
const ITERATIONS: usize = 50;
/// Share of the squared norm that an iteration must gain to be followed by another.
const GAIN: f64 = 1e-7;

/// Channels between the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// After the small kernel.
    pub outputs: usize,
    /// Before it.
    pub inputs: usize,
}

/// Ranks in the proportion of the channels, whose stages have `ratio` of the kernel's parameters; from 1 to the channels.
pub fn ranks_for_ratio(shape: [usize; 4], ratio: f64) -> Ranks {
    let [outputs, inputs, height, width] = shape.map(|side| side as f64);
    // β²·O·I·P + β·(O² + I²) = ratio·O·I·P.
    let (square, linear) = (
        outputs * inputs * height * width,
        outputs * outputs + inputs * inputs,
    );
    let root = (linear * linear + 4.0 * square * square * ratio.max(0.0)).sqrt();
    let share = (root - linear) / (2.0 * square).max(1.0);
    let rank = |side: f64| ((share * side) as usize).clamp(1, (side as usize).max(1));
    Ranks {
        outputs: rank(outputs),
        inputs: rank(inputs),
    }
}

/// Ranks that are got where these are asked: neither side has more directions than its channels, or than the other side's
/// channels times the plane.
pub fn attained(shape: [usize; 4], ranks: Ranks) -> Ranks {
    let [outputs, inputs, height, width] = shape;
    let plane = height * width;
    let first = ranks.outputs.min(outputs.min(inputs * plane));
    let inputs = ranks.inputs.min(inputs.min(first * plane));
    Ranks {
        outputs: first.min(inputs * plane),
        inputs,
    }
}

/// Bytes that [`factorize`] holds at its peak, beside the kernel.
pub fn working_bytes(shape: [usize; 4], ranks: Ranks) -> u64 {
    let [outputs, inputs, height, width] = shape;
    let plane = height * width;
    let options = Options::default();
    let decomposed =
        svd_bytes(outputs, inputs * plane, &options).max(svd_bytes(inputs, outputs * plane, &options));
    // The kernel unfolded both ways, beside a decomposition of one.
    let found = 2 * 8 * (outputs * inputs * plane) as u64 + decomposed;
    found.max(chain_bytes(shape, ranks.outputs.max(ranks.inputs)))
}

/// Stages 1×1 `[r_i, I]`, kh×kw `[r_o, r_i]`, 1×1 `[O, r_o]`; ranks beyond the channels are those.
pub fn factorize(kernel: &Kernel<'_>, ranks: Ranks, stop: Stop<'_>) -> Result<Chain> {
    let found = subspaces(kernel, ranks, ITERATIONS, stop)?;
    let [_, _, height, width] = kernel.shape();
    let (r_out, r_in) = (found.outputs.ncols(), found.inputs.ncols());
    let core = &found.core;
    let between = Draft::new([r_out, r_in, height, width], [true; 2], |[o, i, h, w]| {
        core[(i * height * width + h * width + w, o)]
    });
    let stages = vec![
        Draft::pointwise(found.inputs.transpose()),
        between,
        Draft::pointwise(found.outputs.as_ref()),
    ];
    Chain::of(kernel, stages)
}

struct Subspaces {
    /// `[O, r_o]`, orthonormal.
    outputs: Mat<f64>,
    /// `[I, r_i]`, orthonormal.
    inputs: Mat<f64>,
    /// Column o holds (i, h, w).
    core: Mat<f64>,
}

fn subspaces(kernel: &Kernel<'_>, ranks: Ranks, iterations: usize, stop: Stop<'_>) -> Result<Subspaces> {
    if ranks.outputs == 0 || ranks.inputs == 0 {
        return Err(Error::bad_input(
            "bad_rank",
            "a rank of 0 keeps nothing: it is at least 1",
        ));
    }
    let plane = kernel.plane();
    let (by_output, by_input) = (kernel.by_output(), kernel.by_input());
    let total = squared(by_output.as_ref());
    let mut outputs = leading(by_output.transpose(), ranks.outputs, stop)?.basis;
    let mut inputs = leading(by_input.transpose(), ranks.inputs, stop)?.basis;
    let mut narrow = narrowed(by_input.as_ref(), &inputs, plane);
    let mut fit = squared(product(narrow.as_ref(), outputs.as_ref()).as_ref());
    for _ in 0..iterations {
        go_on(stop)?;
        let next_outputs = leading(narrow.transpose(), ranks.outputs, stop)?.basis;
        let other = narrowed(by_output.as_ref(), &next_outputs, plane);
        let next_inputs = leading(other.transpose(), ranks.inputs, stop)?.basis;
        let next_narrow = narrowed(by_input.as_ref(), &next_inputs, plane);
        let next = squared(product(next_narrow.as_ref(), next_outputs.as_ref()).as_ref());
        if next <= fit {
            break;
        }
        (outputs, inputs, narrow) = (next_outputs, next_inputs, next_narrow);
        let gained = next - fit;
        fit = next;
        if gained <= GAIN * total {
            break;
        }
    }
    let core = product(narrow.as_ref(), outputs.as_ref());
    Ok(Subspaces {
        outputs,
        inputs,
        core,
    })
}

/// Of an unfolding whose columns are one side's channels and whose rows are (other channel, plane), that side's channels
/// narrowed to a subspace, unfolded by the other channel: column a holds (r, plane).
fn narrowed(unfolded: MatRef<'_, f64>, subspace: &Mat<f64>, plane: usize) -> Mat<f64> {
    let narrow = product(unfolded, subspace.as_ref());
    let (others, rank) = (narrow.nrows() / plane, narrow.ncols());
    Mat::from_fn(rank * plane, others, |row, a| {
        narrow[(a * plane + row % plane, row / plane)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::factor::samples::{in_pools, multiply, never, noise};
    use proptest::prelude::*;

    fn ranks(outputs: usize, inputs: usize) -> Ranks {
        Ranks { outputs, inputs }
    }

    fn error(values: &[f32], shape: [usize; 4], ranks: Ranks) -> f64 {
        factorize(&Kernel::new(values, shape).unwrap(), ranks, &never)
            .unwrap()
            .relative_error
    }

    #[test]
    fn a_kernel_of_low_rank_is_found_again() {
        let (o, r_o, r_i, i) = (10, 3, 2, 8);
        // [O, r_o] · [r_o, r_i · P], then each plane's inputs from r_i to I.
        let core = multiply(&noise(o * r_o, 1), &noise(r_o * r_i * 9, 2), r_o);
        let wide = noise(i * r_i, 3);
        let values: Vec<f32> = (0..o * i * 9)
            .map(|at| {
                let (a, b, p) = (at / (i * 9), at / 9 % i, at % 9);
                (0..r_i)
                    .map(|r| wide[b * r_i + r] * core[(a * r_i + r) * 9 + p])
                    .sum()
            })
            .collect();
        assert!(error(&values, [o, i, 3, 3], ranks(r_o, r_i)) < 1e-6);
        assert!(
            error(&values, [o, i, 3, 3], ranks(r_o + 2, r_i + 2)) < 1e-6,
            "more does no harm"
        );
        assert!(error(&values, [o, i, 3, 3], ranks(r_o - 1, r_i)) > 0.05);
    }

    #[test]
    fn stages_have_the_shapes_of_convolutions() {
        let values = noise(12 * 8 * 15, 1);
        let chain = factorize(&Kernel::new(&values, [12, 8, 3, 5]).unwrap(), ranks(4, 3), &never).unwrap();
        let shapes: Vec<[usize; 4]> = chain.stages.iter().map(|stage| stage.shape).collect();
        assert_eq!(shapes, [[3, 8, 1, 1], [4, 3, 3, 5], [12, 4, 1, 1]]);
        assert_eq!(chain.parameters(), 24 + 180 + 48);
        assert_eq!(chain.stages[1].spans, [true; 2]);
    }

    #[test]
    fn ratios_are_kept_to() {
        for ratio in [0.05, 0.3, 0.9] {
            let found = ranks_for_ratio([64, 48, 3, 3], ratio);
            let (o, i) = (found.outputs, found.inputs);
            let parameters = 64 * o + 48 * i + 9 * o * i;
            let allowed = ratio * (64.0 * 48.0 * 9.0);
            assert!(
                parameters as f64 <= allowed && parameters as f64 > 0.8 * allowed,
                "{found:?}"
            );
        }
        assert_eq!(ranks_for_ratio([64, 48, 3, 3], 0.0), ranks(1, 1));
        assert_eq!(ranks_for_ratio([64, 48, 3, 3], 9.0), ranks(64, 48));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn iterations_never_lose_fit_and_ranks_never_add_error(
            (o, i) in (2_usize..9, 2_usize..9),
            (h, w) in (1_usize..4, 1_usize..4),
            seed in any::<u64>(),
        ) {
            let values = noise(o * i * h * w, seed);
            let kernel = Kernel::new(&values, [o, i, h, w]).unwrap();
            let fit = |iterations| {
                squared(subspaces(&kernel, ranks(2, 2), iterations, &never).unwrap().core.as_ref())
            };
            let (start, end) = (fit(0), fit(ITERATIONS));
            prop_assert!(end >= start * (1.0 - 1e-12), "{} {}", start, end);
            let total = squared(kernel.by_output().as_ref());
            // What the core holds is what the kernel has lost: both bases are orthonormal.
            let found = error(&values, [o, i, h, w], ranks(2, 2));
            prop_assert!((found * found - (1.0 - end / total).max(0.0)).abs() < 1e-5);
            let mut before = f64::INFINITY;
            for rank in 1..=o.max(i) {
                let found = error(&values, [o, i, h, w], ranks(rank, rank));
                prop_assert!(found <= before + 1e-2, "rank {}: {} {}", rank, found, before);
                before = found;
            }
            prop_assert!(before < 1e-6, "all channels lose nothing: {}", before);
        }
    }

    #[test]
    fn degenerate_kernels_have_stages_too() {
        assert_eq!(error(&[0.0; 36], [2, 2, 3, 3], ranks(1, 2)), 0.0);
        assert!(error(&noise(9, 1), [1, 1, 3, 3], ranks(5, 5)) < 1e-6);
        let values = noise(6, 2);
        let kernel = Kernel::new(&values, [2, 3, 1, 1]).unwrap();
        assert_eq!(
            factorize(&kernel, ranks(0, 1), &never).unwrap_err().code,
            "bad_rank"
        );
        assert_eq!(
            factorize(&kernel, ranks(1, 1), &|| true).unwrap_err().code,
            "cancelled"
        );
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let values = noise(70 * 60 * 9, 4);
        let found = in_pools(|| {
            factorize(
                &Kernel::new(&values, [70, 60, 3, 3]).unwrap(),
                ranks(20, 15),
                &never,
            )
            .unwrap()
        });
        assert!(found.windows(2).all(|two| two[0] == two[1]));
    }
}
