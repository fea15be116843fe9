//! CP: a pointwise convolution, a depthwise one down, a depthwise one across, a pointwise one back.
//!
//! Owns: alternating least squares for the four factors. Must not know: what rank pays.
//! Invariant: the seed gives the start; of several starts the best is gone on with, ties to the first.
//!
//! Lebedev et al., "Speeding-up convolutional neural networks using fine-tuned CP-decomposition", 2015. A best approximation
//! need not exist: components can grow without bound and cancel each other (de Silva and Lim 2008). Columns are normalised after
//! each step and every least-squares problem has a small ridge, which bounds them at a cost of about its size.

use faer::Mat;

use super::dense::{divided, product, squared};
use super::kernel::{Chain, Draft, Kernel, working_bytes as chain_bytes};
use super::randomized::normal;
use super::svd::{Options, leading, working_bytes as svd_bytes};
use super::{Stop, go_on};
use crate::error::{Error, Result};
use crate::kernels::random::Random;

/// Starts: one from the leading directions of the inputs, others random.
const STARTS: usize = 4;
/// Sweeps before starts are compared.
const TRIAL: usize = 12;
/// Most sweeps of the best.
const SWEEPS: usize = 400;
/// Share of the squared norm that a sweep must gain to be followed by another.
const GAIN: f64 = 1e-9;
/// Ridge as a part of the mean diagonal.
const RIDGE: f64 = 1e-7;

/// Rank whose stages have `ratio` of the kernel's parameters; at least 1.
pub fn rank_for_ratio(shape: [usize; 4], ratio: f64) -> usize {
    let whole: f64 = shape.iter().map(|side| *side as f64).product();
    let per_rank: usize = shape.iter().sum();
    ((ratio * whole / per_rank.max(1) as f64) as usize).max(1)
}

/// Bytes that [`factorize`] holds at its peak, beside the kernel.
pub fn working_bytes(shape: [usize; 4], rank: usize) -> u64 {
    let [outputs, inputs, height, width] = shape;
    let patch = inputs * height * width;
    // The kernel; a product of factors or of the kernel with one; factors; Gram matrices and what solving takes.
    let steps = 8 * (outputs * patch + patch * rank + 6 * rank * (outputs + inputs) + 4 * rank * rank) as u64;
    let start =
        2 * 8 * (outputs * patch) as u64 + svd_bytes(inputs, outputs * height * width, &Options::default());
    steps.max(start).max(chain_bytes(shape, rank))
}

/// Stages 1×1 `[R, I]`, kh×1 and 1×kw depthwise `[R, 1, …]`, 1×1 `[O, R]`.
///
/// # Errors
/// `bad_rank` for 0; `cancelled`.
pub fn factorize(kernel: &Kernel<'_>, rank: usize, seed: u64, stop: Stop<'_>) -> Result<Chain> {
    if rank == 0 {
        return Err(Error::bad_input(
            "bad_rank",
            "a rank of 0 keeps nothing: it is at least 1",
        ));
    }
    let found = best(kernel, rank, seed, stop)?;
    let [outputs, inputs, rows, cols] = &found.factors;
    let [_, _, height, width] = kernel.shape();
    let stages = vec![
        Draft::pointwise(inputs.transpose()),
        Draft::new([rank, 1, height, 1], [true, false], |[r, _, h, _]| rows[(h, r)]).grouped(rank),
        Draft::new([rank, 1, 1, width], [false, true], |[r, _, _, w]| cols[(w, r)]).grouped(rank),
        Draft::pointwise(outputs.as_ref()),
    ];
    Chain::of(kernel, stages)
}

/// A model on its way: K is nearly the sum over r of outer products `a_r ∘ b_r ∘ c_r ∘ d_r`.
#[derive(Clone)]
struct Model {
    /// `[O, R]`, `[I, R]`, `[kh, R]`, `[kw, R]`; all but the first have columns of norm 1.
    factors: [Mat<f64>; 4],
    /// Squared error; infinite before the first sweep.
    loss: f64,
}

