//! How many bits the values of a tensor carry.
//!
//! Owns: symbols of values, their histograms, Shannon's entropy. Must not know: where the values are from.
//! Invariant: counts are whole numbers, so neither order nor threads change a result.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kernels::wide;
use crate::tensor::DType;

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

/// Counts the values of a tensor as 16-bit symbols: each f16 value has its own, any other is rounded to bfloat16.
pub struct Symbols {
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
    /// For a tensor of that type and size.
    pub fn new(dtype: DType, elements: usize) -> Self {
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

    /// Counts some of its values; in any order, from any thread.
    pub fn count(&self, values: &[f32]) {
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

    /// Shannon entropy of what was counted, bits a value.
    pub fn entropy(self) -> f64 {
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
}
