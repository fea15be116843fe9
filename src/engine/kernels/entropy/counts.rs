//! How often each byte occurs.
//!
//! Owns: exact counts, estimates from a sample. Must not know: codes.
//! Invariant: counts are whole numbers, so the order of threads does not change them.

use super::Counts;
use crate::kernels::symbols;
use rayon::prelude::*;
use std::ops::Range;

/// Symbols that one task counts; few enough to stay in a cache where they have to be made first.
const PIECE: usize = 1 << 17;
/// A sample is one block in so many.
const BLOCK: usize = 4096;
const STRIDE: usize = 16;
/// Fewer symbols than this are counted instead.
const MANY: usize = 1 << 20;

/// Symbols, or what they can be made of.
pub(super) trait Source: Sync {
    /// How many there are.
    fn len(&self) -> usize;
    /// Some of them, made in the buffer if they do not lie anywhere.
    fn read<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u8>) -> &'a [u8];
}

impl Source for [u8] {
    fn len(&self) -> usize {
        self.len()
    }

    fn read<'a>(&'a self, range: Range<usize>, _buffer: &'a mut Vec<u8>) -> &'a [u8] {
        &self[range]
    }
}

/// Of all symbols.
pub(super) fn count<S: Source + ?Sized>(source: &S) -> Counts {
    count_every(source, PIECE, PIECE)
}

/// Whether a sample says that no code can save that share of the symbols' eight bits.
pub(super) fn are_dense<S: Source + ?Sized>(source: &S, share: f64) -> bool {
    source.len() >= MANY
        && symbols::entropy(&count_every(source, BLOCK * STRIDE, BLOCK)) > 8.0 * (1.0 - share)
}

/// Of the first `block` symbols of every `stride`.
fn count_every<S: Source + ?Sized>(source: &S, stride: usize, block: usize) -> Counts {
    let blocks = (0..source.len().div_ceil(stride)).into_par_iter();
    let counted = blocks.fold(
        || ([0; 256], Vec::new()),
        |(mut counts, mut buffer), i| {
            let range = i * stride..(i * stride + block).min(source.len());
            add(&mut counts, source.read(range, &mut buffer));
            (counts, buffer)
        },
    );
    counted
        .map(|(counts, _)| counts)
        .reduce(|| [0; 256], |a, b| std::array::from_fn(|i| a[i] + b[i]))
}

/// Several tables, so that equal neighbours do not wait for each other; at most 2³² symbols.
fn add(counts: &mut Counts, symbols: &[u8]) {
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
    for (i, count) in counts.iter_mut().enumerate() {
        *count += tables.iter().map(|table| u64::from(table[i])).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_a_plain_loop() {
        let symbols: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i * i / 7 % 251) as u8).collect();
        let mut plain = [0; 256];
        for symbol in &symbols {
            plain[usize::from(*symbol)] += 1;
        }
        assert_eq!(count(&symbols[..]), plain);
        assert_eq!(count::<[u8]>(&[]), [0; 256]);
    }

    #[test]
    fn a_sample_tells_noise_from_what_has_a_pattern() {
        let noise: Vec<u8> = (0..2 * MANY as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let uneven: Vec<u8> = noise.iter().map(|v| v & v.rotate_left(3)).collect();
        assert!(are_dense(&noise[..], 0.001));
        assert!(!are_dense(&uneven[..], 0.001));
    }
}
