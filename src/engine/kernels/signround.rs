//! Rounding that is learned: `SignRound`, the method of `AutoRound` (Cheng et al. 2023).
//!
//! Owns: what is learned of one matrix, its rounding, a step by the sign of its gradient. Must not know: where gradients
//! come from. Invariant: what multiplies while it is learned is, to the bit, what the codes stand for.

use super::affine::{Grid, Spec, assemble};
use super::wide;
use crate::error::{Error, Result};
use crate::weight::Affine;
use rayon::prelude::*;

/// Part of a scale's slope so far that each step keeps. Places have none: what a few thousand tokens say about each of
/// millions of weights is mostly noise, which shall cancel out instead of carrying on.
const MOMENTUM: f32 = 0.9;
/// Bounds of what a scale is multiplied by.
const STRETCH: (f32, f32) = (0.5, 1.5);
/// Elements that one task handles at least.
const TASK: usize = 32 * 1024;

/// The grid that a group began with, and what its scale is multiplied by. Its codes stay as they are meanwhile: a better
/// scale for them is no reason to round anything differently.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretched {
    start: Grid,
    factor: f32,
    slope: f32,
}

/// How far a step goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Of places, in steps of the grid.
    pub round: f32,
    /// Of scales, as a part of them; 0 leaves them.
    pub scale: f32,
}

/// A matrix whose rounding is learned.
#[derive(Clone, Debug)]
pub struct SignRound {
    spec: Spec,
    cols: usize,
    /// Where each element lies among the codes, before it is rounded.
    places: Vec<f32>,
    groups: Vec<Stretched>,
}

impl SignRound {
    /// Starts at `values` rounded on the grids of `start`.
    pub fn new(spec: Spec, mut values: Vec<f32>, start: &Affine) -> Result<Self> {
        let (groups, size) = spec.granularity.groups(start.cols);
        let fits = start.scales.len() == start.rows * groups && values.len() == start.rows * start.cols;
        if !fits || start.zeros.len() != start.scales.len() {
            return Err(Error::internal("learned rounding of a matrix without its grids"));
        }
        let grids = start.scales.iter().zip(&start.zeros);
        let stretched = |(scale, zero): (&f32, &u8)| Stretched {
            start: Grid {
                scale: *scale,
                zero: *zero,
            },
            factor: 1.0,
            slope: 0.0,
        };
        let groups: Vec<Stretched> = grids.map(stretched).collect();
        for (values, group) in values.chunks_mut(size.max(1)).zip(&groups) {
            for value in values {
                *value = *value / group.start.scale + f32::from(group.start.zero);
            }
        }
        Ok(Self {
            spec,
            cols: start.cols,
            places: values,
            groups,
        })
    }

    /// Columns of a group, and elements and groups of a task.
    fn sizes(&self) -> (usize, usize, usize) {
        let (groups, size) = self.spec.granularity.groups(self.cols);
        let rows = TASK.div_ceil(self.cols.max(1));
        (size.max(1), (rows * self.cols).max(1), (rows * groups).max(1))
    }

    /// The weight as it would be written now.
    pub fn rounded(&self) -> Vec<f32> {
        let (size, elements, groups) = self.sizes();
        let mut out = vec![0.0; self.places.len()];
        out.par_chunks_mut(elements)
            .zip(self.places.par_chunks(elements))
            .zip(self.groups.par_chunks(groups))
            .for_each(|((out, places), groups)| {
                let each = places.chunks(size).zip(out.chunks_mut(size));
                for ((places, out), group) in each.zip(groups) {
                    round(&self.spec, group.grid(&self.spec), places, out);
                }
            });
        out
    }

    /// Codes and scales.
    pub fn quantized(&self) -> Result<Affine> {
        let grids: Vec<Grid> = self.groups.iter().map(|g| g.grid(&self.spec)).collect();
        let top = self.spec.top();
        let code = |place: &f32| place.round_ties_even().clamp(0.0, top) as u8;
        let codes = self.places.par_iter().map(code).collect();
        assemble(&self.spec, codes, self.cols, &grids)
    }

    /// One step against the sign of the slope by each parameter; `by_weight` is the slope by [`Self::rounded`].
    pub fn step(&mut self, by_weight: &[f32], rate: Rate) {
        let (size, elements, groups) = self.sizes();
        let spec = &self.spec;
        self.places
            .par_chunks_mut(elements)
            .zip(by_weight.par_chunks(elements))
            .zip(self.groups.par_chunks_mut(groups))
            .for_each(|((places, by_weight), groups)| {
                let each = places.chunks_mut(size).zip(by_weight.chunks(size));
                for ((places, by_weight), group) in each.zip(groups) {
                    let mut by_scale = 0.0;
                    descend(spec, group.start, places, by_weight, rate.round, &mut by_scale);
                    group.step(by_scale, rate.scale);
                }
            });
    }
}

impl Stretched {
    fn grid(&self, spec: &Spec) -> Grid {
        if self.factor == 1.0 {
            return self.start;
        }
        let scale = spec.stored(self.start.scale * self.factor);
        Grid { scale, ..self.start }
    }

    fn step(&mut self, by_scale: f32, rate: f32) {
        self.slope = MOMENTUM * self.slope + (1.0 - MOMENTUM) * by_scale * self.start.scale;
        self.factor = (self.factor - rate * sign(self.slope)).clamp(STRETCH.0, STRETCH.1);
    }
}

/// 0 where there is no slope: such a parameter stays.
#[inline(always)]
fn sign(v: f32) -> f32 {
    if v > 0.0 {
        1.0
    } else if v < 0.0 {
        -1.0
    } else {
        0.0
    }
}

