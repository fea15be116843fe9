//! Codes of values: which centroid is nearest.
//!
//! Owns: the boundaries between centroids and the search among them. Must not know: how centroids are found.
//! Invariant: every value has the code of its nearest centroid, of two equals the lower, on every path.

use super::MAX_CENTROIDS;
use crate::error::{Error, Result};
use crate::kernels::{check_finite, wide};
use rayon::prelude::*;

/// Values that one task assigns.
const CHUNK: usize = 1 << 16;
/// Up to so many boundaries are all compared with, which vectorises.
const FEW: usize = 31;
/// Cells of the range, for each boundary at least eight where there are 4,096.
const CELLS: usize = 1 << 15;

/// Codes, in bytes where they fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codes {
    /// Of at most 256 centroids.
    Narrow(Vec<u8>),
    /// Of more.
    Wide(Vec<u16>),
}

impl Codes {
    /// So many zeros for codes below `centroids`.
    pub(super) fn zeros(count: usize, centroids: usize) -> Self {
        if centroids <= 256 {
            Self::Narrow(vec![0; count])
        } else {
            Self::Wide(vec![0; count])
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Narrow(codes) => codes.len(),
            Self::Wide(codes) => codes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The code of an element.
    pub fn get(&self, at: usize) -> Option<usize> {
        match self {
            Self::Narrow(codes) => codes.get(at).map(|c| usize::from(*c)),
            Self::Wide(codes) => codes.get(at).map(|c| usize::from(*c)),
        }
    }
}

/// A code as it is stored.
pub(super) trait Code: Copy + Send {
    /// The code; a codebook has no more centroids than the type has values.
    fn of(code: usize) -> Self;
}

impl Code for u8 {
    fn of(code: usize) -> Self {
        code as Self
    }
}

impl Code for u16 {
    fn of(code: usize) -> Self {
        code as Self
    }
}

/// Codes of `values` by `centroids`, which ascend and are 1 to 4,096.
///
/// Errors: `non_finite_values`; `bad_codebook` where centroids are none, too many, not finite or do not ascend.
pub fn assign(values: &[f32], centroids: &[f32]) -> Result<Codes> {
    let boundaries = Boundaries::between(centroids)?;
    let mut codes = Codes::zeros(values.len(), centroids.len());
    match &mut codes {
        Codes::Narrow(codes) => boundaries.assign_all(values, codes)?,
        Codes::Wide(codes) => boundaries.assign_all(values, codes)?,
    }
    Ok(codes)
}

/// What separates the clusters of ascending centroids.
pub(super) struct Boundaries {
    /// Entry `c` is the largest value of cluster `c`; the last cluster has no entry.
    tops: Vec<f32>,
    cells: Option<Cells>,
}

/// The range of boundaries in equal cells.
struct Cells {
    low: f32,
    inverse: f32,
    /// Boundaries before each cell and, at its end, before what comes after all.
    before: Vec<u16>,
}

impl Boundaries {
    /// Those of a codebook.
    pub(super) fn between(centroids: &[f32]) -> Result<Self> {
        let refuse = |what: String| Err(Error::bad_input("bad_codebook", what));
        if centroids.is_empty() || centroids.len() > MAX_CENTROIDS {
            return refuse(format!(
                "{} centroids: a codebook has 1 to {MAX_CENTROIDS}",
                centroids.len()
            ));
        }
        if !(centroids.iter().all(|c| c.is_finite()) && centroids.is_sorted()) {
            return refuse("the centroids of a codebook are finite and ascend".into());
        }
        let tops: Vec<f32> = centroids.windows(2).map(|pair| top(pair[0], pair[1])).collect();
        let cells = (tops.len() > FEW).then(|| Cells::of(&tops)).flatten();
        Ok(Self { tops, cells })
    }

    fn assign_all<C: Code>(&self, values: &[f32], codes: &mut [C]) -> Result<()>
    where
        Self: Assign<C>,
    {
        codes
            .par_chunks_mut(CHUNK)
            .zip(values.par_chunks(CHUNK))
            .enumerate()
            .try_for_each(|(i, (codes, values))| {
                check_finite(values, i * CHUNK)?;
                self.assign(values, codes);
                Ok(())
            })
    }
}

/// Assigns finite values to codes of a type.
pub(super) trait Assign<C> {
    /// The code of each value.
    fn assign(&self, values: &[f32], codes: &mut [C]);
}

impl Assign<u8> for Boundaries {
    fn assign(&self, values: &[f32], codes: &mut [u8]) {
        if self.tops.len() <= FEW {
            compare(values, &self.tops, codes);
        } else {
            search(self, values, codes);
        }
    }
}

impl Assign<u16> for Boundaries {
    fn assign(&self, values: &[f32], codes: &mut [u16]) {
        search(self, values, codes);
    }
}

wide! {
    /// A code is the number of boundaries below its value.
    fn compare(values: &[f32], tops: &[f32], codes: &mut [u8]) {
        for (values, codes) in values.chunks(64).zip(codes.chunks_mut(64)) {
            codes.fill(0);
            for top in tops {
                for (code, value) in codes.iter_mut().zip(values) {
                    *code += u8::from(*value > *top);
                }
            }
        }
    }
}

/// Looks for the boundary in the value's cell.
fn search<C: Code>(boundaries: &Boundaries, values: &[f32], codes: &mut [C]) {
    let tops = &boundaries.tops;
    for (code, value) in codes.iter_mut().zip(values) {
        let (from, to) = boundaries.cells.as_ref().map_or((0, tops.len()), |cells| {
            let cell = cells.cell(*value);
            (
                usize::from(cells.before[cell]),
                usize::from(cells.before[cell + 1]),
            )
        });
        // Most cells have no boundary or one.
        *code = C::of(from + tops[from..to].partition_point(|top| *value > *top));
    }
}

impl Cells {
    /// None where the range is too small or too large for f32.
    fn of(tops: &[f32]) -> Option<Self> {
        let (low, high) = (*tops.first()?, *tops.last()?);
        let inverse = CELLS as f32 / (high - low);
        if !inverse.is_normal() {
            return None;
        }
        let mut made = Self {
            low,
            inverse,
            before: vec![0; CELLS + 1],
        };
        for top in tops {
            let cell = made.cell(*top);
            made.before[cell + 1] += 1;
        }
        for cell in 0..CELLS {
            made.before[cell + 1] += made.before[cell];
        }
        Some(made)
    }

    /// Rounding never swaps two values, so what lies in an earlier cell than a boundary lies below it.
    #[inline]
    fn cell(&self, value: f32) -> usize {
        (((value - self.low) * self.inverse) as usize).min(CELLS - 1)
    }
}

/// The largest f32 that is as near to `low` as to `high`, or nearer.
fn top(low: f32, high: f32) -> f32 {
    let middle = 0.5 * (f64::from(low) + f64::from(high));
    let nearest = middle as f32;
    if f64::from(nearest) > middle {
        nearest.next_down()
    } else {
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Random;
    use proptest::prelude::*;

    fn nearest(value: f32, centroids: &[f32]) -> usize {
        let gap = |c: &f32| (f64::from(value) - f64::from(*c)).abs();
        let mut best = 0;
        for (i, c) in centroids.iter().enumerate() {
            if gap(c) < gap(&centroids[best]) {
                best = i;
            }
        }
        best
    }

    fn codebook(k: usize, random: &mut Random) -> Vec<f32> {
        let mut made: Vec<f32> = (0..k).map(|_| (random.share() as f32 - 0.5).powi(3)).collect();
        made.sort_by(f32::total_cmp);
        made
    }

    #[test]
    fn codes_are_of_the_nearest_centroid_for_any_codebook() {
        let mut random = Random::new(1);
        for k in [1, 2, 3, 16, 32, 33, 256, 257, 4096] {
            let centroids = codebook(k, &mut random);
            let mut values: Vec<f32> = (0..3000)
                .map(|_| (random.share() as f32 - 0.5).powi(3) * 1.1)
                .collect();
            values.extend([0.0, -0.0, 1e3, -1e3]);
            values.extend(centroids.windows(2).map(|pair| top(pair[0], pair[1])));
            values.extend_from_slice(&centroids);
            let codes = assign(&values, &centroids).unwrap();
            assert_eq!(matches!(codes, Codes::Narrow(_)), k <= 256);
            for (at, value) in values.iter().enumerate() {
                assert_eq!(codes.get(at), Some(nearest(*value, &centroids)), "{value} of {k}");
            }
        }
    }

    #[test]
    fn extreme_codebooks_need_no_cells() {
        for scale in [f32::MIN_POSITIVE * 1e-4, 1e-30, 1e30, 1e36] {
            let centroids: Vec<f32> = (0..100).map(|i| (i as f32 - 50.0) * scale).collect();
            let codes = assign(&centroids, &centroids).unwrap();
            assert!(
                (0..100).all(|i| centroids[codes.get(i).unwrap()] == centroids[i]),
                "{scale}"
            );
            let far = assign(&[f32::MAX, f32::MIN], &centroids).unwrap();
            assert_eq!((far.get(0), far.get(1)), (Some(99), Some(0)));
        }
    }

    #[test]
    fn a_tie_goes_to_the_lower() {
        assert_eq!(
            assign(&[0.5, -0.5, 1.5], &[-1.0, 0.0, 1.0, 2.0]).unwrap(),
            Codes::Narrow(vec![1, 0, 2])
        );
        assert_eq!(assign(&[3.0], &[3.0, 3.0]).unwrap(), Codes::Narrow(vec![0]));
    }

    #[test]
    fn bad_codebooks_and_values_are_refused() {
        for bad in [
            &[][..],
            &[1.0, 0.0],
            &[f32::NAN],
            &[0.0, f32::INFINITY],
            &vec![0.0; MAX_CENTROIDS + 1],
        ] {
            assert_eq!(assign(&[1.0], bad).unwrap_err().code, "bad_codebook");
        }
        assert_eq!(assign(&[f32::NAN], &[0.0]).unwrap_err().code, "non_finite_values");
    }

    proptest! {
        #[test]
        fn no_centroid_is_nearer(
            values in prop::collection::vec(prop::num::f32::NORMAL, 50),
            mut centroids in prop::collection::vec(prop::num::f32::NORMAL, 1..70),
        ) {
            centroids.sort_by(f32::total_cmp);
            let codes = assign(&values, &centroids).unwrap();
            for (at, value) in values.iter().enumerate() {
                let gap = |c: f32| (f64::from(*value) - f64::from(c)).abs();
                let own = gap(centroids[codes.get(at).unwrap()]);
                // Midpoints are taken in f64: two gaps may differ by its last bit.
                prop_assert!(centroids.iter().all(|c| own <= gap(*c) * (1.0 + 1e-15)));
            }
        }
    }
}
