//! The values of a tensor, each once, with how much it weighs.
//!
//! Owns: finding equal values, adding up their weights, merging neighbours. Must not know: clusters.
//! Invariant: values ascend, are finite and never −0; weights are above 0. Sums have a fixed order, so the bits do not
//! depend on the number of threads.

use crate::error::{Error, Result};
use crate::kernels::check_finite;
use rayon::prelude::*;

/// Values that one task counts.
const CHUNK: usize = 1 << 19;
/// Up to so many values are sorted: to clear a table would take longer.
const FEW: usize = 1 << 15;
/// Bits that no value of f16, bf16 or an eight-bit float has set once it is an f32.
const UNUSED: u32 = 13;
/// Entries of a table: one for every sign, exponent and mantissa of ten bits.
const TABLE: usize = 1 << (32 - UNUSED);
const SIGN: usize = TABLE / 2;

/// Distinct values and their weights, parallel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distinct {
    values: Vec<f32>,
    weights: Vec<f64>,
}

impl Distinct {
    /// Those of a tensor whose rows are as long as `weights`: element `j` weighs `weights[j % weights.len()]`, which
    /// is at least 0. What weighs nothing is left out; where nothing weighs anything, or without weights, every
    /// element weighs 1.
    ///
    /// Values that came from sixteen bits are counted in a table, others are sorted.
    ///
    /// Errors: `non_finite_values`; `bad_column_weights` where a weight is negative or no number.
    pub fn of(values: &[f32], weights: Option<&[f32]>) -> Result<Self> {
        values
            .par_chunks(CHUNK)
            .enumerate()
            .try_for_each(|(i, chunk)| check_finite(chunk, i * CHUNK))?;
        let weights = usable_weights(weights)?;
        let few_bits =
            |chunk: &[f32]| chunk.iter().fold(0, |bits, v| bits | v.to_bits()) << (32 - UNUSED) == 0;
        if values.len() > FEW && values.par_chunks(CHUNK).all(few_bits) {
            return Ok(counted(values, weights));
        }
        Ok(match weights {
            None => sorted(values.par_iter().map(|v| ascending(*v)).collect(), |key| {
                (*key, 1.0)
            }),
            Some(weights) => {
                let pairs = values.par_iter().enumerate();
                let pairs = pairs.map(|(j, v)| (ascending(*v), weights[j % weights.len()].to_bits()));
                // Equal values are added up in order of weight: theirs in the tensor does not matter.
                sorted(pairs.collect(), |(key, weight)| {
                    (*key, f64::from(f32::from_bits(*weight)))
                })
            }
        })
    }

    /// The values, ascending.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The weight of each value, above 0.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes they take.
    pub fn bytes(&self) -> u64 {
        12 * self.len() as u64
    }

    /// The negative values, mirrored, and the positive ones: both ascend from zero, which is in neither.
    pub(super) fn sides(&self) -> [Self; 2] {
        let below = self.values.partition_point(|v| *v < 0.0);
        let above = self.values.partition_point(|v| *v <= 0.0);
        let negative = Self {
            values: self.values[..below].iter().rev().map(|v| -v).collect(),
            weights: self.weights[..below].iter().rev().copied().collect(),
        };
        let positive = Self {
            values: self.values[above..].to_vec(),
            weights: self.weights[above..].to_vec(),
        };
        [negative, positive]
    }

    /// Neighbours merged into their mean. No merged value spans more than one part in `parts` of the range or of the
    /// weight (a single value may weigh more), and there are at most `2 * parts` of them.
    #[must_use]
    pub(super) fn merged(&self, parts: usize) -> Self {
        let (Some(first), Some(last)) = (self.values.first(), self.values.last()) else {
            return Self::default();
        };
        let low = f64::from(*first);
        let by_range = parts as f64 / (f64::from(*last) - low).max(f64::MIN_POSITIVE);
        let by_weight = parts as f64 / self.weights.iter().sum::<f64>();
        let mut made = Self::default();
        let (mut cell, mut before) = ((usize::MAX, 0), 0.0);
        let (mut sum, mut weight) = (0.0, 0.0);
        for (v, w) in self.values.iter().zip(&self.weights) {
            let v = f64::from(*v);
            let own = (((v - low) * by_range) as usize, (before * by_weight) as usize);
            if own != cell {
                made.push(sum, weight);
                (cell, sum, weight) = (own, 0.0, 0.0);
            }
            sum += w * v;
            weight += w;
            before += w;
        }
        made.push(sum, weight);
        made
    }

