//! Convolution kernels, and the shorter convolutions that follow each other in their place.
//!
//! Owns: the layout of stages and how they multiply out. Must not know: how they are found.
//! Invariant: stages, one after the other, are one convolution with the kernel that [`Chain::multiply_out`] gives; its error is
//! measured on the f32 values that are stored.
//!
//! Kernels are correlated with their input as deep-learning frameworks do: y[o, p] = Σ K[o, i, q] · x[i, p + q].

use faer::{Mat, MatRef};
use rayon::prelude::*;

use super::dense::{check, product, squared, transposed};
use crate::error::{Error, Result};
use crate::kernels::check_finite;

/// Times that neighbouring stages are balanced: each halves what is left of the imbalance of a bond.
const BALANCING: usize = 6;

/// A dense kernel `[O, I, kh, kw]`, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    values: &'a [f32],
    shape: [usize; 4],
}

impl<'a> Kernel<'a> {
    /// Checks values of a shape.
    ///
    /// # Errors
    /// `empty_matrix`, `non_finite_values`.
    pub fn new(values: &'a [f32], shape: [usize; 4]) -> Result<Self> {
        let [outputs, inputs, height, width] = shape;
        let patch = inputs.checked_mul(height).and_then(|v| v.checked_mul(width));
        check(values, outputs, patch.unwrap_or(0))?;
        Ok(Self { values, shape })
    }

    /// `[O, I, kh, kw]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    pub(super) fn outputs(&self) -> usize {
        self.shape[0]
    }

    pub(super) fn inputs(&self) -> usize {
        self.shape[1]
    }

    /// Elements of the plane of one output and one input.
    pub(super) fn plane(&self) -> usize {
        self.shape[2] * self.shape[3]
    }

    /// Column o holds what output o has, in order (i, h, w).
    pub(super) fn by_output(&self) -> Mat<f64> {
        transposed(self.values, self.outputs(), self.inputs() * self.plane())
    }

    /// Column i holds what input i has, in order (o, h, w).
    pub(super) fn by_input(&self) -> Mat<f64> {
        let (inputs, plane) = (self.inputs(), self.plane());
        Mat::from_fn(self.outputs() * plane, inputs, |row, i| {
            f64::from(self.values[(row / plane * inputs + i) * plane + row % plane])
        })
    }

    /// Σ of squared differences of two kernels' outputs over all patches whose Gram matrix is `moments` `[I·kh·kw, I·kh·kw]`,
    /// in order (i, h, w), as a share of the squared outputs of this one; its root.
    pub fn outputs_error(&self, other: &[f32], moments: &[f32]) -> Result<f64> {
        let patch = self.inputs() * self.plane();
        check(other, self.outputs(), patch)?;
        check(moments, patch, patch)?;
        let gram = transposed(moments, patch, patch);
        let energy = |whole: &Mat<f64>| {
            let weighed = product(gram.as_ref(), whole.as_ref());
            let columns = whole.col_iter().zip(weighed.col_iter());
            columns
                .map(|(a, b)| a.iter().zip(b.iter()).map(|(a, b)| a * b).sum::<f64>())
                .sum::<f64>()
        };
        let whole = self.by_output();
        let gap = &whole - transposed(other, self.outputs(), patch);
        Ok(root_share(energy(&gap).max(0.0), energy(&whole)))
    }
}

fn root_share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).sqrt() } else { 0.0 }
}

/// One convolution of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Row-major.
    pub values: Vec<f32>,
    /// `[out, in / groups, h, w]`.
    pub shape: [usize; 4],
    /// As frameworks count them: 1, or the inputs of a depthwise convolution.
    pub groups: usize,
    /// Whether it takes over stride, padding and dilation of the rows, and of the columns; a stage that does not has 1, 0 and 1.
    pub spans: [bool; 2],
}

/// Convolutions that follow each other without anything between them; a bias belongs to the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// In the order in which they run.
    pub stages: Vec<Stage>,
    /// Root of the squared distance from the kernel over its squared norm; 0 for a kernel of zeros.
    pub relative_error: f64,
}

/// A stage in f64, before it is balanced against its neighbours.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    values: Vec<f64>,
    shape: [usize; 4],
    groups: usize,
    spans: [bool; 2],
}