fn best(kernel: &Kernel<'_>, rank: usize, seed: u64, stop: Stop<'_>) -> Result<Model> {
    let by_output = kernel.by_output();
    let total = squared(by_output.as_ref());
    let solver = Sweeper {
        shape: kernel.shape(),
        by_output: &by_output,
        total,
    };
    let mut random = Random::new(seed);
    let mut best: Option<Model> = None;
    for start in 0..STARTS {
        let mut model = initial(kernel, rank, start == 0, &mut random, stop)?;
        solver.run(&mut model, TRIAL, stop)?;
        if best.as_ref().is_none_or(|best| model.loss < best.loss) {
            best = Some(model);
        }
    }
    let mut best = best.ok_or_else(|| Error::internal("no start of a CP decomposition was tried"))?;
    solver.run(&mut best, SWEEPS, stop)?;
    Ok(best)
}

/// The first factor is found first and needs no start.
fn initial(
    kernel: &Kernel<'_>,
    rank: usize,
    led: bool,
    random: &mut Random,
    stop: Stop<'_>,
) -> Result<Model> {
    let mut factors = kernel
        .shape()
        .map(|side| Mat::from_fn(side, rank, |_, _| normal(random)));
    if led {
        let basis = leading(kernel.by_input().transpose(), rank, stop)?.basis;
        for (mut to, from) in factors[1].col_iter_mut().zip(basis.col_iter()) {
            to.copy_from(from);
        }
    }
    for factor in &mut factors {
        normalise(factor);
    }
    Ok(Model {
        factors,
        loss: f64::INFINITY,
    })
}

/// What sweeps read.
struct Sweeper<'a> {
    shape: [usize; 4],
    /// Column o holds (i, h, w).
    by_output: &'a Mat<f64>,
    total: f64,
}

impl Sweeper<'_> {
    fn run(&self, model: &mut Model, sweeps: usize, stop: Stop<'_>) -> Result<()> {
        for _ in 0..sweeps {
            go_on(stop)?;
            let before = model.loss;
            let mut next = model.clone();
            self.sweep(&mut next)?;
            // The ridge makes a step that gains nothing else lose a little.
            if next.loss < before {
                *model = next;
            }
            if before - model.loss <= GAIN * self.total {
                break;
            }
        }
        Ok(())
    }

    /// Each factor in turn is the best for the others.
    fn sweep(&self, model: &mut Model) -> Result<()> {
        let [_, _, height, width] = self.shape;
        let f = &mut model.factors;
        f[0] = solve(
            &gram_without(f, 0),
            &product(self.by_output.transpose(), self.patches(f).as_ref()),
        )?;
        normalise(&mut f[0]);
        let narrow = product(self.by_output.as_ref(), f[0].as_ref());
        f[1] = solve(&gram_without(f, 1), &self.over_planes(&narrow, f))?;
        normalise(&mut f[1]);
        let planes = self.over_inputs(&narrow, f);
        let rank = planes.ncols();
        let rows = Mat::from_fn(height, rank, |h, r| {
            (0..width)
                .map(|w| planes[(h * width + w, r)] * f[3][(w, r)])
                .sum()
        });
        f[2] = solve(&gram_without(f, 2), &rows)?;
        normalise(&mut f[2]);
        let cols = Mat::from_fn(width, rank, |w, r| {
            (0..height)
                .map(|h| planes[(h * width + w, r)] * f[2][(h, r)])
                .sum()
        });
        let gram = gram_without(f, 3);
        f[3] = solve(&gram, &cols)?;
        model.loss = self.loss(&gram, &cols, &f[3]);
        // The size of each component lies with the outputs.
        let norms = normalise(&mut f[3]);
        for (column, norm) in f[0].col_iter_mut().zip(norms) {
            column.iter_mut().for_each(|v| *v *= norm);
        }
        Ok(())
    }

    /// ‖K‖² − 2⟨K, model⟩ + ‖model‖², where the last factor was just found.
    fn loss(&self, gram: &Mat<f64>, inner: &Mat<f64>, last: &Mat<f64>) -> f64 {
        let cross: f64 = (0..last.ncols())
            .map(|r| {
                last.col(r)
                    .iter()
                    .zip(inner.col(r).iter())
                    .map(|(a, b)| a * b)
                    .sum::<f64>()
            })
            .sum();
        let own = product(last.transpose(), last.as_ref());
        let square: f64 = (0..gram.ncols())
            .map(|r| {
                gram.col(r)
                    .iter()
                    .zip(own.col(r).iter())
                    .map(|(a, b)| a * b)
                    .sum::<f64>()
            })
            .sum();
        self.total - 2.0 * cross + square
    }

    /// Khatri–Rao product of all factors but that of the outputs: rows (i, h, w).
    fn patches(&self, f: &[Mat<f64>; 4]) -> Mat<f64> {
        let [_, inputs, height, width] = self.shape;
        Mat::from_fn(inputs * height * width, f[1].ncols(), |row, r| {
            let (i, h, w) = (row / (height * width), row / width % height, row % width);
            f[1][(i, r)] * f[2][(h, r)] * f[3][(w, r)]
        })
    }

    /// Rows (i, h, w) summed over the plane with its factors.
    fn over_planes(&self, narrow: &Mat<f64>, f: &[Mat<f64>; 4]) -> Mat<f64> {
        let [_, inputs, height, width] = self.shape;
        let plane = height * width;
        Mat::from_fn(inputs, narrow.ncols(), |i, r| {
            (0..plane)
                .map(|p| narrow[(i * plane + p, r)] * f[2][(p / width, r)] * f[3][(p % width, r)])
                .sum()
        })
    }

    /// The same rows summed over the inputs with their factor: rows (h, w).
    fn over_inputs(&self, narrow: &Mat<f64>, f: &[Mat<f64>; 4]) -> Mat<f64> {
        let [_, inputs, height, width] = self.shape;
        let plane = height * width;
        Mat::from_fn(plane, narrow.ncols(), |p, r| {
            (0..inputs)
                .map(|i| narrow[(i * plane + p, r)] * f[1][(i, r)])
                .sum()
        })
    }
}