    /// A mean, unless nothing was summed.
    fn push(&mut self, sum: f64, weight: f64) {
        if weight > 0.0 {
            self.values.push((sum / weight) as f32 + 0.0);
            self.weights.push(weight);
        }
    }
}

/// The weights, if there are any that tell elements apart from nothing.
pub(super) fn usable_weights(weights: Option<&[f32]>) -> Result<Option<&[f32]>> {
    let Some(weights) = weights else {
        return Ok(None);
    };
    if let Some(at) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
        return Err(Error::bad_input(
            "bad_column_weights",
            format!(
                "the weight of column {at} is {}: give one that is at least 0",
                weights[at]
            ),
        ));
    }
    Ok(weights.iter().any(|w| *w > 0.0).then_some(weights))
}

/// A key that ascends with the value; −0 is 0.
fn ascending(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    bits ^ if bits >> 31 == 0 { 1 << 31 } else { u32::MAX }
}

/// The value of a key.
fn value_of(key: u32) -> f32 {
    f32::from_bits(key ^ if key >> 31 == 1 { 1 << 31 } else { u32::MAX })
}

/// Sorts keys, whatever else they carry, and adds up runs of equal ones.
fn sorted<T: Copy + Ord + Send>(mut list: Vec<T>, read: impl Fn(&T) -> (u32, f64)) -> Distinct {
    list.par_sort_unstable();
    let mut made = Distinct::default();
    for run in list.chunk_by(|a, b| read(a).0 == read(b).0) {
        let weight: f64 = run.iter().map(|item| read(item).1).sum();
        if weight > 0.0 {
            made.values.push(value_of(read(&run[0]).0));
            made.weights.push(weight);
        }
    }
    made
}

/// Counts values whose last bits are not in use: a table for each chunk, added up in the order of chunks.
fn counted(values: &[f32], weights: Option<&[f32]>) -> Distinct {
    let table = || vec![0f64; TABLE];
    let chunks: Vec<Vec<(u32, f64)>> = values
        .par_chunks(CHUNK)
        .enumerate()
        .map_init(table, |table, (i, chunk)| {
            count(chunk, i * CHUNK, weights, table);
            let entries = table.iter_mut().enumerate().filter(|(_, sum)| **sum > 0.0);
            entries
                .map(|(symbol, sum)| (symbol as u32, std::mem::take(sum)))
                .collect()
        })
        .collect();
    let mut total = table();
    for (symbol, sum) in chunks.iter().flatten() {
        total[*symbol as usize] += sum;
    }
    let mut made = Distinct::default();
    for symbol in (SIGN..TABLE).rev().chain(0..SIGN).filter(|s| total[*s] > 0.0) {
        made.values.push(f32::from_bits((symbol as u32) << UNUSED));
        made.weights.push(total[symbol]);
    }
    made
}

