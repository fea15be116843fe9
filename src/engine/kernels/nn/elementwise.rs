//! Element-wise functions: exp, `SiLU`, GELU, their derivatives, and sums of exponentials.
//!
//! Owns: approximations in f32, relative error below 3e-7. Must not know: where they are used.
//! Invariant: no branch on a value, so that loops vectorise; no fused multiply-add, so that the bits are the same on
//! every CPU.

use super::TASK;
use crate::kernels::wide;
use rayon::prelude::*;

/// e^x by Cody–Waite reduction to |r| ≤ ln 2 / 2 and a polynomial of degree 6; 0 below −87.3, finite above 88.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// 1.5 · 2^23: adding it rounds to a whole number, which then stands in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let x = if x < 88.0 { x } else { 88.0 };
    let lost = x < -87.3;
    let x = if x > -87.3 { x } else { -87.3 };
    let shifted = x * LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    let power = (shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127)) << 23;
    let value = p * f32::from_bits(power);
    if lost { 0.0 } else { value }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152_1;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_72;
    let p = p * t + 0.254_829_6;
    (1.0 - p * t * exp(-a * a)).copysign(x)
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    let x = if x < 10.0 { x } else { 10.0 };
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// A pointwise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(x)`.
    Silu,
    /// GELU with the error function.
    Gelu,
    /// GELU by its tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// By its name in a config.json.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "silu" | "swish" => Self::Silu,
            "gelu" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Self::GeluTanh,
            "relu" => Self::Relu,
            _ => return None,
        })
    }

    fn all(self) -> fn(&mut [f32]) {
        match self {
            Self::Silu => silu_all,
            Self::Gelu => gelu_all,
            Self::GeluTanh => gelu_tanh_all,
            Self::Relu => relu_all,
        }
    }

    /// `x = f(x)`.
    pub fn apply(self, x: &mut [f32]) {
        x.par_chunks_mut(TASK).for_each(self.all());
    }

    /// `out = f′(x)`.
    pub fn slope(self, x: &[f32], out: &mut [f32]) {
        out.par_chunks_mut(TASK)
            .zip(x.par_chunks(TASK))
            .for_each(|(out, x)| slopes(self, x, out));
    }

    /// `gate = f(gate) · up`, the middle of a gated MLP.
    pub fn gated(self, gate: &mut [f32], up: &[f32]) {
        let apply = self.all();
        gate.par_chunks_mut(TASK)
            .zip(up.par_chunks(TASK))
            .for_each(|(gate, up)| {
                apply(gate);
                for (g, u) in gate.iter_mut().zip(up) {
                    *g *= u;
                }
            });
    }
}

/// `x = x + y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    x.par_chunks_mut(TASK)
        .zip(y.par_chunks(TASK))
        .for_each(|(x, y)| add_all(x, y));
}

/// Adds the same row to every row.
pub fn add_row(x: &mut [f32], row: &[f32]) {
    let cols = row.len().max(1);
    x.par_chunks_mut(super::task_rows(cols) * cols)
        .for_each(|x| x.chunks_mut(cols).for_each(|x| add_all(x, row)));
}

/// Gradients of [`Activation::gated`], where `dy` is that by its result: by gate, and by up.
pub fn gated_back(
    activation: Activation,
    (gate, up, dy): (&[f32], &[f32], &[f32]),
    (by_gate, by_up): (&mut [f32], &mut [f32]),
) {
    activation.slope(gate, by_gate);
    by_up.copy_from_slice(gate);
    activation.apply(by_up);
    let inputs = up.par_chunks(TASK).zip(dy.par_chunks(TASK));
    let outputs = by_gate.par_chunks_mut(TASK).zip(by_up.par_chunks_mut(TASK));
    outputs.zip(inputs).for_each(|((by_gate, by_up), (up, dy))| {
        for ((g, u), (up, dy)) in by_gate.iter_mut().zip(by_up).zip(up.iter().zip(dy)) {
            *g *= up * dy;
            *u *= dy;
        }
    });
}

/// The derivative of [`silu`].
#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let s = 1.0 / (1.0 + exp(-x));
    s * (1.0 + x * (1.0 - s))
}

/// The derivative of GELU with the error function.
#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;
    let share = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    share + x * FRAC_1_SQRT_TAU * exp(-0.5 * x * x)
}

