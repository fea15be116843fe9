//! Measures one tensor against what it became.
//!
//! Owns: error sums and entropies. Must not know: techniques, formats.
//! Invariant: sums are taken chunk by chunk in row order, so they do not depend on the number of threads; what is
//! reported is finite, and so is what was made.

use super::TensorReport;
use super::suspect;
use crate::error::Result;
use crate::kernels::wide;
use crate::plan::TensorPlan;
use crate::tensor::{DType, Rows, try_fold_chunks};
use crate::weight::{Kind, Weight};
use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Clone, Copy, Default)]
struct Sums {
    signal: f64,
    error: f64,
    worst: f32,
}

/// Compares `source` with `weight`, both read as rows.
pub fn measure(tensor: &TensorPlan, source: &dyn Rows, weight: &Weight) -> Result<TensorReport> {
    let n = tensor.elements();
    let symbols = Symbols::new(tensor.source_dtype, n);
    let after = weight.as_rows();
    let same_type = matches!(tensor.kind, Kind::Dense { dtype } if dtype == tensor.source_dtype);
    let unchanged = same_type && tensor.steps.iter().all(|step| step.kind == tensor.kind);
    let parts = if n == 0 || !tensor.source_dtype.is_float() {
        Vec::new()
    } else {
        try_fold_chunks(source, |first, values| {
            symbols.count(values);
            if unchanged {
                return Ok(square(values));
            }
            BACK.with_borrow_mut(|back| {
                back.resize(values.len(), 0.0);
                after.read(first, back)?;
                Ok(compare(values, back))
            })
        })?
    };
    let mut total = Sums::default();
    for part in &parts {
        total.signal += part.signal;
        total.error += part.error;
        total.worst = total.worst.max(part.worst);
    }
    if suspect::is(total.signal, total.error, total.worst) {
        let seen = suspect::look(tensor, source, after)?;
        (total.signal, total.error, total.worst) = (seen.signal, seen.error, seen.worst);
    }
    let (signal, mse) = (total.signal / n.max(1) as f64, total.error / n.max(1) as f64);
    let codes = weight.codes();
    Ok(TensorReport {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        parameters: n as u64,
        source_dtype: tensor.source_dtype.name().to_owned(),
        kind: tensor.kind.label(),
        compressed: tensor.kind.is_compressed(),
        source_entropy_bits: symbols.entropy(),
        code_entropy_bits: codes.as_ref().map_or(0.0, |codes| entropy(&codes.histogram)),
        mse,
        predicted_mse: codes.map(|codes| codes.mean_square_step / 12.0),
        snr_db: (mse > 0.0 && signal > 0.0).then(|| 10.0 * (signal / mse).log10()),
        max_abs_error: f64::from(total.worst),
        mean_square: signal,
    })
}

fn square(values: &[f32]) -> Sums {
    compare(values, values)
}

thread_local!(
    /// What a chunk became: one buffer a thread, as long as the longest chunk.
    static BACK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) }
);

fn compare(values: &[f32], back: &[f32]) -> Sums {
    let mut total = Sums::default();
    add_differences(values, back, &mut total);
    total
}

wide! {
/// Sixteen partial sums of 4,096 values each keep f32 sums accurate and let the loop be vectorised.
fn add_differences(values: &[f32], back: &[f32], total: &mut Sums) {
    for (values, back) in values.chunks(4096).zip(back.chunks(4096)) {
        let (mut signal, mut error, mut worst) = ([0f32; 16], [0f32; 16], [0f32; 16]);
        let (v16, v_rest) = values.as_chunks::<16>();
        let (b16, b_rest) = back.as_chunks::<16>();
        for (v, b) in v16.iter().zip(b16) {
            for i in 0..16 {
                let e = v[i] - b[i];
                signal[i] += v[i] * v[i];
                error[i] += e * e;
                let a = e.abs();
                worst[i] = if a > worst[i] { a } else { worst[i] };
            }
        }
        for (v, b) in v_rest.iter().zip(b_rest) {
            let e = v - b;
            signal[0] += v * v;
            error[0] += e * e;
            worst[0] = worst[0].max(e.abs());
        }
        total.signal += signal.iter().map(|s| f64::from(*s)).sum::<f64>();
        total.error += error.iter().map(|s| f64::from(*s)).sum::<f64>();
        total.worst = worst.iter().copied().fold(total.worst, f32::max);
    }
}
}

/// Enough for [`bfloat_symbols`] and [`half_symbols`].
const SYMBOLS: usize = 1 << 17;

wide! {
    /// A number of its own for each finite f16 value, found without converting back: sign, exponent above the
    /// smallest subnormal's (zero below all), mantissa.
    fn half_symbols(values: &[f32], symbols: &mut [u32]) {
        const BELOW: u32 = 102 << 10;
        for (symbol, value) in symbols.iter_mut().zip(values) {
            let bits = value.to_bits();
            let magnitude = (bits & 0x7fff_ffff) >> 13;
            *symbol = (magnitude.max(BELOW) - BELOW) | bits >> 31 << 16;
        }
    }
}

