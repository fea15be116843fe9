//! Integer affine quantization of matrices.
//!
//! Owns: range finding and rounding. Must not know: packing. Source: Jacob et al. 2018; range search as the
//! "mse" observers of the Python toolkits, errors weighted by w² as in ggml's searches, scales of either sign as in
//! `AutoRound` (Cheng et al. 2023).
//! Invariant: codes are chosen against the scale as it will be stored.

use super::{check_finite, check_scales, stored_step, sum_over, wide};
use crate::error::Result;
use crate::tensor::{DType, Rows, chunk_rows, round_to, try_fold_chunks};
use crate::weight::{Activations, Affine, Granularity, Kind};
use rayon::prelude::*;

/// How the clipping range is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The extremes of the group.
    MinMax,
    /// The shrunken range of least squared error.
    Mse,
    /// The same with errors weighted by w²: large weights count for more, which keeps perplexity lower.
    WeightedMse,
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Bits of a code, 2 to 8.
    pub n_bits: u8,
    /// No zero points.
    pub symmetric: bool,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Stored type of the scales.
    pub scale_dtype: DType,
    /// How ranges are found.
    pub range: Range,
    /// A search may give symmetric scales either sign: the grid has one code more on its negative side, and the
    /// larger extreme of a group lies on either.
    pub signed_scales: bool,
}

impl Spec {
    /// How a weight of this kind is made; nothing for kinds that are not affine. Scales are `signed` where the layer's
    /// inputs are left alone: integer kernels that quantize these too expect positive ones.
    pub fn of(kind: Kind, range: Range, signed: bool) -> Option<Self> {
        let Kind::Affine {
            n_bits,
            symmetric,
            granularity,
            scale_dtype,
            activations,
            act_order: _,
        } = kind
        else {
            return None;
        };
        Some(Self {
            n_bits,
            symmetric,
            granularity,
            scale_dtype,
            range,
            signed_scales: signed && activations == Activations::None,
        })
    }
}

/// Scale and zero of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Step, as stored.
    pub scale: f32,
    /// Unsigned code that means 0.
    pub zero: u8,
}

impl Spec {
    pub(super) fn top(&self) -> f32 {
        ((1u32 << self.n_bits) - 1) as f32
    }

    /// The grid that spans `[low, high]` (widened to hold 0).
    fn grid(&self, low: f32, high: f32) -> Grid {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let middle = 1u8 << (self.n_bits - 1);
        let raw = if self.symmetric {
            // Half the code range on each side: the most negative code is used, +absmax clips to the top code.
            low.abs().max(high) / (self.top() / 2.0)
        } else {
            (high - low) / self.top()
        };
        let scale = self.stored(raw);
        let zero = if self.symmetric {
            middle
        } else {
            (-low / scale).round_ties_even().clamp(0.0, self.top()) as u8
        };
        Grid { scale, zero }
    }

    /// A step as it will be stored, never 0: for a group of zeros it is small, but a normal number.
    pub(super) fn stored(&self, step: f32) -> f32 {
        let stored = stored_step(self.scale_dtype, step);
        match self.scale_dtype {
            _ if stored != 0.0 => stored,
            DType::F16 => round_to(DType::F16, 6.104e-5),
            _ => f32::EPSILON,
        }
    }

    /// The code of a value.
    #[inline(always)]
    pub(super) fn code(&self, value: f32, grid: Grid) -> f32 {
        (value / grid.scale + f32::from(grid.zero))
            .round_ties_even()
            .clamp(0.0, self.top())
    }

    /// What a code stands for, rounded as the stored type does.
    #[inline(always)]
    pub(super) fn value(&self, code: f32, grid: Grid) -> f32 {
        round_to(self.scale_dtype, (code - f32::from(grid.zero)) * grid.scale)
    }

    /// Error of a group under a grid.
    #[inline(always)]
    fn error(&self, values: &[f32], grid: Grid) -> f32 {
        if self.range == Range::WeightedMse {
            self.sum_errors(values, grid, |v| v * v)
        } else {
            self.sum_errors(values, grid, |_| 1.0)
        }
    }

    #[inline(always)]
    fn sum_errors(&self, values: &[f32], grid: Grid, weight: impl Fn(f32) -> f32) -> f32 {
        sum_over(values, |v| self.square_error(v, grid) * weight(v))
    }

    #[inline(always)]
    fn square_error(&self, v: f32, grid: Grid) -> f32 {
        let e = self.difference(v, grid);
        e * e
    }