/// Elementwise product of the Gram matrices of all factors but one.
fn gram_without(factors: &[Mat<f64>; 4], without: usize) -> Mat<f64> {
    let rank = factors[0].ncols();
    let mut out = Mat::from_fn(rank, rank, |_, _| 1.0);
    for (_, factor) in factors.iter().enumerate().filter(|(k, _)| *k != without) {
        let gram = product(factor.transpose(), factor.as_ref());
        for (to, from) in out.col_iter_mut().zip(gram.col_iter()) {
            to.iter_mut().zip(from.iter()).for_each(|(to, v)| *to *= v);
        }
    }
    out
}

/// right · (gram + ridge)⁻¹.
fn solve(gram: &Mat<f64>, right: &Mat<f64>) -> Result<Mat<f64>> {
    divided(right.as_ref(), gram, RIDGE).ok_or_else(|| {
        Error::numeric(
            "degenerate_components",
            "components of a CP decomposition cancel each other",
        )
    })
}

/// Makes each column's norm 1 where it is not 0, and says what they were.
fn normalise(factor: &mut Mat<f64>) -> Vec<f64> {
    let mut norms = Vec::with_capacity(factor.ncols());
    for column in factor.col_iter_mut() {
        let norm = column.norm_l2();
        if norm > 0.0 {
            column.iter_mut().for_each(|v| *v /= norm);
        }
        norms.push(norm);
    }
    norms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::factor::samples::{in_pools, never, noise};

    fn found(values: &[f32], shape: [usize; 4], rank: usize, seed: u64) -> Chain {
        factorize(&Kernel::new(values, shape).unwrap(), rank, seed, &never).unwrap()
    }

    /// Σ of outer products of four vectors each.
    fn sum_of_products(shape: [usize; 4], rank: usize, seed: u64) -> Vec<f32> {
        let [o, i, h, w] = shape;
        let side = |side: usize, k: u64| noise(side * rank, seed + k);
        let (a, b, c, d) = (side(o, 0), side(i, 1), side(h, 2), side(w, 3));
        (0..o * i * h * w)
            .map(|at| {
                let (o, i, y, x) = (at / (i * h * w), at / (h * w) % i, at / w % h, at % w);
                (0..rank)
                    .map(|r| a[o * rank + r] * b[i * rank + r] * c[y * rank + r] * d[x * rank + r])
                    .sum()
            })
            .collect()
    }

    #[test]
    fn a_sum_of_few_products_is_found_again() {
        for (shape, rank, seed) in [
            ([12, 10, 3, 3], 1, 1),
            ([12, 10, 3, 3], 3, 20),
            ([9, 16, 5, 3], 4, 300),
        ] {
            let values = sum_of_products(shape, rank, seed);
            let chain = found(&values, shape, rank, 0);
            assert!(
                chain.relative_error < 2e-3,
                "rank {rank}: {}",
                chain.relative_error
            );
            if rank > 1 {
                let less = found(&values, shape, rank - 1, 0).relative_error;
                assert!(less > 20.0 * chain.relative_error, "rank {rank}: {less}");
            }
        }
    }

    #[test]
    fn stages_have_the_shapes_of_convolutions() {
        let chain = found(&noise(6 * 5 * 15, 1), [6, 5, 3, 5], 4, 0);
        let stages: Vec<_> = chain
            .stages
            .iter()
            .map(|s| (s.shape, s.groups, s.spans))
            .collect();
        assert_eq!(
            stages,
            [
                ([4, 5, 1, 1], 1, [false, false]),
                ([4, 1, 3, 1], 4, [true, false]),
                ([4, 1, 1, 5], 4, [false, true]),
                ([6, 4, 1, 1], 1, [false, false]),
            ]
        );
        assert_eq!(rank_for_ratio([64, 48, 3, 3], 0.5), 117);
        assert_eq!(rank_for_ratio([64, 48, 3, 3], 0.0), 1);
    }

    #[test]
    fn more_components_come_nearer() {
        let values = noise(8 * 6 * 9, 5);
        let errors =
            [1, 2, 4, 8, 16, 32, 64].map(|rank| found(&values, [8, 6, 3, 3], rank, 0).relative_error);
        assert!(errors.windows(2).all(|two| two[1] < two[0]), "{errors:?}");
        assert!(errors[6] < 0.1, "{errors:?}");
    }

    /// A tensor without a best approximation of rank 2: a∘a∘b + a∘b∘a + b∘a∘a, which components that cancel approach.
    #[test]
    fn components_that_cancel_stay_bounded() {
        let (a, b) = ([1.0_f32, 0.0], [0.0_f32, 1.0]);
        let values: Vec<f32> = (0..8)
            .map(|at| {
                let (x, y, z) = (at / 4, at / 2 % 2, at % 2);
                a[x] * a[y] * b[z] + a[x] * b[y] * a[z] + b[x] * a[y] * a[z]
            })
            .collect();
        let chain = found(&values, [2, 2, 2, 1], 2, 0);
        assert!(chain.relative_error < 0.2, "{}", chain.relative_error);
        let largest = chain
            .stages
            .iter()
            .flat_map(|s| &s.values)
            .fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest < 100.0, "{largest}");
    }

    #[test]
    fn degenerate_kernels_have_stages_too() {
        assert_eq!(found(&[0.0; 36], [2, 2, 3, 3], 2, 0).relative_error, 0.0);
        assert!(found(&[3.0], [1, 1, 1, 1], 3, 0).relative_error < 1e-6);
        let values = noise(4, 2);
        let kernel = Kernel::new(&values, [2, 2, 1, 1]).unwrap();
        assert_eq!(factorize(&kernel, 0, 0, &never).unwrap_err().code, "bad_rank");
        assert_eq!(factorize(&kernel, 1, 0, &|| true).unwrap_err().code, "cancelled");
    }

    #[test]
    fn the_number_of_threads_changes_no_bit_and_the_seed_gives_the_start() {
        let values = noise(40 * 30 * 9, 4);
        let runs = in_pools(|| found(&values, [40, 30, 3, 3], 20, 7));
        assert!(runs.windows(2).all(|two| two[0] == two[1]));
    }
}