/// Adds a chunk whose first value is the tensor's `first`.
fn count(chunk: &[f32], first: usize, weights: Option<&[f32]>, table: &mut [f64]) {
    let symbol = |v: &f32| ((v + 0.0).to_bits() >> UNUSED) as usize;
    let Some(weights) = weights else {
        for v in chunk {
            table[symbol(v)] += 1.0;
        }
        return;
    };
    let mut rest = chunk;
    let mut column = first % weights.len();
    while !rest.is_empty() {
        let (row, after) = rest.split_at(rest.len().min(weights.len() - column));
        for (v, w) in row.iter().zip(&weights[column..]) {
            table[symbol(v)] += f64::from(*w);
        }
        (rest, column) = (after, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Values of so many bits that some occur often, a zero of each sign among them.
    fn pattern(n: usize, bits: u32) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 % 10_007) as f32 - 5000.0) / 3000.0;
        let cut = |v: f32| f32::from_bits(v.to_bits() >> bits << bits);
        let mut values: Vec<f32> = (0..n).map(|i| cut(value(i))).collect();
        values.extend([0.0, -0.0, 1e-30, -1e30].map(cut));
        values
    }

    /// By a map from key to weight.
    fn reference(values: &[f32], weights: &[f32]) -> Vec<(f32, f64)> {
        let mut sums = std::collections::BTreeMap::new();
        for (j, v) in values.iter().enumerate() {
            *sums.entry(ascending(*v)).or_insert(0.0) += f64::from(weights[j % weights.len()]);
        }
        let kept = sums.into_iter().filter(|(_, w)| *w > 0.0);
        kept.map(|(key, w)| (value_of(key), w)).collect()
    }

    fn pairs(distinct: &Distinct) -> Vec<(f32, f64)> {
        distinct
            .values
            .iter()
            .copied()
            .zip(distinct.weights.iter().copied())
            .collect()
    }

    #[test]
    fn a_table_and_a_sort_count_as_a_map_does() {
        // Halves and whole weights: sums are exact in any order.
        let weights: Vec<f32> = (0..96).map(|j| (j % 5) as f32 * 0.5).collect();
        for bits in [0, UNUSED, 16] {
            for n in [0, 1000, FEW + 1, 2 * CHUNK + 17] {
                let values = pattern(n, bits);
                let plain = Distinct::of(&values, None).unwrap();
                assert_eq!(pairs(&plain), reference(&values, &[1.0]), "{bits} {n}");
                let weighted = Distinct::of(&values, Some(&weights)).unwrap();
                assert_eq!(pairs(&weighted), reference(&values, &weights), "{bits} {n}");
                assert!(plain.values.iter().all(|v| v.to_bits() != (-0f32).to_bits()));
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let weights: Vec<f32> = (0..48).map(|j| 0.1 + (j as f32).sin().abs()).collect();
        for bits in [0, 16] {
            let values = pattern(3 * CHUNK + 5, bits);
            let [one, three] = [1, 3].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| Distinct::of(&values, Some(&weights))).unwrap()
            });
            assert_eq!(one, three);
        }
    }

    #[test]
    fn every_bfloat_is_told_apart() {
        let all = (0..=u16::MAX).map(bf16::from_bits).filter(|v| v.is_finite());
        let values: Vec<f32> = all.map(bf16::to_f32).collect();
        let distinct = Distinct::of(&values, None).unwrap();
        // Both zeros are one.
        assert_eq!(distinct.len(), values.len() - 1);
        assert!(distinct.values.is_sorted());
    }

    #[test]
    fn what_weighs_nothing_is_left_out_unless_all_does() {
        let values = [1.0, 2.0, 3.0, 2.0];
        let some = Distinct::of(&values, Some(&[1.0, 0.0])).unwrap();
        assert_eq!(pairs(&some), [(1.0, 1.0), (3.0, 1.0)]);
        let none = Distinct::of(&values, Some(&[0.0, 0.0])).unwrap();
        assert_eq!(pairs(&none), [(1.0, 1.0), (2.0, 2.0), (3.0, 1.0)]);
    }

    #[test]
    fn merged_values_keep_weight_and_mean() {
        let distinct = Distinct::of(&pattern(50_000, 0)[..50_000], None).unwrap();
        let merged = distinct.merged(100);
        assert!(
            merged.len() <= 200 && merged.values.is_sorted_by(|a, b| a < b),
            "{}",
            merged.len()
        );
        let moments = |d: &Distinct| {
            pairs(d)
                .iter()
                .fold((0.0, 0.0), |m, (v, w)| (m.0 + w, m.1 + w * f64::from(*v)))
        };
        let (a, b) = (moments(&distinct), moments(&merged));
        assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-3, "{a:?} {b:?}");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let code = Distinct::of(&[1.0, bad], None).unwrap_err().code;
            assert_eq!(code, "non_finite_values");
            let code = Distinct::of(&[1.0], Some(&[bad])).unwrap_err().code;
            assert_eq!(code, "bad_column_weights");
        }
        assert_eq!(
            Distinct::of(&[1.0], Some(&[-1.0])).unwrap_err().code,
            "bad_column_weights"
        );
    }
}