    /// What a value becomes, less the value.
    #[inline(always)]
    pub(super) fn difference(&self, v: f32, grid: Grid) -> f32 {
        // Round half to even without a call: adding and taking away 1.5 · 2^23.
        const MAGIC: f32 = 12_582_912.0;
        let (zero, scale, inverse, top) = (f32::from(grid.zero), grid.scale, 1.0 / grid.scale, self.top());
        let q = v * inverse + zero;
        let q = if q < top { q } else { top };
        let q = ((if q > 0.0 { q } else { 0.0 }) + MAGIC) - MAGIC;
        (q - zero) * scale - v
    }

    /// Grids to try for the extremes of a group; the second of a pair is the mirrored one.
    #[inline(always)]
    fn candidates(&self, low: f32, high: f32, part: f32) -> (Grid, Option<Grid>) {
        if !self.symmetric || !self.signed_scales {
            return (self.grid(low * part, high * part), None);
        }
        let peak = if high > -low { high } else { low };
        let scale = self.stored(peak * part / (self.top() / 2.0 + 0.5));
        let zero = 1u8 << (self.n_bits - 1);
        (Grid { scale, zero }, Some(Grid { scale: -scale, zero }))
    }

    /// The grid of a group.
    #[inline(always)]
    pub fn fit(&self, values: &[f32]) -> Grid {
        self.search(values, |grid| self.error(values, grid))
    }

    /// The grid of a group whose elements matter by `weights`.
    pub fn fit_weighted(&self, values: &[f32], weights: &[f32]) -> Grid {
        let mut best = Grid { scale: 1.0, zero: 0 };
        fit_weighted(self, values, weights, &mut best);
        best
    }

    /// The candidate of least error.
    #[inline(always)]
    pub(super) fn search(&self, values: &[f32], mut error_of: impl FnMut(Grid) -> f32) -> Grid {
        let (low, high) = extremes(values);
        let start = self.grid(low, high);
        if self.range == Range::MinMax || low == high {
            return start;
        }
        let mut best = (error_of(start), start);
        for part in PARTS {
            let (grid, mirrored) = self.candidates(low, high, part);
            for grid in [Some(grid), mirrored].into_iter().flatten() {
                let error = error_of(grid);
                if error < best.0 {
                    best = (error, grid);
                }
            }
        }
        best.1
    }
}

/// Candidate ranges as parts of the full one. Slightly more than 1 lets a symmetric grid hold +absmax too.
const PARTS: [f32; 30] = {
    let mut parts = [0.0; 30];
    let mut i = 0;
    while i < 30 {
        parts[i] = 1.06 - 0.0125 * i as f32;
        i += 1;
    }
    parts
};

fn extremes(values: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([0f32; 16], [0f32; 16]);
    let (blocks, rest) = values.as_chunks::<16>();
    for block in blocks {
        for i in 0..16 {
            low[i] = low[i].min(block[i]);
            high[i] = high[i].max(block[i]);
        }
    }
    for v in rest {
        low[0] = low[0].min(*v);
        high[0] = high[0].max(*v);
    }
    (
        low.iter().copied().fold(0.0, f32::min),
        high.iter().copied().fold(0.0, f32::max),
    )
}

/// Quantizes a matrix.
pub fn quantize(input: &dyn Rows, spec: &Spec) -> Result<Affine> {
    let whole = match spec.granularity {
        Granularity::Tensor => Some(tensor_grid(input, spec)?),
        _ => None,
    };
    let cols = input.cols();
    let (codes, grids) = by_chunks(input, |values, codes, grids| {
        quantize_groups(spec, whole, values, cols, codes, grids);
    })?;
    assemble(spec, codes, cols, &whole.map_or(grids, |grid| vec![grid]))
}

/// Codes and grids of whole rows, which `make` chooses for some of them at a time.
pub(super) fn by_chunks(
    input: &dyn Rows,
    make: impl Fn(&[f32], &mut [u8], &mut Vec<Grid>) + Sync,
) -> Result<(Vec<u8>, Vec<Grid>)> {
    let (rows, cols) = (input.rows(), input.cols());
    let mut codes = vec![0; rows * cols];
    let step = chunk_rows(cols);
    let grids: Result<Vec<Vec<Grid>>> = codes
        .par_chunks_mut((step * cols).max(1))
        .enumerate()
        .map_init(Vec::new, |buffer: &mut Vec<f32>, (i, out)| {
            buffer.resize(out.len(), 0.0);
            input.read(i * step, buffer)?;
            check_finite(buffer, i * step * cols)?;
            let mut grids = Vec::new();
            make(buffer, out, &mut grids);
            Ok(grids)
        })
        .collect();
    Ok((codes, grids?.concat()))
}

