//! Canonical prefix codes of bounded length, for alphabets of any size.
//!
//! Owns: lengths by package-merge, codes from lengths, lengths as half bytes. Must not know: what a symbol stands for.
//! Invariant: a set of lengths that is read is complete: every row of bits begins with exactly one symbol's code.

use super::corrupt;
use crate::error::Result;

/// The longest code that a half byte can say.
const LONGEST: usize = 15;

/// The lengths that cost the counted symbols least, none above the limit; 0 for those that never occur: package-merge
/// (Larmore and Hirschberg 1990). At least two symbols occur, and at most `2^limit`.
pub(super) fn lengths(counts: &[u64], limit: u32) -> Vec<u8> {
    let mut leaves: Vec<(u64, usize)> = counts.iter().copied().zip(0..).filter(|(n, _)| *n > 0).collect();
    leaves.sort_unstable();
    let mut weights: Vec<u64> = leaves.iter().map(|(n, _)| *n).collect();
    // Of each level, which of its sorted items are leaves; the others are pairs of the level before.
    let mut levels = vec![vec![true; leaves.len()]];
    for _ in 1..limit {
        let pairs = weights
            .chunks_exact(2)
            .map(|pair| pair[0].saturating_add(pair[1]));
        let mut items: Vec<(u64, bool)> = pairs.map(|weight| (weight, false)).collect();
        items.extend(leaves.iter().map(|(n, _)| (*n, true)));
        items.sort_by_key(|(weight, is_leaf)| (*weight, !is_leaf));
        weights = items.iter().map(|(weight, _)| *weight).collect();
        levels.push(items.into_iter().map(|(_, is_leaf)| is_leaf).collect());
    }
    let mut lengths = vec![0; counts.len()];
    let mut taken = (2 * leaves.len()).saturating_sub(2);
    for level in levels.iter().rev() {
        let here = level[..taken].iter().filter(|is_leaf| **is_leaf).count();
        for (_, symbol) in &leaves[..here] {
            lengths[*symbol] += 1;
        }
        taken = 2 * (taken - here);
    }
    lengths
}

/// Bits that the counted symbols take.
pub(super) fn cost(lengths: &[u8], counts: &[u64]) -> f64 {
    let bits = counts
        .iter()
        .zip(lengths)
        .map(|(n, length)| *n as f64 * f64::from(*length));
    bits.sum()
}

/// The code of each symbol, first bit lowest: ascending by length, then by symbol.
pub(super) fn codes(lengths: &[u8]) -> Vec<u16> {
    let mut next = [0u32; LONGEST + 2];
    for length in lengths.iter().filter(|length| **length > 0) {
        next[usize::from(*length) + 1] += 1;
    }
    for length in 1..next.len() {
        next[length] = (next[length] + next[length - 1]) << 1;
    }
    let code = |length: &u8| match u32::from(*length) {
        0 => 0,
        bits => {
            let code = &mut next[bits as usize];
            *code += 1;
            ((*code - 1).reverse_bits() >> (32 - bits)) as u16
        }
    };
    lengths.iter().map(code).collect()
}

/// Appends lengths, two a byte, the first of them in the low half.
pub(super) fn write(lengths: &[u8], out: &mut Vec<u8>) {
    out.extend(
        lengths
            .chunks(2)
            .map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4),
    );
}

/// Reads so many lengths, which [`write()`] wrote and nothing else. A code is complete, and none is above the limit.
pub(super) fn read(table: &[u8], count: usize, limit: u32) -> Result<Vec<u8>> {
    if table.len() != count.div_ceil(2) {
        return Err(corrupt("its table is not as long as its symbols say"));
    }
    let mut lengths: Vec<u8> = table.iter().flat_map(|pair| [pair & 15, pair >> 4]).collect();
    if lengths.iter().any(|length| u32::from(*length) > limit) {
        return Err(corrupt("a code is too long"));
    }
    let used = lengths.iter().filter(|length| **length > 0);
    let filled: usize = used.map(|length| 1usize << limit >> length).sum();
    if filled != 1 << limit || lengths.drain(count..).any(|length| length != 0) {
        return Err(corrupt("its codes are not complete"));
    }
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_a_known_distribution() {
        assert_eq!(lengths(&[5, 9, 12, 13, 16, 45], 12), [4, 4, 3, 3, 3, 1]);
        assert_eq!(lengths(&[1, 0, 2, 4, 8], 3), [3, 0, 3, 2, 1]);
    }

    #[test]
    fn codes_are_canonical_with_the_first_bit_lowest() {
        let found = codes(&[4, 4, 0, 3, 3, 3, 1]);
        assert_eq!(found, [0b0111, 0b1111, 0, 0b001, 0b101, 0b011, 0b0]);
    }

    #[test]
    fn no_code_is_longer_than_the_limit_and_all_are_complete() {
        let steep = (0..40).map(|i| 1 << i).collect::<Vec<u64>>();
        for counts in [
            steep,
            vec![1; 255],
            vec![1, 1],
            vec![u64::MAX, 1, u64::MAX],
            vec![1; 4096],
        ] {
            for limit in [12, 14, 15] {
                let found = lengths(&counts, limit);
                let mut table = Vec::new();
                write(&found, &mut table);
                assert_eq!(read(&table, counts.len(), limit).unwrap(), found);
            }
        }
        assert_eq!(lengths(&[1; 256], 12), [8; 256]);
    }

    #[test]
    fn lengths_that_are_no_code_are_refused() {
        let good = [0x21, 0x02];
        assert_eq!(read(&good, 3, 12).unwrap(), [1, 2, 2]);
        let bad: [(&[u8], usize, u32); 6] = [
            (&good, 2, 12),
            (&good, 5, 12),
            (&good, 3, 1),
            (&[0x21, 0x12], 3, 12),
            (&[0x21, 0x01], 3, 12),
            (&[0x00, 0x00], 4, 12),
        ];
        for (table, count, limit) in bad {
            assert!(read(table, count, limit).is_err(), "{table:?} {count} {limit}");
        }
        assert!(read(&[], 0, 12).is_err());
    }
}
