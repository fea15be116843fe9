//! Affine quantization whose ranges are chosen by what a group's error does to the layer's output.
//!
//! Owns: Gram matrices of groups of inputs, and the range search under them. Must not know: where inputs come from.
//! Source: clipping as AWQ does it (Lin et al. 2023); there the error is summed over sampled tokens, here over all of
//! them by the group's Gram matrix.
//! Invariant: rows are quantized one by one, so the bits do not depend on the number of threads.

use super::affine::{Grid, Spec, assemble};
use super::linalg::{Into, View, product};
use super::{check_finite, wide};
use crate::error::{Error, Result};
use crate::weight::Affine;
use rayon::prelude::*;

/// `XᵀX` of each group of columns of some inputs.
#[derive(Clone, Debug)]
pub struct Grams {
    size: usize,
    /// One `[size, size]` matrix for each group.
    values: Vec<f32>,
}

impl Grams {
    /// Those of `x`, `[tokens, cols]`, in groups of `size` columns.
    pub fn of(x: &[f32], cols: usize, size: usize) -> Self {
        let size = size.max(1);
        let tokens = x.len() / cols.max(1);
        let mut values = vec![0.0; cols / size * size * size];
        if tokens > 0 {
            values
                .par_chunks_mut(size * size)
                .enumerate()
                .for_each(|(group, out)| {
                    let x = View::rows(&x[group * size..], tokens, size, cols);
                    product(out, size, Into::Replace, x.t(), x, 1.0);
                });
        }
        Self { size, values }
    }

    /// Those of the same inputs, each column divided by its scale.
    #[must_use]
    pub fn divided(mut self, scales: &[f32]) -> Self {
        let size = self.size;
        for (values, scales) in self.values.chunks_mut(size * size).zip(scales.chunks(size)) {
            for (row, a) in values.chunks_mut(size).zip(scales) {
                row.iter_mut().zip(scales).for_each(|(v, b)| *v /= a * b);
            }
        }
        self
    }

    /// Bytes for so many columns.
    pub fn bytes(cols: usize, size: usize) -> u64 {
        4 * (cols * size) as u64
    }

    /// The group's matrix, unless no input ever was anything but 0.
    fn group(&self, group: usize) -> Option<&[f32]> {
        let size = self.size;
        let gram = self.values.get(group * size * size..(group + 1) * size * size)?;
        (0..size).any(|i| gram[i * size + i] > 0.0).then_some(gram)
    }
}

