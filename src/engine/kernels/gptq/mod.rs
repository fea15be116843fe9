//! Rounding with error compensation: GPTQ (Frantar et al. 2022), an optimal brain surgeon that quantizes.
//!
//! Owns: the solve for one matrix. Must not know: where its Hessian comes from.
//! Invariant: rows are independent given the Hessian, so the bits do not depend on the number of threads.

mod curvature;

use super::affine::{Grid, Spec, assemble};
use super::linalg::{Into, View, product};
use super::{check_finite, wide};
use crate::error::{Error, Result};
use crate::weight::{Affine, Granularity};
use rayon::prelude::*;

pub use curvature::Curvature;

/// Most columns whose errors are carried on together.
const BLOCK: usize = 128;
/// Rows that one task solves: every task packs the factor for itself.
const ROWS: usize = 96;

/// In which order columns are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActOrder {
    /// As they lie; a group's grid is chosen when it is reached, from weights that already carry errors.
    None,
    /// By falling diagonal of the Hessian; grids are chosen before, so the layout stays that of plain groups.
    Static,
    /// By falling diagonal of the Hessian; groups follow that order too, so that each column's group must be stored.
    Group,
}

/// How a matrix is rounded.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Order of the columns.
    pub act_order: ActOrder,
    /// What is zero stays zero, whatever errors it is to make up for: a pruned matrix keeps its pattern.
    pub keeps_zeros: bool,
}

/// Bytes that solving for a matrix of `elements` with `n` inputs takes at most: its Hessian whole, the f64 matrix that
/// becomes the factor, and the factor; then the weights, what they are compensated to, their codes, and
/// which were zero.
pub fn working_bytes(n: usize, elements: usize) -> u64 {
    (n * n * (4 + 8 + 4) + 11 * elements) as u64
}

/// The quantized matrix and what it costs.
#[derive(Clone, Debug)]
pub struct Solved {
    /// The weight.
    pub weight: Affine,
    /// What each element was when it was rounded: the weight and all errors that it makes up for.
    pub compensated: Vec<f32>,
    /// Σ (error / `U_jj)²` / 2 over all elements: the predicted loss.
    pub loss: f64,
}

/// Quantizes `w` of `[rows, n]`, row-major.
pub fn solve(
    mut w: Vec<f32>,
    curvature: &Curvature,
    how: How,
    spec: &Spec,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Solved> {
    let act_order = how.act_order;
    let n = curvature.n;
    let rows = w.len() / n.max(1);
    check_finite(&w, 0)?;
    let (groups, _) = spec.granularity.groups(n);
    if spec.granularity == Granularity::Tensor {
        return Err(Error::internal("gptq was planned with one scale for a tensor"));
    }
    let mut codes = vec![0u8; w.len()];
    let mut grids = vec![Grid { scale: 1.0, zero: 0 }; rows * groups];
    let work = codes
        .par_chunks_mut(ROWS * n)
        .zip(grids.par_chunks_mut(ROWS * groups))
        .zip(w.par_chunks_mut(ROWS * n));
    let losses: Vec<f64> = work
        .map(|((codes, grids), w)| {
            if stop() {
                return Err(Error::cancelled());
            }
            let mut task = Task {
                curvature,
                act_order,
                keeps_zeros: how.keeps_zeros,
                spec,
                codes,
                grids,
                w,
            };
            Ok(task.run())
        })
        .collect::<Result<_>>()?;
    let mut weight = assemble(spec, codes, n, &grids)?;
    weight.g_idx = groups_of(curvature, act_order, spec.granularity);
    Ok(Solved {
        weight,
        compensated: w,
        loss: losses.iter().sum(),
    })
}

/// Group of each column, where groups do not lie in order.
fn groups_of(curvature: &Curvature, act_order: ActOrder, granularity: Granularity) -> Vec<u32> {
    let (groups, size) = granularity.groups(curvature.n);
    if act_order != ActOrder::Group || groups == 1 {
        return Vec::new();
    }
    let mut g_idx: Vec<u32> = (0..curvature.n).map(|i| (i / size) as u32).collect();
    // Where nothing is known of the inputs, weights are rounded to nearest in groups as they lie.
    if curvature.is_usable() {
        for (at, column) in curvature.order.iter().enumerate() {
            g_idx[*column as usize] = (at / size) as u32;
        }
    }
    g_idx
}

/// Columns of a block: groups and blocks fit into each other, so that no group begins in the middle of a block and ends
/// beyond it, where errors of the block have not arrived yet.
fn block_of(size: usize) -> usize {
    (1..=BLOCK)
        .rev()
        .find(|block| size.is_multiple_of(*block) || block.is_multiple_of(size))
        .unwrap_or(1)
}

/// A few rows.
struct Task<'a> {
    curvature: &'a Curvature,
    act_order: ActOrder,
    keeps_zeros: bool,
    spec: &'a Spec,
    codes: &'a mut [u8],
    grids: &'a mut [Grid],
    w: &'a mut [f32],
}