/// The derivative of GELU by its tanh approximation.
#[inline(always)]
fn gelu_tanh_slope(x: f32) -> f32 {
    let t = tanh(0.797_884_6 * (x + 0.044_715 * x * x * x));
    let inner = 0.797_884_6 * (1.0 + 3.0 * 0.044_715 * x * x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
}

wide! {
    fn slopes(activation: Activation, x: &[f32], out: &mut [f32]) {
        let pairs = out.iter_mut().zip(x);
        match activation {
            Activation::Silu => pairs.for_each(|(o, v)| *o = silu_slope(*v)),
            Activation::Gelu => pairs.for_each(|(o, v)| *o = gelu_slope(*v)),
            Activation::GeluTanh => pairs.for_each(|(o, v)| *o = gelu_tanh_slope(*v)),
            Activation::Relu => pairs.for_each(|(o, v)| *o = if *v > 0.0 { 1.0 } else { 0.0 }),
        }
    }
}

wide! {
    fn add_all(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

wide! {
    fn silu_all(x: &mut [f32]) {
        for v in x {
            *v = silu(*v);
        }
    }
}

wide! {
    fn gelu_all(x: &mut [f32]) {
        for v in x {
            *v = 0.5 * *v * (1.0 + erf(*v * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

wide! {
    fn gelu_tanh_all(x: &mut [f32]) {
        for v in x {
            let inner = 0.797_884_6 * (*v + 0.044_715 * *v * *v * *v);
            *v = 0.5 * *v * (1.0 + tanh(inner));
        }
    }
}

wide! {
    fn relu_all(x: &mut [f32]) {
        for v in x {
            *v = if *v > 0.0 { *v } else { 0.0 };
        }
    }
}

wide! {
    /// Largest value of a row.
    pub(super) fn row_max(x: &[f32], max: &mut f32) {
        let mut best = [f32::NEG_INFINITY; 16];
        let (blocks, rest) = x.as_chunks::<16>();
        for block in blocks {
            for i in 0..16 {
                best[i] = if block[i] > best[i] { block[i] } else { best[i] };
            }
        }
        for v in rest {
            best[0] = if *v > best[0] { *v } else { best[0] };
        }
        *max = best.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    }
}

wide! {
    /// `x = e^(x − shift)` and the sum of it, in sixteen partial sums.
    pub(super) fn exp_sum(x: &mut [f32], shift: f32, sum: &mut f32) {
        let mut sums = [0f32; 16];
        let (blocks, rest) = x.as_chunks_mut::<16>();
        for block in blocks {
            for i in 0..16 {
                block[i] = exp(block[i] - shift);
                sums[i] += block[i];
            }
        }
        for v in rest {
            *v = exp(*v - shift);
            sums[0] += *v;
        }
        *sum = sums.iter().sum();
    }
}

/// `ln Σ e^x` of a row, which is turned into `e^(x − max)`; the sum is taken in f64 over blocks of 4,096.
pub fn log_sum_exp(row: &mut [f32]) -> f64 {
    let mut max = 0.0;
    row_max(row, &mut max);
    let mut total = 0f64;
    for block in row.chunks_mut(4096) {
        let mut sum = 0.0;
        exp_sum(block, max, &mut sum);
        total += f64::from(sum);
    }
    f64::from(max) + total.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_a_few_ulps() {
        for i in -870..=880 {
            let x = i as f32 / 10.0 + 0.013;
            let exact = f64::from(x).exp();
            let relative = (f64::from(exp(x.min(88.0))) / f64::from(x.min(88.0)).exp() - 1.0).abs();
            assert!(relative < 3e-7, "{x}: {} {exact}", exp(x));
        }
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(1000.0).is_finite());
    }

    #[test]
    fn activations_of_known_points() {
        let x = [-3.0f32, -1.0, 0.0, 0.5, 2.0, 30.0];
        let close = |activation: Activation, wanted: [f32; 6]| {
            let mut out = x;
            activation.apply(&mut out);
            for (a, b) in out.iter().zip(wanted) {
                assert!((a - b).abs() < 2e-6, "{activation:?}: {out:?}");
            }
        };
        close(
            Activation::Silu,
            [-0.142_277_6, -0.268_941_4, 0.0, 0.311_229_7, 1.761_594_2, 30.0],
        );
        close(
            Activation::Gelu,
            [-0.004_049_7, -0.158_655_3, 0.0, 0.345_731_2, 1.954_499_7, 30.0],
        );
        close(
            Activation::GeluTanh,
            [-0.003_637_4, -0.158_808_0, 0.0, 0.345_714_0, 1.954_597_7, 30.0],
        );
    }

    #[test]
    fn log_sum_exp_of_far_values() {
        let mut row = vec![1000.0f32, 999.0, -1000.0];
        let expected = 1000.0 + (1.0 + (-1f64).exp()).ln();
        assert!((log_sum_exp(&mut row) - expected).abs() < 1e-6);
    }
}