impl Draft {
    pub(super) fn new(shape: [usize; 4], spans: [bool; 2], at: impl Fn([usize; 4]) -> f64) -> Self {
        let [outputs, inputs, height, width] = shape;
        let mut values = Vec::with_capacity(outputs * inputs * height * width);
        for o in 0..outputs {
            for i in 0..inputs {
                for h in 0..height {
                    values.extend((0..width).map(|w| at([o, i, h, w])));
                }
            }
        }
        Self {
            values,
            shape,
            groups: 1,
            spans,
        }
    }

    /// Pointwise `[outputs, inputs, 1, 1]` with the rows of a matrix.
    pub(super) fn pointwise(matrix: MatRef<'_, f64>) -> Self {
        let shape = [matrix.nrows(), matrix.ncols(), 1, 1];
        Self::new(shape, [false; 2], |[o, i, ..]| matrix[(o, i)])
    }

    /// The same values as a convolution of so many groups.
    #[must_use]
    pub(super) fn grouped(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Indices of what belongs to an output channel, or to an input channel counted over all groups.
    fn of_output(&self, channel: usize) -> impl Iterator<Item = usize> + use<> {
        let width = self.shape[1..].iter().product::<usize>();
        channel * width..(channel + 1) * width
    }

    fn of_input(&self, channel: usize) -> impl Iterator<Item = usize> + use<> {
        let [outputs, inputs, height, width] = self.shape;
        let (plane, per_group) = (height * width, outputs / self.groups);
        let (group, inner) = (channel / inputs, channel % inputs);
        (group * per_group..(group + 1) * per_group).flat_map(move |o| {
            let first = (o * inputs + inner) * plane;
            first..first + plane
        })
    }

    fn stored(self) -> Result<Stage> {
        let values: Vec<f32> = self.values.iter().map(|v| *v as f32).collect();
        check_finite(&values, 0)?;
        Ok(Stage {
            values,
            shape: self.shape,
            groups: self.groups,
            spans: self.spans,
        })
    }
}

/// Gives what leads into a channel between two stages the same norm as what leads out of it.
fn balance(drafts: &mut [Draft]) {
    for at in 1..drafts.len() {
        let (before, after) = drafts.split_at_mut(at);
        let (Some(first), Some(second)) = (before.last_mut(), after.first_mut()) else {
            return;
        };
        for channel in 0..first.shape[0] {
            let into: f64 = first.of_output(channel).map(|k| first.values[k].powi(2)).sum();
            let out: f64 = second.of_input(channel).map(|k| second.values[k].powi(2)).sum();
            if into > 0.0 && out > 0.0 {
                let factor = (out / into).powf(0.25);
                first.of_output(channel).for_each(|k| first.values[k] *= factor);
                second.of_input(channel).for_each(|k| second.values[k] /= factor);
            }
        }
    }
}

impl Chain {
    /// Balances drafts, stores them and measures how far they are from the kernel.
    pub(super) fn of(kernel: &Kernel<'_>, mut drafts: Vec<Draft>) -> Result<Self> {
        (0..BALANCING).for_each(|_| balance(&mut drafts));
        let stages: Vec<Stage> = drafts.into_iter().map(Draft::stored).collect::<Result<_>>()?;
        let mut chain = Self {
            stages,
            relative_error: 0.0,
        };
        let back = chain.compose()?;
        if back.shape != kernel.shape {
            return Err(Error::internal(
                "stages do not multiply out to the shape of their kernel",
            ));
        }
        let pairs = back.values.iter().zip(kernel.values);
        let gap: f64 = pairs.map(|(a, b)| (a - f64::from(*b)).powi(2)).sum();
        chain.relative_error = root_share(gap, squared(kernel.by_output().as_ref()));
        Ok(chain)
    }

    /// Parameters of all stages.
    pub fn parameters(&self) -> usize {
        self.stages.iter().map(|stage| stage.values.len()).sum()
    }

    /// The one kernel `[O, I, kh, kw]` that does the same.
    ///
    /// # Errors
    /// `internal` where stages do not fit to each other.
    pub fn multiply_out(&self) -> Result<Vec<f32>> {
        Ok(self.compose()?.values.iter().map(|v| *v as f32).collect())
    }