impl Task<'_> {
    fn run(&mut self) -> f64 {
        let n = self.curvature.n;
        let (groups, size) = self.spec.granularity.groups(n);
        let early = self.act_order == ActOrder::Static || groups == 1 || self.curvature.factor.is_none();
        if early {
            for (row, grids) in self.w.chunks(n).zip(self.grids.chunks_mut(groups)) {
                for (g, grid) in grids.iter_mut().enumerate() {
                    let at = g * size..(g + 1) * size;
                    *grid = self
                        .spec
                        .fit_weighted(&row[at.clone()], &self.curvature.importance[at]);
                }
            }
        }
        match &self.curvature.factor {
            Some(factor) => self.compensate(factor, early),
            None => self.round(),
        }
    }

    /// Rounding to nearest, where there is nothing to compensate with.
    fn round(&mut self) -> f64 {
        let n = self.curvature.n;
        let (groups, size) = self.spec.granularity.groups(n);
        for (r, row) in self.w.chunks(n).enumerate() {
            for (i, value) in row.iter().enumerate() {
                let grid = self.grids[r * groups + i / size];
                self.codes[r * n + i] = self.spec.code(*value, grid) as u8;
            }
        }
        0.0
    }

    /// Where what is zero stays so: 1 for each weight that is, in the order of columns.
    fn zeros(&self, w: &[f32]) -> Vec<u8> {
        if self.keeps_zeros {
            w.iter().map(|w| u8::from(*w == 0.0)).collect()
        } else {
            Vec::new()
        }
    }

    fn compensate(&mut self, factor: &[f32], early: bool) -> f64 {
        let n = self.curvature.n;
        let rows = self.w.len() / n;
        let order = &self.curvature.order;
        let mut w: Vec<f32> = Vec::with_capacity(self.w.len());
        for row in self.w.chunks(n) {
            w.extend(order.iter().map(|c| row[*c as usize]));
        }
        let zeros = self.zeros(&w);
        let importance: Vec<f32> = order
            .iter()
            .map(|c| self.curvature.importance[*c as usize])
            .collect();
        let grids = if early { None } else { Some(importance.as_slice()) };
        let block = block_of(self.spec.granularity.groups(n).1);
        let mut errors = vec![0f32; rows * block];
        let mut loss = 0f64;
        for start in (0..n).step_by(block) {
            let end = (start + block).min(n);
            round_block(
                self,
                &mut w,
                (&zeros, factor),
                grids,
                (start, end),
                &mut errors,
                &mut loss,
            );
            if end < n {
                let errors = View::rows(&errors, rows, end - start, end - start);
                let u = View::rows(&factor[start * n + end..], end - start, n - end, n);
                product(&mut w[end..], n, Into::Add, errors, u, -1.0);
            }
        }
        for (to, from) in self.w.chunks_mut(n).zip(w.chunks(n)) {
            order.iter().zip(from).for_each(|(c, v)| to[*c as usize] = *v);
        }
        loss
    }

    /// Group of the column at a position of the order.
    #[inline(always)]
    fn group_of(&self, at: usize, size: usize) -> usize {
        match self.act_order {
            ActOrder::Static => self.curvature.order[at] as usize / size,
            ActOrder::None | ActOrder::Group => at / size,
        }
    }
}