wide! {
    /// The bits of the value rounded to bfloat16.
    fn bfloat_symbols(values: &[f32], symbols: &mut [u32]) {
        for (symbol, value) in symbols.iter_mut().zip(values) {
            let bits = value.to_bits();
            *symbol = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        }
    }
}

/// Up to so many weights their symbols are listed and sorted: a table would cost more than everything else done to
/// such a tensor.
const FEW: usize = 1 << 14;

/// Counts symbols.
struct Symbols {
    half: bool,
    seen: Seen,
}

enum Seen {
    /// Too many to count, or no floats.
    Nothing,
    List(Mutex<Vec<u32>>),
    /// Histograms. One a thread would be 512 KiB each; they are borrowed from a pool.
    Tables(Mutex<Vec<Box<[u32; SYMBOLS]>>>),
}

impl Symbols {
    fn new(dtype: DType, elements: usize) -> Self {
        let seen = if !dtype.is_float() || elements >= u32::MAX as usize {
            Seen::Nothing
        } else if elements <= FEW {
            Seen::List(Mutex::default())
        } else {
            Seen::Tables(Mutex::default())
        };
        Self {
            half: dtype == DType::F16,
            seen,
        }
    }

    /// Symbols of at most as many values as there is room for.
    fn of(&self, values: &[f32], symbols: &mut [u32]) {
        if self.half {
            half_symbols(values, symbols);
        } else {
            bfloat_symbols(values, symbols);
        }
    }

    fn count(&self, values: &[f32]) {
        match &self.seen {
            Seen::Nothing => {}
            Seen::List(list) => {
                let mut symbols = vec![0; values.len()];
                self.of(values, &mut symbols);
                lock(list).append(&mut symbols);
            }
            Seen::Tables(pool) => {
                let mut table = lock(pool).pop().unwrap_or_else(table);
                // Two loops: the first vectorises, the second is one increment an element.
                let mut symbols = [0u32; 1024];
                for chunk in values.chunks(symbols.len()) {
                    let symbols = &mut symbols[..chunk.len()];
                    self.of(chunk, symbols);
                    for symbol in symbols {
                        table[*symbol as usize % SYMBOLS] += 1;
                    }
                }
                lock(pool).push(table);
            }
        }
    }

    fn entropy(self) -> f64 {
        match self.seen {
            Seen::Nothing => 0.0,
            Seen::List(list) => {
                let mut list = list.into_inner().unwrap_or_else(PoisonError::into_inner);
                list.sort_unstable();
                let runs: Vec<u64> = list.chunk_by(|a, b| a == b).map(|run| run.len() as u64).collect();
                entropy(&runs)
            }
            Seen::Tables(pool) => {
                let mut sum = vec![0u64; SYMBOLS];
                for table in pool.into_inner().unwrap_or_else(PoisonError::into_inner) {
                    for (total, n) in sum.iter_mut().zip(table.iter()) {
                        *total += u64::from(*n);
                    }
                }
                entropy(&sum)
            }
        }
    }
}

/// By way of a vector, so that half a megabyte never lies on the stack.
#[expect(clippy::expect_used, reason = "the length of the vector is that of the type")]
fn table() -> Box<[u32; SYMBOLS]> {
    vec![0; SYMBOLS].try_into().expect("as long as it says")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shannon entropy of a histogram, bits a symbol.
pub fn entropy(histogram: &[u64]) -> f64 {
    let total: u64 = histogram.iter().sum();
    if total == 0 {
        return 0.0;
    }
    let total = total as f64;
    histogram
        .iter()
        .filter(|n| **n > 0)
        .map(|n| {
            let p = *n as f64 / total;
            -p * p.log2()
        })
        .sum::<f64>()
        .max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_of_known_distributions() {
        assert_eq!(entropy(&[1, 1, 1, 1]), 2.0);
        assert_eq!(entropy(&[5, 0]), 0.0);
        assert_eq!(entropy(&[]), 0.0);
    }

    #[test]
    fn a_list_and_a_table_count_the_same() {
        let values: Vec<f32> = (0..FEW).map(|i| (i * i % 977) as f32 / 7.0).collect();
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            let [few, many] = [FEW, FEW + 1].map(|elements| {
                let symbols = Symbols::new(dtype, elements);
                values.chunks(3000).for_each(|chunk| symbols.count(chunk));
                symbols.entropy()
            });
            assert_eq!(few.to_bits(), many.to_bits());
            assert!(few > 5.0, "{few}");
        }
    }

    #[test]
    fn every_half_has_a_symbol_of_its_own() {
        let finite = (0..=u16::MAX).map(half::f16::from_bits).filter(|h| h.is_finite());
        let values: Vec<f32> = finite.map(half::f16::to_f32).collect();
        let mut symbols = vec![0; values.len()];
        half_symbols(&values, &mut symbols);
        let count = symbols.len();
        symbols.sort_unstable();
        symbols.dedup();
        assert_eq!(symbols.len(), count);
    }

    #[test]
    fn errors_of_a_known_pair() {
        let sums = compare(&[1.0, 2.0, 3.0], &[1.0, 2.5, 2.0]);
        assert_eq!((sums.signal, sums.error, sums.worst), (14.0, 1.25, 1.0));
    }
}
