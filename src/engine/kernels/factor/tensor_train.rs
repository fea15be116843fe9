//! Tensor train: pointwise, kh×1, 1×kw, pointwise, each bond cut where the singular values say.
//!
//! Owns: TT-SVD over the modes (I, kh, kw, O). Must not know: what ranks pay.
//! Invariant: squared errors of cuts add up to at most the squared error of the whole; an asked error is kept to.
//!
//! Oseledets, "Tensor-train decomposition", 2011. Each cut keeps an orthonormal basis and hands what is left on.

use faer::{Mat, MatRef};

use super::dense::{product, squared};
use super::kernel::{Chain, Draft, Kernel, working_bytes as chain_bytes};
use super::svd::{Options, leading, working_bytes as svd_bytes};
use super::{Stop, go_on};
use crate::error::{Error, Result};

/// Steps in which ranks for a ratio are tried.
const STEPS: usize = 1024;

/// Where bonds are cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// Channels of the three bonds; what a bond cannot have, it does not get.
    Ranks([usize; 3]),
    /// The fewest channels whose root squared error is at most so much of the kernel's norm: from 0 to below 1.
    Error(f64),
}

/// Largest ranks of the three bonds.
fn most(shape: [usize; 4]) -> [usize; 3] {
    let [outputs, inputs, height, width] = shape;
    let (first, last) = (
        inputs.min(height * width * outputs),
        outputs.min(inputs * height * width),
    );
    [first, (first * height).min(width * last), last]
}

/// Ranks that bonds get where these are asked.
pub fn attained(shape: [usize; 4], [a, b, c]: [usize; 3]) -> [usize; 3] {
    let [outputs, inputs, height, width] = shape;
    let a = a.min(inputs.min(height * width * outputs));
    let b = b.min((a * height).min(width * outputs));
    [a, b, c.min((b * width).min(outputs))]
}

fn parameters(shape: [usize; 4], [a, b, c]: [usize; 3]) -> usize {
    let [outputs, inputs, height, width] = shape;
    inputs * a + a * height * b + b * width * c + c * outputs
}

/// Ranks in the proportion of the largest, whose stages have at most `ratio` of the kernel's parameters; at least 1.
pub fn ranks_for_ratio(shape: [usize; 4], ratio: f64) -> [usize; 3] {
    let budget = ratio * shape.iter().map(|side| *side as f64).product::<f64>();
    let ranks = |step: usize| most(shape).map(|rank| (rank * step / STEPS).max(1));
    let fits = |step: &usize| parameters(shape, ranks(*step)) as f64 <= budget;
    ranks((1..=STEPS).rev().find(fits).unwrap_or(0))
}

/// Bytes that [`factorize`] holds at its peak, beside the kernel.
pub fn working_bytes(shape: [usize; 4]) -> u64 {
    let [outputs, inputs, height, width] = shape;
    let options = Options::default();
    let [a, b, c] = most(shape);
    let cut = |rows, cols| svd_bytes(rows, cols, &options);
    let cuts = cut(inputs, height * width * outputs)
        .max(cut(a * height, width * outputs))
        .max(cut(b * width, outputs));
    // The matrix that is cut, and the one it was gathered from.
    let found = 2 * 8 * (outputs * inputs * height * width) as u64 + cuts;
    found.max(chain_bytes(shape, a.max(b).max(c)))
}

/// Stages 1×1 `[r₁, I]`, kh×1 `[r₂, r₁]`, 1×kw `[r₃, r₂]`, 1×1 `[O, r₃]`.
///
/// # Errors
/// `bad_rank`, `bad_error`; `cancelled`.
pub fn factorize(kernel: &Kernel<'_>, cut: Cut, stop: Stop<'_>) -> Result<Chain> {
    check(cut)?;
    let [outputs, _, height, width] = kernel.shape();
    let plane = height * width;
    let whole = kernel.by_input();
    let share = match cut {
        Cut::Error(error) => error * error * squared(whole.as_ref()) / 3.0,
        Cut::Ranks(_) => 0.0,
    };
    let rank = |bond: usize| match cut {
        Cut::Ranks(ranks) => Bond::Rank(ranks[bond]),
        Cut::Error(_) => Bond::Loss(share),
    };
    // Rows (o, h, w), a column for each input.
    let first = bond(whole.transpose(), rank(0), stop)?;
    let rest = product(whole.as_ref(), first.as_ref());
    drop(whole);
    let tall = Mat::from_fn(first.ncols() * height, width * outputs, |row, col| {
        let (r, h, w, o) = (row / height, row % height, col / outputs, col % outputs);
        rest[(o * plane + h * width + w, r)]
    });
    let second = bond(tall.as_ref(), rank(1), stop)?;
    let rest = product(second.transpose(), tall.as_ref());
    let tall = Mat::from_fn(second.ncols() * width, outputs, |row, o| {
        rest[(row / width, row % width * outputs + o)]
    });
    let third = bond(tall.as_ref(), rank(2), stop)?;
    let last = product(tall.transpose(), third.as_ref());
    let (a, b, c) = (first.ncols(), second.ncols(), third.ncols());
    let stages = vec![
        Draft::pointwise(first.transpose()),
        Draft::new([b, a, height, 1], [true, false], |[s, r, h, _]| {
            second[(r * height + h, s)]
        }),
        Draft::new([c, b, 1, width], [false, true], |[t, s, _, w]| {
            third[(s * width + w, t)]
        }),
        Draft::pointwise(last.as_ref()),
    ];
    Chain::of(kernel, stages)
}

