//! Half-quadratic optimisation of zero points.
//!
//! Owns: the alternation between outliers of the error and the zero point, then the way to integer zeros. Must not
//! know: packing. Source: Badri and Shaji 2023 (HQQ).
//! Invariant: of all grids that were tried, the plain min-max one among them, the one of least |error|^p is kept.
//!
//! The method is written for zero points that are real numbers. The formats that hold affine weights hold integers,
//! so each integer beside the real one is tried, with the scale of least squares for it.

use super::affine::{Grid, Spec, assemble, by_chunks};
use super::{sum_over, wide};
use crate::error::Result;
use crate::tensor::Rows;
use crate::weight::Affine;

/// What steers the optimisation.
#[derive(Clone, Copy, Debug)]
pub struct Solver {
    /// Power of the error whose sum shall be least, below 1: a few large errors are let be.
    pub norm: f32,
    /// Weight of the quadratic part at first.
    pub beta: f32,
    /// What it grows by at each step.
    pub kappa: f32,
    /// Steps at most.
    pub steps: usize,
}

/// Scales of least squares that are tried for an integer zero.
const REFITS: usize = 4;

/// Below it an error counts as none, and its power is not taken.
const TINY: f32 = 1e-12;

/// Quantizes a matrix by groups.
pub fn quantize(input: &dyn Rows, spec: &Spec, solver: &Solver) -> Result<Affine> {
    let size = spec.granularity.groups(input.cols()).1;
    let (codes, grids) = by_chunks(input, |values, codes, grids| {
        groups(spec, solver, values, size, codes, grids);
    })?;
    assemble(spec, codes, input.cols(), &grids)
}

wide! {
    fn groups(
        spec: &Spec,
        solver: &Solver,
        values: &[f32],
        size: usize,
        codes: &mut [u8],
        grids: &mut Vec<Grid>,
    ) {
        for (values, codes) in values.chunks(size).zip(codes.chunks_mut(size)) {
            let grid = fit(spec, solver, values);
            for (code, value) in codes.iter_mut().zip(values) {
                *code = spec.code(*value, grid) as u8;
            }
            grids.push(grid);
        }
    }
}

#[inline(always)]
fn fit(spec: &Spec, solver: &Solver, values: &[f32]) -> Grid {
    // The spec's range is min-max: the grid that the optimisation begins with.
    let start = spec.fit(values);
    let low = values.iter().copied().fold(0f32, f32::min);
    let zero = real_zero(spec, solver, values, start.scale, -low / start.scale);
    let mut best = (error(spec, solver, values, start), start);
    for zero in [zero.floor(), zero.ceil()] {
        let zero = zero.clamp(0.0, spec.top()) as u8;
        let mut scale = start.scale;
        for _ in 0..=REFITS {
            let grid = Grid { scale, zero };
            let error = error(spec, solver, values, grid);
            if error < best.0 {
                best = (error, grid);
            }
            scale = refit(spec, values, grid);
        }
    }
    best.1
}

/// Sum of |error|^p under a grid.
#[inline(always)]
fn error(spec: &Spec, solver: &Solver, values: &[f32], grid: Grid) -> f32 {
    let (zero, top, inverse) = (f32::from(grid.zero), spec.top(), 1.0 / grid.scale);
    sum_over(values, |v| {
        let x = v * inverse;
        power((x - (code(x, zero, top) - zero)).abs(), solver.norm)
    }) * power(grid.scale.abs(), solver.norm)
}

/// The nearest code, as a number.
#[inline(always)]
fn code(x: f32, zero: f32, top: f32) -> f32 {
    // Round half to even without a call: adding and taking away 1.5 · 2^23.
    const MAGIC: f32 = 12_582_912.0;
    let q = x + zero;
    let q = if q < top { q } else { top };
    ((if q > 0.0 { q } else { 0.0 }) + MAGIC) - MAGIC
}

/// The real zero point of least mean |error| on the way. Errors are taken in steps of the grid, so that the result
/// does not depend on how large the weights are.
#[inline(always)]
fn real_zero(spec: &Spec, solver: &Solver, values: &[f32], scale: f32, start: f32) -> f32 {
    let (top, inverse, count) = (spec.top(), 1.0 / scale, values.len().max(1) as f32);
    let (mut zero, mut beta) = (start, solver.beta);
    let mut best = (f32::MAX, start);
    for _ in 0..solver.steps {
        let mean = sum_over(values, |v| {
            let x = v * inverse;
            (x - (code(x, zero, top) - zero)).abs()
        }) / count;
        if mean >= best.0 {
            break;
        }
        best = (mean, zero);
        let threshold = 1.0 / beta;
        zero = sum_over(values, |v| {
            let x = v * inverse;
            let q = code(x, zero, top);
            let e = x - (q - zero);
            let size = e.abs();
            // What is left of an error when its likely part is taken away: an outlier stays an outlier.
            let kept = size - threshold * power(size, solver.norm - 1.0);
            let kept = if kept > 0.0 { kept } else { 0.0 };
            q - (x - kept.copysign(e))
        }) / count;
        beta *= solver.kappa;
    }
    best.1
}