/// A matrix of codes and grids.
pub(super) fn assemble(spec: &Spec, codes: Vec<u8>, cols: usize, grids: &[Grid]) -> Result<Affine> {
    let scales: Vec<f32> = grids.iter().map(|g| g.scale).collect();
    check_scales(&scales, spec.scale_dtype)?;
    Ok(Affine {
        rows: codes.len() / cols.max(1),
        cols,
        n_bits: spec.n_bits,
        symmetric: spec.symmetric,
        granularity: spec.granularity,
        scale_dtype: spec.scale_dtype,
        codes,
        scales,
        zeros: grids.iter().map(|g| g.zero).collect(),
        g_idx: Vec::new(),
    })
}

wide! {
    fn fit_weighted(spec: &Spec, values: &[f32], weights: &[f32], best: &mut Grid) {
        let (blocks, rest) = values.as_chunks::<16>();
        let (weights, more) = weights.as_chunks::<16>();
        *best = spec.search(values, |grid| {
            let mut sums = [0f32; 16];
            for (values, weights) in blocks.iter().zip(weights) {
                for i in 0..16 {
                    sums[i] += spec.square_error(values[i], grid) * weights[i];
                }
            }
            sums.iter().sum::<f32>()
                + rest.iter().zip(more).map(|(v, w)| spec.square_error(*v, grid) * w).sum::<f32>()
        });
    }
}

wide! {
    /// Whole rows of `cols` values; without a given grid, each group gets its own.
    fn quantize_groups(
        spec: &Spec,
        given: Option<Grid>,
        values: &[f32],
        cols: usize,
        codes: &mut [u8],
        grids: &mut Vec<Grid>,
    ) {
        let (_, size) = spec.granularity.groups(cols);
        for (values, codes) in values.chunks(size).zip(codes.chunks_mut(size)) {
            let grid = match given {
                Some(grid) => grid,
                None => spec.fit(values),
            };
            for (code, value) in codes.iter_mut().zip(values) {
                *code = spec.code(*value, grid) as u8;
            }
            grids.push(grid);
        }
    }
}