/// Quantizes rows of `cols` values; with Gram matrices, each group's range is the one that changes the output least.
/// `stop` is asked before each row.
pub fn quantize(
    values: &[f32],
    cols: usize,
    spec: &Spec,
    grams: Option<&Grams>,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Affine> {
    check_finite(values, 0)?;
    let (_, size) = spec.granularity.groups(cols);
    let mut codes = vec![0; values.len()];
    let grids: Result<Vec<Vec<Grid>>> = codes
        .par_chunks_mut(cols.max(1))
        .zip(values.par_chunks(cols.max(1)))
        .map_init(Vec::new, |errors: &mut Vec<f32>, (codes, row)| {
            if stop() {
                return Err(Error::cancelled());
            }
            errors.resize(size, 0.0);
            let mut grids = Vec::with_capacity(row.len() / size.max(1));
            for (group, (values, codes)) in row.chunks(size).zip(codes.chunks_mut(size)).enumerate() {
                let grid = match grams.and_then(|g| g.group(group)) {
                    Some(gram) => {
                        let mut best = Grid { scale: 1.0, zero: 0 };
                        fit_by_gram(spec, values, gram, errors, &mut best);
                        best
                    }
                    None => spec.fit(values),
                };
                for (code, value) in codes.iter_mut().zip(values) {
                    *code = spec.code(*value, grid) as u8;
                }
                grids.push(grid);
            }
            Ok(grids)
        })
        .collect();
    assemble(spec, codes, cols, &grids?.concat())
}

wide! {
    /// The grid of least `eᵀ G e`, where e is the error of the group and G the Gram matrix of its inputs.
    fn fit_by_gram(spec: &Spec, values: &[f32], gram: &[f32], errors: &mut [f32], best: &mut Grid) {
        *best = spec.search(values, |grid| {
            for (error, value) in errors.iter_mut().zip(values) {
                *error = spec.difference(*value, grid);
            }
            quadratic(errors, gram)
        });
    }
}

/// `eᵀ G e` in a fixed order of four times sixteen partial sums.
#[inline(always)]
fn quadratic(errors: &[f32], gram: &[f32]) -> f32 {
    let mut sums = [[0f32; 16]; 4];
    let mut last = 0f32;
    for (e, row) in errors.iter().zip(gram.chunks_exact(errors.len())) {
        let ((blocks, rest), (others, more)) = (row.as_chunks::<16>(), errors.as_chunks::<16>());
        for (k, (g, other)) in blocks.iter().zip(others).enumerate() {
            let sums = &mut sums[k % 4];
            for i in 0..16 {
                sums[i] += e * other[i] * g[i];
            }
        }
        for (g, other) in rest.iter().zip(more) {
            last += e * other * g;
        }
    }
    sums.iter().flatten().sum::<f32>() + last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::affine::Range;
    use crate::tensor::{DType, Rows as _};
    use crate::weight::Granularity;

    fn pattern(n: usize, seed: usize) -> Vec<f32> {
        (0..n)
            .map(|i| (((i + seed) * 7919 % 1009) as f32 - 500.0) / 300.0)
            .collect()
    }

    /// `‖X (W − Ŵ)ᵀ‖²`.
    fn loss(x: &[f32], w: &[f32], cols: usize, made: &Affine) -> f64 {
        let mut back = vec![0.0; made.rows * made.cols];
        made.read(0, &mut back).unwrap();
        let mut sum = 0.0;
        for x in x.chunks(cols) {
            for (w, b) in w.chunks(cols).zip(back.chunks(cols)) {
                let y: f32 = (0..cols).map(|i| x[i] * (w[i] - b[i])).sum();
                sum += f64::from(y).powi(2);
            }
        }
        sum
    }

    #[test]
    fn the_output_changes_less_than_with_the_extremes() {
        let (cols, size) = (40, 20);
        let mut x = pattern(50 * cols, 3);
        // The channel with the largest weights hardly ever speaks.
        x.iter_mut().step_by(20).for_each(|v| *v *= 0.01);
        let mut w = pattern(8 * cols, 11);
        w.iter_mut().step_by(20).for_each(|v| *v *= 3.0);
        let spec = |range| Spec {
            n_bits: 3,
            symmetric: false,
            granularity: Granularity::Group(size),
            scale_dtype: DType::F32,
            range,
            signed_scales: false,
        };
        let grams = Grams::of(&x, cols, size);
        let plain = quantize(&w, cols, &spec(Range::MinMax), None, &|| false).unwrap();
        let clipped = quantize(&w, cols, &spec(Range::Mse), Some(&grams), &|| false).unwrap();
        let (plain, clipped) = (loss(&x, &w, cols, &plain), loss(&x, &w, cols, &clipped));
        assert!(clipped < 0.8 * plain, "{clipped} {plain}");
    }

    #[test]
    fn inputs_that_are_divided_have_divided_gram_matrices() {
        let (cols, size) = (6, 3);
        let x = pattern(5 * cols, 1);
        let scales = [2.0, 0.5, 1.0, 3.0, 0.25, 1.5];
        let scaled: Vec<f32> = x.iter().zip(scales.iter().cycle()).map(|(x, s)| x / s).collect();
        let (a, b) = (
            Grams::of(&x, cols, size).divided(&scales),
            Grams::of(&scaled, cols, size),
        );
        assert!(a.values.iter().zip(&b.values).all(|(a, b)| (a - b).abs() < 1e-3));
    }
}