    fn compose(&self) -> Result<Whole> {
        let (first, rest) = self
            .stages
            .split_first()
            .ok_or_else(|| Error::internal("a chain of convolutions has no stage"))?;
        first.check()?;
        let mut whole = Whole::of(first);
        for stage in rest {
            stage.check()?;
            if stage.shape[1] * stage.groups != whole.shape[0] {
                return Err(Error::internal(
                    "a stage has other inputs than the one before has outputs",
                ));
            }
            whole = whole.then(stage);
        }
        Ok(whole)
    }
}

impl Stage {
    fn check(&self) -> Result<()> {
        let whole = self.groups > 0 && self.shape[0].is_multiple_of(self.groups);
        if whole && self.shape.iter().product::<usize>() == self.values.len() && !self.values.is_empty() {
            return Ok(());
        }
        Err(Error::internal(
            "a stage's values do not fit its shape and groups",
        ))
    }
}

/// A dense kernel in f64.
struct Whole {
    values: Vec<f64>,
    shape: [usize; 4],
}

impl Whole {
    fn of(stage: &Stage) -> Self {
        let [outputs, inner, height, width] = stage.shape;
        let (row, inputs) = (inner * height * width, inner * stage.groups);
        let mut values = vec![0.0; outputs * row * stage.groups];
        for o in 0..outputs {
            let group = o * stage.groups / outputs;
            let to = &mut values[(o * stage.groups + group) * row..][..row];
            let from = &stage.values[o * row..(o + 1) * row];
            to.iter_mut().zip(from).for_each(|(to, v)| *to = f64::from(*v));
        }
        Self {
            values,
            shape: [outputs, inputs, height, width],
        }
    }

    fn then(&self, stage: &Stage) -> Self {
        let [_, inputs, h1, w1] = self.shape;
        let [outputs, inner, h2, w2] = stage.shape;
        let (height, width) = (h1 + h2 - 1, w1 + w2 - 1);
        let shape = [outputs, inputs, height, width];
        let mut values = vec![0.0; inputs * height * width * outputs];
        if stage.groups == 1 && h2 * w2 == 1 {
            // A matrix product, and often the largest.
            let rows = MatRef::from_column_major_slice(&self.values, inputs * h1 * w1, inner);
            let out = product(rows, transposed(&stage.values, outputs, inner).as_ref());
            let columns = values.chunks_mut(inputs * h1 * w1).zip(out.col_iter());
            columns.for_each(|(to, from)| to.iter_mut().zip(from.iter()).for_each(|(to, v)| *to = *v));
            return Self { values, shape };
        }
        let tasks = values.par_chunks_mut(inputs * height * width).enumerate();
        tasks.for_each(|(o, to)| {
            let first = o * stage.groups / outputs * inner;
            for (k, weight) in stage.values[o * inner * h2 * w2..][..inner * h2 * w2]
                .iter()
                .enumerate()
            {
                let (channel, h, w) = (first + k / (h2 * w2), k / w2 % h2, k % w2);
                self.add_shifted(f64::from(*weight), channel, (h, w), to, (height, width));
            }
        });
        Self { values, shape }
    }

    /// Adds a channel's kernel, so many rows and columns further, to one with planes of `sides`.
    fn add_shifted(
        &self,
        weight: f64,
        channel: usize,
        (h, w): (usize, usize),
        to: &mut [f64],
        sides: (usize, usize),
    ) {
        let [_, inputs, height, width] = self.shape;
        let row = inputs * height * width;
        let from = &self.values[channel * row..(channel + 1) * row];
        let planes = to.chunks_mut(sides.0 * sides.1).zip(from.chunks(height * width));
        for (to, from) in planes {
            for (y, from) in from.chunks(width).enumerate() {
                let to = &mut to[(y + h) * sides.1 + w..][..width];
                to.iter_mut().zip(from).for_each(|(to, v)| *to += weight * v);
            }
        }
    }
}

/// Bytes that multiplying out a chain for a kernel of this shape holds at its peak, with `channels` between its stages.
pub fn working_bytes(shape: [usize; 4], channels: usize) -> u64 {
    let [outputs, inputs, height, width] = shape;
    // The kernel so far, the next one as a product gives it and as it is kept, and the one it is compared with; the stage.
    8 * (inputs * height * width * (channels + 3 * outputs) + 2 * channels * outputs) as u64
}

#[cfg(test)]
mod tests;