wide! {
    fn round(spec: &Spec, grid: Grid, places: &[f32], out: &mut [f32]) {
        let top = spec.top();
        for (out, place) in out.iter_mut().zip(places) {
            *out = spec.value(place.round_ties_even().clamp(0.0, top), grid);
        }
    }
}

wide! {
    /// Moves the places of a group; sums up the slope by its scale. Rounding passes slopes straight through (Bengio et
    /// al. 2013), clamping does not.
    fn descend(
        spec: &Spec,
        grid: Grid,
        places: &mut [f32],
        by_weight: &[f32],
        rate: f32,
        by_scale: &mut f32,
    ) {
        let (top, zero) = (spec.top(), f32::from(grid.zero));
        let rate = if grid.scale < 0.0 { -rate } else { rate };
        let mut sums = [0f32; 16];
        for (places, by_weight) in places.chunks_mut(16).zip(by_weight.chunks(16)) {
            for ((place, by_weight), sum) in places.iter_mut().zip(by_weight).zip(&mut sums) {
                let code = place.round_ties_even();
                let held = code.clamp(0.0, top);
                *sum += by_weight * (held - zero);
                let inside = if code == held { *by_weight } else { 0.0 };
                *place -= rate * sign(inside);
            }
        }
        *by_scale = sums.iter().sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::affine::{Range, quantize};
    use crate::kernels::random::Random;
    use crate::tensor::{DType, MemoryRows, Rows};
    use crate::weight::Granularity;

    const COLS: usize = 48;

    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        let mut one = || random.below(1 << 20) as f32 / f32::from(1u16 << 15) - 16.0;
        (0..count).map(|_| (one() + one() + one()) / 20.0).collect()
    }

    fn spec(symmetric: bool, scale_dtype: DType) -> Spec {
        Spec {
            n_bits: 3,
            symmetric,
            granularity: Granularity::Group(16),
            scale_dtype,
            range: Range::Mse,
            signed_scales: symmetric,
        }
    }

    fn start(spec: &Spec, values: &[f32]) -> (SignRound, Affine) {
        let rows = MemoryRows { values, cols: COLS };
        let nearest = quantize(&rows, spec).unwrap();
        (SignRound::new(*spec, values.to_vec(), &nearest).unwrap(), nearest)
    }

    fn written(weight: &Affine) -> Vec<f32> {
        let mut back = vec![0.0; weight.codes.len()];
        weight.read(0, &mut back).unwrap();
        back
    }

    #[test]
    fn it_starts_at_nearest_and_multiplies_what_is_written() {
        let values = noise(5 * COLS, 1);
        for (symmetric, dtype) in [(true, DType::BF16), (false, DType::F16), (false, DType::F32)] {
            let spec = spec(symmetric, dtype);
            let (mut learned, nearest) = start(&spec, &values);
            assert_eq!(learned.quantized().unwrap().codes, nearest.codes);
            for step in 0..20 {
                let rate = Rate {
                    round: 0.05,
                    scale: 0.01,
                };
                learned.step(&noise(values.len(), 100 + step), rate);
                assert_eq!(learned.rounded(), written(&learned.quantized().unwrap()));
            }
            assert_ne!(learned.quantized().unwrap().codes, nearest.codes);
            assert!(learned.groups.iter().any(|g| g.factor != 1.0));
        }
    }

    /// A sum of outputs that rounding to nearest misses is met by shifting some weights the other way.
    #[test]
    fn steps_lower_the_error_of_a_product() {
        let values = noise(COLS, 5);
        let x: Vec<f32> = noise(COLS, 6).iter().map(|v| v + 1.0).collect();
        let gap = |w: &[f32]| -> f32 { w.iter().zip(&values).zip(&x).map(|((a, b), x)| (a - b) * x).sum() };
        for symmetric in [true, false] {
            let (mut learned, _) = start(&spec(symmetric, DType::F32), &values);
            let before = gap(&learned.rounded()).abs();
            let mut least = before;
            for step in 0..100 {
                let error = gap(&learned.rounded());
                let slopes: Vec<f32> = x.iter().map(|x| x * error).collect();
                let rate = 0.01 * (1.0 - step as f32 / 100.0);
                learned.step(
                    &slopes,
                    Rate {
                        round: rate,
                        scale: rate,
                    },
                );
                least = least.min(gap(&learned.rounded()).abs());
            }
            assert!(least < 0.25 * before, "{symmetric}: {before} {least}");
        }
    }

    #[test]
    fn a_scale_follows_its_codes() {
        let values = noise(COLS, 11);
        let (mut learned, nearest) = start(&spec(true, DType::F32), &values);
        // Everything shall be larger in magnitude than it is.
        let slopes: Vec<f32> = learned.rounded().iter().map(|v| -v).collect();
        learned.step(
            &slopes,
            Rate {
                round: 0.0,
                scale: 0.1,
            },
        );
        let now = learned.quantized().unwrap();
        assert_eq!(now.codes, nearest.codes);
        for (now, before) in now.scales.iter().zip(&nearest.scales) {
            assert!((now / before - 1.1).abs() < 1e-6, "{now} {before}");
        }
    }

    #[test]
    fn no_slope_moves_nothing() {
        let values = noise(COLS, 9);
        let (mut learned, nearest) = start(&spec(true, DType::F32), &values);
        learned.step(
            &[0.0; COLS],
            Rate {
                round: 0.5,
                scale: 0.5,
            },
        );
        let now = learned.quantized().unwrap();
        assert_eq!((now.codes, now.scales), (nearest.codes, nearest.scales));
    }
}