wide! {
    /// Columns from one position of the order to another: rounds each and carries its error on to those behind it in the
    /// block; what is zero by the marks beside the factor stays so. Where no grids are chosen yet, each group's is found with this importance when it is reached.
    fn round_block(
        task: &mut Task<'_>,
        w: &mut [f32],
        by: (&[u8], &[f32]),
        grids: Option<&[f32]>,
        span: (usize, usize),
        errors: &mut [f32],
        loss: &mut f64,
    ) {
        let n = task.curvature.n;
        let (zeros, factor) = by;
        let (groups, size) = task.spec.granularity.groups(n);
        let (start, end) = span;
        let rows = w.chunks_exact_mut(n).zip(errors.chunks_exact_mut(end - start));
        for (r, (row, errors)) in rows.enumerate() {
            for j in start..end {
                let column = task.curvature.order[j] as usize;
                let at = r * groups + task.group_of(j, size);
                if let Some(importance) = grids && j % size == 0 {
                    let until = (j + size).min(n);
                    let mut group = row[j..until].to_vec();
                    for (w, zero) in group.iter_mut().zip(zeros.get(r * n + j..r * n + until).unwrap_or_default()) {
                        *w = if *zero == 1 { 0.0 } else { *w };
                    }
                    task.grids[at] = task.spec.fit_weighted(&group, &importance[j..until]);
                }
                let grid = task.grids[at];
                let wanted = if zeros.get(r * n + j) == Some(&1) { 0.0 } else { row[j] };
                let code = task.spec.code(wanted, grid);
                task.codes[r * n + column] = code as u8;
                let value = task.spec.value(code, grid);
                let u = &factor[j * n..(j + 1) * n];
                let error = (row[j] - value) / u[j];
                *loss += f64::from(error) * f64::from(error) / 2.0;
                errors[j - start] = error;
                for (w, u) in row[j + 1..end].iter_mut().zip(&u[j + 1..end]) {
                    *w -= error * u;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::affine::{self, Range};
    use crate::tensor::{DType, MemoryRows, Rows};

    const ROWS: usize = 40;
    const COLS: usize = 256;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n).map(|_| (0..6).map(|_| next()).sum()).collect()
    }

    /// Inputs whose columns are correlated and of different sizes.
    fn inputs(rows: usize) -> Vec<f32> {
        let base = noise(rows * COLS, 7);
        let mut x = vec![0.0; rows * COLS];
        for r in 0..rows {
            for c in 0..COLS {
                let before = if c > 0 { x[r * COLS + c - 1] } else { 0.0 };
                x[r * COLS + c] = 0.8 * before + base[r * COLS + c] * (1.0 + (c % 7) as f32);
            }
        }
        x
    }

    fn gram(x: &[f32]) -> Vec<f32> {
        let mut gram = crate::kernels::linalg::Gram::new(COLS);
        gram.add(x, crate::kernels::linalg::Precision::Full);
        gram.into_full()
    }

    fn spec(size: usize) -> Spec {
        Spec {
            n_bits: 4,
            symmetric: true,
            granularity: Granularity::Group(size),
            scale_dtype: DType::F32,
            range: Range::Mse,
            signed_scales: false,
        }
    }

    fn how(act_order: ActOrder) -> How {
        How {
            act_order,
            keeps_zeros: false,
        }
    }

    /// Σ (x · (w − ŵ))² over all inputs.
    fn output_error(x: &[f32], w: &[f32], weight: &Affine) -> f64 {
        let mut back = vec![0.0; w.len()];
        weight.read(0, &mut back).unwrap();
        let gap: Vec<f32> = w.iter().zip(&back).map(|(a, b)| a - b).collect();
        let mut out = vec![0.0; x.len() / COLS * ROWS];
        crate::kernels::linalg::matmul_nt(x, &gap, COLS, &mut out, crate::kernels::linalg::Precision::Full);
        out.iter().map(|v| f64::from(*v).powi(2)).sum()
    }

    #[test]
    fn compensation_halves_the_error_of_the_output() {
        let (x, w) = (inputs(2000), noise(ROWS * COLS, 3));
        let gram = gram(&x);
        let rows = MemoryRows {
            values: &w,
            cols: COLS,
        };
        let nearest = output_error(&x, &w, &affine::quantize(&rows, &spec(64)).unwrap());
        for act_order in [ActOrder::None, ActOrder::Static, ActOrder::Group] {
            let curvature = Curvature::new(&gram, COLS, 0.01, act_order, true, &|| false).unwrap();
            let solved = solve(w.clone(), &curvature, how(act_order), &spec(64), &|| false).unwrap();
            let error = output_error(&x, &w, &solved.weight);
            assert!(error < 0.5 * nearest, "{act_order:?}: {error} {nearest}");
        }
    }

    #[test]
    fn without_correlation_it_is_rounding_to_nearest() {
        let w = noise(ROWS * COLS, 3);
        let mut gram = vec![0.0; COLS * COLS];
        for i in 0..COLS {
            gram[i * COLS + i] = 1.0;
        }
        let rows = MemoryRows {
            values: &w,
            cols: COLS,
        };
        let nearest = affine::quantize(&rows, &spec(64)).unwrap();
        for act_order in [ActOrder::None, ActOrder::Static, ActOrder::Group] {
            let curvature = Curvature::new(&gram, COLS, 0.01, act_order, true, &|| false).unwrap();
            let solved = solve(w.clone(), &curvature, how(act_order), &spec(64), &|| false).unwrap();
            assert_eq!(solved.weight.codes, nearest.codes);
        }
    }

    #[test]
    fn inputs_that_never_come_and_hopeless_ones_are_rounded_to_nearest() {
        let mut x = inputs(50);
        for row in x.chunks_mut(COLS) {
            row[5] = 0.0;
        }
        let w = noise(ROWS * COLS, 3);
        let curvature = Curvature::new(&gram(&x), COLS, 0.01, ActOrder::Static, true, &|| false).unwrap();
        assert_eq!((curvature.dead, curvature.is_usable()), (1, true));
        let solved = solve(w.clone(), &curvature, how(ActOrder::Static), &spec(64), &|| false).unwrap();
        let at = spec(64).code(
            w[5],
            Grid {
                scale: solved.weight.scales[0],
                zero: solved.weight.zeros[0],
            },
        );
        assert_eq!(solved.weight.codes[5], at as u8);
        let silent = Curvature::new(&vec![0.0; COLS * COLS], COLS, 0.01, ActOrder::None, true, &|| {
            false
        })
        .unwrap();
        assert_eq!(silent.dead, COLS);
        solve(w, &silent, how(ActOrder::None), &spec(64), &|| false).unwrap();
    }

    #[test]
    fn groups_follow_the_order_and_each_column_says_which_is_its() {
        let (x, w) = (inputs(500), noise(ROWS * COLS, 3));
        let gram = gram(&x);
        let curvature = Curvature::new(&gram, COLS, 0.01, ActOrder::Group, true, &|| false).unwrap();
        let weight = solve(w, &curvature, how(ActOrder::Group), &spec(64), &|| false)
            .unwrap()
            .weight;
        let largest = (0..COLS)
            .max_by(|a, b| gram[a * COLS + a].total_cmp(&gram[b * COLS + b]))
            .unwrap();
        assert_eq!(weight.g_idx[largest], 0);
        let of = |group: u32| weight.g_idx.iter().filter(|g| **g == group).count();
        assert_eq!([0, 1, 2, 3].map(of), [64; 4]);
    }

    /// Errors are made up for by the weights that are there.
    #[test]
    fn a_pruned_matrix_keeps_its_zeros() {
        let (x, mut w) = (inputs(1000), noise(ROWS * COLS, 3));
        w.chunks_mut(4).for_each(|run| run[1..3].fill(0.0));
        let gram = gram(&x);
        let rows = MemoryRows {
            values: &w,
            cols: COLS,
        };
        let nearest = output_error(&x, &w, &affine::quantize(&rows, &spec(64)).unwrap());
        for act_order in [ActOrder::None, ActOrder::Static, ActOrder::Group] {
            for symmetric in [true, false] {
                let spec = Spec {
                    symmetric,
                    ..spec(64)
                };
                let curvature = Curvature::new(&gram, COLS, 0.01, act_order, true, &|| false).unwrap();
                let how = How {
                    act_order,
                    keeps_zeros: true,
                };
                let weight = solve(w.clone(), &curvature, how, &spec, &|| false)
                    .unwrap()
                    .weight;
                let mut back = vec![0.0; w.len()];
                weight.read(0, &mut back).unwrap();
                assert!(
                    w.iter().zip(&back).all(|(w, b)| *w != 0.0 || *b == 0.0),
                    "{act_order:?}"
                );
                let error = output_error(&x, &w, &weight);
                assert!(
                    error < 0.8 * nearest,
                    "{act_order:?} {symmetric}: {error} {nearest}"
                );
            }
        }
    }

    #[test]
    fn activations_that_overflowed_are_named() {
        let error = Curvature::new(&[f32::NAN], 1, 0.01, ActOrder::None, true, &|| false).unwrap_err();
        assert_eq!(error.code, "non_finite_activations");
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (gram, w) = (gram(&inputs(300)), noise(ROWS * COLS, 9));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let curvature = Curvature::new(&gram, COLS, 0.01, ActOrder::Static, true, &|| false).unwrap();
                solve(w.clone(), &curvature, how(ActOrder::Static), &spec(32), &|| false).unwrap()
            })
        };
        assert_eq!(run(1).weight.codes, run(3).weight.codes);
    }
}