fn check(cut: Cut) -> Result<()> {
    match cut {
        Cut::Ranks(ranks) if ranks.contains(&0) => Err(Error::bad_input(
            "bad_rank",
            "a rank of 0 keeps nothing: it is at least 1",
        )),
        Cut::Error(error) if !(0.0..1.0).contains(&error) => Err(Error::bad_input(
            "bad_error",
            format!("error {error} is no share from 0 to below 1"),
        )),
        _ => Ok(()),
    }
}

/// How one bond is cut.
#[derive(Clone, Copy)]
enum Bond {
    Rank(usize),
    /// Squared error allowed.
    Loss(f64),
}

/// Orthonormal columns that are kept of a bond's left side.
fn bond(y: MatRef<'_, f64>, cut: Bond, stop: Stop<'_>) -> Result<Mat<f64>> {
    go_on(stop)?;
    let most = match cut {
        Bond::Rank(rank) => rank,
        Bond::Loss(_) => y.nrows().min(y.ncols()),
    };
    let found = leading(y, most, stop)?;
    let kept = match cut {
        Bond::Rank(_) => found.basis.ncols(),
        Bond::Loss(allowed) => {
            let enough = found.losses.iter().position(|loss| *loss <= allowed);
            enough
                .unwrap_or(found.basis.ncols())
                .clamp(1, found.basis.ncols())
        }
    };
    Ok(found.basis.subcols(0, kept).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::factor::kernel::Stage;
    use crate::kernels::factor::samples::{in_pools, never, noise};
    use proptest::prelude::*;

    fn found(values: &[f32], shape: [usize; 4], cut: Cut) -> Chain {
        factorize(&Kernel::new(values, shape).unwrap(), cut, &never).unwrap()
    }

    /// What stages of these ranks multiply out to.
    fn train(shape: [usize; 4], [a, b, c]: [usize; 3], seed: u64) -> Vec<f32> {
        let [o, i, h, w] = shape;
        let shapes = [[a, i, 1, 1], [b, a, h, 1], [c, b, 1, w], [o, c, 1, 1]];
        let stage = |(at, shape): (usize, [usize; 4])| Stage {
            values: noise(shape.iter().product(), seed + at as u64),
            shape,
            groups: 1,
            spans: [false; 2],
        };
        Chain {
            stages: shapes.into_iter().enumerate().map(stage).collect(),
            relative_error: 0.0,
        }
        .multiply_out()
        .unwrap()
    }

    #[test]
    fn a_train_is_found_again_with_its_ranks() {
        let (shape, ranks) = ([12, 10, 3, 5], [3, 4, 2]);
        let values = train(shape, ranks, 1);
        assert!(found(&values, shape, Cut::Ranks(ranks)).relative_error < 1e-6);
        let by_error = found(&values, shape, Cut::Error(1e-5));
        let bonds: Vec<usize> = by_error.stages[..3].iter().map(|stage| stage.shape[0]).collect();
        assert_eq!(bonds, ranks);
        assert!(found(&values, shape, Cut::Ranks([3, 3, 2])).relative_error > 0.01);
    }

    #[test]
    fn stages_have_the_shapes_of_convolutions() {
        let chain = found(&noise(6 * 5 * 15, 1), [6, 5, 3, 5], Cut::Ranks([2, 3, 4]));
        let shapes: Vec<[usize; 4]> = chain.stages.iter().map(|stage| stage.shape).collect();
        assert_eq!(shapes, [[2, 5, 1, 1], [3, 2, 3, 1], [4, 3, 1, 5], [6, 4, 1, 1]]);
    }

    #[test]
    fn ratios_are_kept_to() {
        for ratio in [0.1, 0.5, 0.9] {
            let shape = [64, 48, 3, 3];
            let taken = parameters(shape, ranks_for_ratio(shape, ratio)) as f64 / (64.0 * 48.0 * 9.0);
            assert!(taken <= ratio && taken > 0.9 * ratio, "{taken}");
        }
        assert_eq!(ranks_for_ratio([4, 4, 3, 3], 0.0), [1; 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn an_asked_error_is_kept_to(
            (o, i) in (1_usize..10, 1_usize..10),
            (h, w) in (1_usize..4, 1_usize..4),
            seed in any::<u64>(),
            error in 0.0_f64..0.95,
        ) {
            let values = noise(o * i * h * w, seed);
            let chain = found(&values, [o, i, h, w], Cut::Error(error));
            prop_assert!(chain.relative_error <= error + 1e-6, "{} {}", chain.relative_error, error);
            let whole = found(&values, [o, i, h, w], Cut::Ranks([1000; 3]));
            prop_assert!(whole.relative_error < 1e-6);
            let one = found(&values, [o, i, h, w], Cut::Ranks([1; 3]));
            prop_assert!(one.relative_error <= 1.0 + 1e-6 && one.relative_error >= whole.relative_error - 1e-6);
        }
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let values = noise(6, 2);
        let kernel = Kernel::new(&values, [2, 3, 1, 1]).unwrap();
        let code = |cut| factorize(&kernel, cut, &never).unwrap_err().code;
        assert_eq!(code(Cut::Ranks([1, 0, 1])), "bad_rank");
        assert_eq!(code(Cut::Error(1.0)), "bad_error");
        assert_eq!(code(Cut::Error(f64::NAN)), "bad_error");
        assert_eq!(
            factorize(&kernel, Cut::Error(0.1), &|| true).unwrap_err().code,
            "cancelled"
        );
        assert_eq!(
            found(&[0.0; 36], [2, 2, 3, 3], Cut::Error(0.1)).parameters(),
            2 + 3 + 3 + 2
        );
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let values = noise(70 * 60 * 9, 4);
        let runs = in_pools(|| found(&values, [70, 60, 3, 3], Cut::Ranks([20, 30, 20])));
        assert!(runs.windows(2).all(|two| two[0] == two[1]));
    }
}
