//! How often each byte occurs.
//!
//! Owns: exact counts, estimates from a sample. Must not know: codes.
//! Invariant: counts are whole numbers, so the order of threads does not change them.

use super::Counts;
use crate::kernels::symbols;
use rayon::prelude::*;

/// Bytes that one task counts.
const CHUNK: usize = 1 << 20;
/// A sample is one block in so many.
const BLOCK: usize = 4096;
const STRIDE: usize = 16;
/// Fewer symbols than this are counted instead.
const MANY: usize = 1 << 20;

/// Of all symbols.
pub(super) fn count(symbols: &[u8]) -> Counts {
    let parts = symbols.par_chunks(CHUNK).map(count_few);
    parts.reduce(|| [0; 256], |a, b| std::array::from_fn(|i| a[i] + b[i]))
}

/// Whether a sample says that no code can be much smaller than the symbols: eight bits each, but for a 256th.
pub(super) fn are_dense(symbols: &[u8]) -> bool {
    if symbols.len() < MANY {
        return false;
    }
    let blocks = symbols.par_chunks(BLOCK * STRIDE);
    let parts = blocks.map(|block| count_few(&block[..block.len().min(BLOCK)]));
    let counts = parts.reduce(|| [0; 256], |a, b| std::array::from_fn(|i| a[i] + b[i]));
    symbols::entropy(&counts) > 8.0 * (1.0 - 1.0 / 256.0)
}

/// Several tables, so that equal neighbours do not wait for each other; at most 2³² symbols.
fn count_few(symbols: &[u8]) -> Counts {
    let mut tables = [[0u32; 256]; 8];
    let (words, rest) = symbols.as_chunks::<8>();
    for word in words {
        for (table, symbol) in tables.iter_mut().zip(word) {
            table[usize::from(*symbol)] += 1;
        }
    }
    for symbol in rest {
        tables[0][usize::from(*symbol)] += 1;
    }
    std::array::from_fn(|i| tables.iter().map(|table| u64::from(table[i])).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_a_plain_loop() {
        let symbols: Vec<u8> = (0..3 * CHUNK + 5).map(|i| (i * i / 7 % 251) as u8).collect();
        let mut plain = [0; 256];
        for symbol in &symbols {
            plain[usize::from(*symbol)] += 1;
        }
        assert_eq!(count(&symbols), plain);
        assert_eq!(count(&[]), [0; 256]);
    }

    #[test]
    fn a_sample_tells_noise_from_what_has_a_pattern() {
        let noise: Vec<u8> = (0..2 * MANY as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let uneven: Vec<u8> = noise.iter().map(|v| v & v.rotate_left(3)).collect();
        assert!(are_dense(&noise));
        assert!(!are_dense(&uneven));
    }
}