/// One grid for the whole matrix: two walks, the second over all candidate ranges at once.
fn tensor_grid(input: &dyn Rows, spec: &Spec) -> Result<Grid> {
    let cols = input.cols();
    let parts = try_fold_chunks(input, |first, values| {
        check_finite(values, first * cols)?;
        Ok(extremes(values))
    })?;
    let low = parts.iter().map(|p| p.0).fold(0.0, f32::min);
    let high = parts.iter().map(|p| p.1).fold(0.0, f32::max);
    let mut grids = vec![spec.grid(low, high)];
    if spec.range == Range::MinMax || low == high {
        return Ok(grids[0]);
    }
    for part in PARTS {
        let (grid, mirrored) = spec.candidates(low, high, part);
        grids.extend([Some(grid), mirrored].into_iter().flatten());
    }
    let errors = try_fold_chunks(input, |_, values| {
        Ok(grids
            .iter()
            .map(|g| f64::from(spec.error(values, *g)))
            .collect::<Vec<_>>())
    })?;
    let total = |i: usize| errors.iter().map(|e| e[i]).sum::<f64>();
    let best = (0..grids.len())
        .min_by(|a, b| total(*a).total_cmp(&total(*b)))
        .unwrap_or(0);
    Ok(grids[best])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::MemoryRows;

    fn spec(n_bits: u8, symmetric: bool, granularity: Granularity, range: Range) -> Spec {
        Spec {
            n_bits,
            symmetric,
            granularity,
            scale_dtype: DType::F32,
            range,
            signed_scales: range == Range::WeightedMse,
        }
    }

    const W: [f32; 32] = [
        0.7, -0.35, 0.1, 0.0, 1.4, -1.6, 0.2, 0.4, 0.1, 0.2, 0.3, 0.4, -0.1, -0.2, -0.3, -0.4, 0.0, 0.0, 0.0,
        0.0, 0.5, 0.25, -0.5, -0.25, 1.5, 1.0, 0.5, -0.5, 3.0, 0.0, -1.0, 2.0,
    ];

    /// The worked example of the format notes: symmetric scale is absmax / 7.5. ±0.5 and ±0.25 of the third row
    /// lie on exact ties in real numbers; f32 division puts −0.5 / (0.5 / 7.5) just above −7.5, hence −7.
    #[test]
    fn the_worked_example_symmetric() {
        let rows = MemoryRows { values: &W, cols: 8 };
        let out = quantize(&rows, &spec(4, true, Granularity::Group(4), Range::MinMax)).unwrap();
        let signed: Vec<i32> = out.codes.iter().map(|c| i32::from(*c) - 8).collect();
        assert_eq!(signed[..8], [7, -4, 1, 0, 7, -8, 1, 2]);
        assert_eq!(signed[8..16], [2, 4, 6, 7, -2, -4, -6, -8]);
        assert_eq!(signed[16..24], [0, 0, 0, 0, 7, 4, -7, -4]);
        assert_eq!(signed[24..], [7, 5, 2, -2, 7, 0, -2, 5]);
        assert!((out.scales[0] - 0.093_333).abs() < 1e-6);
    }

    #[test]
    fn the_worked_example_asymmetric() {
        let rows = MemoryRows { values: &W, cols: 8 };
        let out = quantize(&rows, &spec(4, false, Granularity::Group(4), Range::MinMax)).unwrap();
        let signed = |values: &[u8]| values.iter().map(|z| i32::from(*z) - 8).collect::<Vec<_>>();
        assert_eq!(signed(&out.zeros[..2]), [-3, 0]);
        assert_eq!(signed(&out.zeros[2..4]), [-8, 7]);
        assert_eq!(signed(&out.codes[..8]), [7, -8, -2, -3, 7, -8, 1, 2]);
        assert!((out.scales[0] - 0.07).abs() < 1e-6 && (out.scales[1] - 0.2).abs() < 1e-6);
    }

    /// −1.6 … 1.5 fit no symmetric grid of sixteen levels without clipping; the mirrored one gives 1.6 the longer side.
    #[test]
    fn a_search_gives_the_longer_side_to_the_larger_extreme() {
        for sign in [1.0f32, -1.0] {
            let values: Vec<f32> = (0..16).map(|i| sign * (i as f32 * 0.2 - 1.4)).collect();
            let rows = MemoryRows {
                values: &values,
                cols: 16,
            };
            let out = quantize(&rows, &spec(4, true, Granularity::Channel, Range::WeightedMse)).unwrap();
            assert!(out.scales[0] * sign < 0.0, "{:?}", out.scales);
            let mut back = vec![0.0; 16];
            out.read(0, &mut back).unwrap();
            for (value, read) in values.iter().zip(&back) {
                assert!((value - read).abs() < 0.03, "{values:?} {back:?}");
            }
        }
    }

    #[test]
    fn non_finite_weights_are_refused_with_their_place() {
        let rows = MemoryRows {
            values: &[1.0, 2.0, f32::NAN, 4.0],
            cols: 2,
        };
        let error = quantize(&rows, &spec(8, true, Granularity::Channel, Range::Mse)).unwrap_err();
        assert_eq!(error.code, "non_finite_values");
        assert!(error.message.contains("element 2"), "{error}");
    }

    proptest::proptest! {
        /// Min-max rounding never errs by more than half a step (a whole one at the clipped symmetric top), and
        /// the searched range is never worse.
        #[test]
        fn errors_are_bounded_and_search_never_hurts(
            values in proptest::collection::vec(-8f32..8.0, 64),
            n_bits in 2u8..=8,
            symmetric: bool,
        ) {
            let rows = MemoryRows { values: &values, cols: 32 };
            let sum = |range| {
                let out = quantize(&rows, &spec(n_bits, symmetric, Granularity::Group(16), range)).unwrap();
                let mut back = vec![0.0; 64];
                out.read(0, &mut back).unwrap();
                let step = out.scales.iter().map(|s| s.abs()).fold(0.0, f32::max);
                let worst = values.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                (values.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>(), worst, step)
            };
            let (plain, worst, step) = sum(Range::MinMax);
            proptest::prop_assert!(worst <= step * 1.01);
            let (searched, _, _) = sum(Range::Mse);
            proptest::prop_assert!(searched <= plain * (1.0 + 1e-4) + 1e-9);
            let (_, worst, step) = sum(Range::WeightedMse);
            proptest::prop_assert!(worst <= step * 1.5 + 0.3 * 8.0);
        }
    }
}