/// The scale of least squares for the codes of a grid.
#[inline(always)]
fn refit(spec: &Spec, values: &[f32], grid: Grid) -> f32 {
    let (zero, top, inverse) = (f32::from(grid.zero), spec.top(), 1.0 / grid.scale);
    let offset = |v: f32| code(v * inverse, zero, top) - zero;
    let product = sum_over(values, |v| v * offset(v));
    let square = sum_over(values, |v| offset(v) * offset(v));
    if square > 0.0 && product > 0.0 {
        spec.stored(product / square)
    } else {
        grid.scale
    }
}

/// `x^p` for x ≥ 0 by plain multiplications and additions: the standard library's differs from one CPU to the next.
#[inline(always)]
fn power(x: f32, p: f32) -> f32 {
    const LOG2_E_2: f32 = 2.885_390_1;
    const LN_2: f32 = std::f32::consts::LN_2;
    const MAGIC: f32 = 12_582_912.0;
    let x = if x > TINY { x } else { TINY };
    // x = m · 2^e, m between √½ and √2.
    let bits = x.to_bits().wrapping_sub(0x3f35_04f3);
    let e = (bits.cast_signed() >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    let t = (m - 1.0) / (m + 1.0);
    let t2 = t * t;
    let log = e + LOG2_E_2 * t * (1.0 + t2 * (1.0 / 3.0 + t2 * (0.2 + t2 * (1.0 / 7.0))));
    let y = log * p;
    let whole = (y + MAGIC) - MAGIC;
    let f = (y - whole) * LN_2;
    let tail = 1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0)));
    let part = 1.0 + f * (1.0 + f * (0.5 + f * tail));
    part * f32::from_bits(((whole as i32 + 127).clamp(1, 254) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::affine::{self, Range};
    use crate::tensor::{DType, MemoryRows};
    use crate::weight::Granularity;

    const SOLVER: Solver = Solver {
        norm: 0.7,
        beta: 10.0,
        kappa: 1.01,
        steps: 20,
    };

    fn spec(n_bits: u8, size: usize) -> Spec {
        Spec {
            n_bits,
            symmetric: false,
            granularity: Granularity::Group(size),
            scale_dtype: DType::F32,
            range: Range::MinMax,
            signed_scales: false,
        }
    }

    #[test]
    fn powers_are_those_of_the_standard_library() {
        for x in [1e-9f32, 0.003, 0.3, 0.5, 0.71, 1.0, 1.4143, 7.7, 1e6] {
            for p in [0.7f32, -0.3, 0.5, 1.0] {
                let (got, right) = (power(x, p), x.powf(p));
                assert!((got / right - 1.0).abs() < 1e-5, "{x}^{p}: {got} {right}");
            }
        }
        assert!(power(0.0, -0.3).is_finite());
    }

    /// One weight far out: the others keep their grid close, and the sum of |error|^p falls.
    #[test]
    fn the_sum_of_small_powers_falls() {
        let values: Vec<f32> = (0..256)
            .map(|i| ((i * 97 % 256) as f32 / 128.0 - 1.0).powi(3) + if i % 64 == 5 { 3.0 } else { 0.01 })
            .collect();
        let rows = MemoryRows {
            values: &values,
            cols: 128,
        };
        for n_bits in [2, 3, 4, 8] {
            let spec = spec(n_bits, 64);
            let sum = |w: Affine| {
                let mut back = vec![0.0; 256];
                w.read(0, &mut back).unwrap();
                let errors = values.iter().zip(&back).map(|(a, b)| (a - b).abs());
                errors.map(|e| f64::from(e.powf(0.7))).sum::<f64>()
            };
            let plain = sum(affine::quantize(&rows, &spec).unwrap());
            let ours = sum(quantize(&rows, &spec, &SOLVER).unwrap());
            assert!(ours <= plain * 1.0001, "{n_bits}: {ours} {plain}");
            assert!(n_bits != 4 || ours < plain * 0.99, "{ours} {plain}");
        }
    }

    #[test]
    fn groups_of_one_value_and_of_zeros() {
        let mut values = vec![0.0; 128];
        values[64..].fill(-0.3);
        let rows = MemoryRows {
            values: &values,
            cols: 128,
        };
        let out = quantize(&rows, &spec(4, 64), &SOLVER).unwrap();
        let mut back = vec![1.0; 128];
        out.read(0, &mut back).unwrap();
        assert!(
            values.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-6),
            "{back:?}"
        );
    }
}
