//! A kernel down, then one across.
//!
//! Owns: the matrix whose decomposition that is. Must not know: what rank pays.
//! Invariant: no pair of such stages with as many channels between them is nearer.
//!
//! Jaderberg, Vedaldi and Zisserman, "Speeding up convolutional neural networks with low rank expansions", 2014, scheme 2;
//! the closed form is that of Tai et al. 2016: the decomposition of the kernel as a matrix (I, kh) × (O, kw).

use faer::Mat;

use super::kernel::{Chain, Draft, Kernel, working_bytes as chain_bytes};
use super::svd::{Options, of_dense, working_bytes as svd_bytes};
use super::{Stop, Truncation};
use crate::error::Result;

/// Bytes that [`factorize`] holds at its peak, beside the kernel.
pub fn working_bytes(shape: [usize; 4], truncation: Truncation, options: &Options) -> u64 {
    let [outputs, inputs, height, width] = shape;
    let (rows, cols) = (inputs * height, outputs * width);
    let found = 8 * (rows * cols) as u64 + svd_bytes(rows, cols, &options.up_to(truncation, rows, cols));
    found.max(chain_bytes(shape, truncation.most(rows, cols)))
}

/// Stages kh×1 `[r, I]` and 1×kw `[O, r]`. A ratio is one of the kernel's parameters.
pub fn factorize(
    kernel: &Kernel<'_>,
    truncation: Truncation,
    options: &Options,
    stop: Stop<'_>,
) -> Result<Chain> {
    truncation.check()?;
    let [outputs, inputs, height, width] = kernel.shape();
    let by_output = kernel.by_output();
    let (rows, cols) = (inputs * height, outputs * width);
    // Columns (o, w), rows (i, h).
    let matrix = Mat::from_fn(rows, cols, |row, col| {
        by_output[(row * width + col % width, col / width)]
    });
    drop(by_output);
    let found = of_dense(matrix.as_ref(), &options.up_to(truncation, rows, cols), stop)?;
    let rank = truncation
        .rank(rows, cols, &found.losses())
        .min(found.left().ncols());
    let (left, right) = (found.left(), found.right());
    let stages = vec![
        Draft::new([rank, inputs, height, 1], [true, false], |[r, i, h, _]| {
            left[(i * height + h, r)]
        }),
        Draft::new([outputs, rank, 1, width], [false, true], |[o, r, _, w]| {
            right[(o * width + w, r)]
        }),
    ];
    Chain::of(kernel, stages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::factor::kernel::Stage;
    use crate::kernels::factor::samples::{distance, in_pools, never, noise, squared};

    fn found(values: &[f32], shape: [usize; 4], truncation: Truncation) -> Chain {
        let kernel = Kernel::new(values, shape).unwrap();
        factorize(&kernel, truncation, &Options::default(), &never).unwrap()
    }

    fn random(shape: [usize; 4], rank: usize, seed: u64) -> Chain {
        let [o, i, h, w] = shape;
        let stage = |shape: [usize; 4], seed| Stage {
            values: noise(shape.iter().product(), seed),
            shape,
            groups: 1,
            spans: [shape[2] > 1, shape[3] > 1],
        };
        Chain {
            stages: vec![stage([rank, i, h, 1], seed), stage([o, rank, 1, w], seed + 1)],
            relative_error: 0.0,
        }
    }

    #[test]
    fn a_pair_of_stages_is_found_again() {
        let shape = [10, 8, 3, 5];
        let values = random(shape, 4, 1).multiply_out().unwrap();
        let chain = found(&values, shape, Truncation::Rank(4));
        assert!(chain.relative_error < 1e-6, "{}", chain.relative_error);
        assert_eq!(chain.stages[0].shape, [4, 8, 3, 1]);
        assert_eq!(chain.stages[1].shape, [10, 4, 1, 5]);
        assert_eq!(
            (chain.stages[0].spans, chain.stages[1].spans),
            ([true, false], [false, true])
        );
        assert_eq!(
            found(&values, shape, Truncation::Energy(0.999_999)).stages[0].shape[0],
            4
        );
    }

    #[test]
    fn more_channels_come_nearer_and_no_random_pair_does() {
        let shape = [7, 6, 3, 3];
        let values = noise(7 * 6 * 9, 3);
        let mut before = 1.0;
        for rank in 1..=18 {
            let error = found(&values, shape, Truncation::Rank(rank)).relative_error;
            assert!(error < before, "rank {rank}: {error} {before}");
            before = error;
            let other = random(shape, rank, 50 + rank as u64).multiply_out().unwrap();
            assert!(error * error * squared(&values) < distance(&values, &other));
        }
        assert!(before < 1e-6);
    }

    #[test]
    fn ratios_count_the_parameters_of_the_kernel() {
        let values = noise(32 * 24 * 9, 3);
        let chain = found(&values, [32, 24, 3, 3], Truncation::Ratio(0.5));
        let share = chain.parameters() as f64 / values.len() as f64;
        assert!(share <= 0.5 && share > 0.45, "{share}");
    }

    #[test]
    fn degenerate_kernels_have_stages_too() {
        assert_eq!(
            found(&[0.0; 36], [2, 2, 3, 3], Truncation::Rank(2)).relative_error,
            0.0
        );
        let pointwise = noise(12, 1);
        assert!(found(&pointwise, [4, 3, 1, 1], Truncation::Rank(9)).relative_error < 1e-6);
        let kernel = Kernel::new(&pointwise, [4, 3, 1, 1]).unwrap();
        let refused = factorize(&kernel, Truncation::Rank(0), &Options::default(), &never).unwrap_err();
        assert_eq!(refused.code, "bad_rank");
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let values = noise(70 * 60 * 9, 4);
        let runs = in_pools(|| found(&values, [70, 60, 3, 3], Truncation::Rank(30)));
        assert!(runs.windows(2).all(|two| two[0] == two[1]));
    }
}
