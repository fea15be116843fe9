//! Canonical Huffman codes of at most twelve bits.
//!
//! Owns: lengths, codes, the tables of both directions, their bytes. Must not know: chunks.
//! Invariant: a code is complete: every twelve bits begin with exactly one symbol's.
//!
//! A state is a row of bits below a leading 1; a symbol's code is pushed at the low end and popped from there, first bit
//! lowest. So a symbol of length `l` costs what one of frequency 2⁻ˡ does in rANS, and both share their lanes.

use super::lanes::{Code, Decode, Reader, Writer};
use super::{Counts, corrupt, vector};
use crate::error::Result;

/// The longest code.
pub(super) const LIMIT: u32 = 12;
pub(super) const ENTRIES: usize = 1 << LIMIT;
/// Bytes of the set of symbols.
const SET: usize = 32;

/// Length of each symbol's code; 0 for those that never occur.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lengths(pub(super) [u8; 256]);

impl Lengths {
    /// The lengths that cost the counted symbols least: package-merge (Larmore and Hirschberg 1990). At least two symbols
    /// occur.
    pub(super) fn of(counts: &Counts) -> Self {
        let mut leaves: Vec<(u64, usize)> = counts.iter().copied().zip(0..).filter(|(n, _)| *n > 0).collect();
        leaves.sort_unstable();
        let mut weights: Vec<u64> = leaves.iter().map(|(n, _)| *n).collect();
        // Of each level, which of its sorted items are leaves; the others are pairs of the level before.
        let mut levels = vec![vec![true; leaves.len()]];
        for _ in 1..LIMIT {
            let pairs = weights
                .chunks_exact(2)
                .map(|pair| pair[0].saturating_add(pair[1]));
            let mut items: Vec<(u64, bool)> = pairs.map(|weight| (weight, false)).collect();
            items.extend(leaves.iter().map(|(n, _)| (*n, true)));
            items.sort_by_key(|(weight, is_leaf)| (*weight, !is_leaf));
            weights = items.iter().map(|(weight, _)| *weight).collect();
            levels.push(items.into_iter().map(|(_, is_leaf)| is_leaf).collect());
        }
        let mut lengths = [0; 256];
        let mut taken = (2 * leaves.len()).saturating_sub(2);
        for level in levels.iter().rev() {
            let here = level[..taken].iter().filter(|is_leaf| **is_leaf).count();
            for (_, symbol) in &leaves[..here] {
                lengths[*symbol] += 1;
            }
            taken = 2 * (taken - here);
        }
        Self(lengths)
    }

    /// Bits that the counted symbols will take, states aside.
    pub(super) fn cost(&self, counts: &Counts) -> f64 {
        let bits = counts
            .iter()
            .zip(&self.0)
            .map(|(n, length)| *n as f64 * f64::from(*length));
        bits.sum()
    }

    /// Appends the set of symbols and their lengths, two a byte.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut set = [0u8; SET];
        let mut listed = Vec::new();
        for (symbol, length) in self.0.iter().enumerate().filter(|(_, length)| **length > 0) {
            set[symbol / 8] |= 1 << (symbol % 8);
            listed.push(*length);
        }
        out.extend(set);
        out.extend(
            listed
                .chunks(2)
                .map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4),
        );
    }

    /// Reads what [`Lengths::write`] wrote.
    pub(super) fn read(table: &[u8]) -> Result<Self> {
        let (set, listed) = table
            .split_at_checked(SET)
            .ok_or_else(|| corrupt("its table is too short"))?;
        let present: u32 = set.iter().map(|byte| byte.count_ones()).sum();
        if listed.len() != (present as usize).div_ceil(2) {
            return Err(corrupt("its table is not as long as its symbols say"));
        }
        let mut listed = listed.iter().flat_map(|pair| [pair & 15, pair >> 4]);
        let mut lengths = [0; 256];
        let mut filled = 0;
        for (symbol, length) in lengths.iter_mut().enumerate() {
            if set[symbol / 8] >> (symbol % 8) & 1 == 1 {
                *length = listed.next().unwrap_or(0);
                if *length == 0 || u32::from(*length) > LIMIT {
                    return Err(corrupt("a code is too long or has no bits"));
                }
                filled += ENTRIES >> *length;
            }
        }
        if filled != ENTRIES || listed.any(|nibble| nibble != 0) {
            return Err(corrupt("its codes are not complete"));
        }
        Ok(Self(lengths))
    }

    /// The code of each symbol, first bit lowest: ascending by length, then by symbol.
    fn codes(&self) -> [u16; 256] {
        let mut codes = [0; 256];
        let mut next = 0u32;
        for length in 1..=LIMIT {
            for (symbol, _) in self
                .0
                .iter()
                .enumerate()
                .filter(|(_, l)| u32::from(**l) == length)
            {
                codes[symbol] = (next.reverse_bits() >> (32 - length)) as u16;
                next += 1;
            }
            next <<= 1;
        }
        codes
    }
}

/// The table of the way in.
pub(super) struct Encoder {
    /// Code, and its length from bit 16 on.
    pub(super) codes: [u32; 256],
}

impl Encoder {
    pub(super) fn new(lengths: &Lengths) -> Self {
        let mut codes = lengths.codes().map(u32::from);
        for (code, length) in codes.iter_mut().zip(&lengths.0) {
            *code |= u32::from(*length) << 16;
        }
        Self { codes }
    }
}

impl Code for Encoder {
    fn overflows(&self, state: u32, symbol: u8) -> bool {
        let length = self.codes[usize::from(symbol)] >> 16;
        u64::from(state) << length >> 32 != 0
    }

    fn put(&self, state: u32, symbol: u8) -> u32 {
        let code = self.codes[usize::from(symbol)];
        state << (code >> 16) | code & 0xffff
    }

    fn put_rows(&self, writer: &mut Writer<'_>, symbols: &[u8]) -> usize {
        vector::put_huffman(self, writer, symbols)
    }
}

/// The table of the way out.
pub(super) struct Decoder {
    /// By the lowest twelve bits: symbol, and length from bit 8 on. One more, so that two may be read from any.
    pub(super) entries: Box<[u16; ENTRIES + 1]>,
}

impl Decoder {
    pub(super) fn new(lengths: &Lengths) -> Self {
        let mut entries = Box::new([0; ENTRIES + 1]);
        let codes = lengths.codes();
        for (symbol, length) in lengths.0.iter().enumerate().filter(|(_, length)| **length > 0) {
            for at in (usize::from(codes[symbol])..ENTRIES).step_by(1 << length) {
                entries[at] = symbol as u16 | u16::from(*length) << 8;
            }
        }
        Self { entries }
    }
}

impl Decode for Decoder {
    fn take(&self, state: u32) -> (u8, u32) {
        let entry = self.entries[state as usize % ENTRIES];
        (entry as u8, state >> (entry >> 8))
    }

    fn take_rows(&self, reader: &mut Reader<'_>, symbols: &mut [u8]) -> usize {
        vector::take_huffman(self, reader, symbols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[u64]) -> Counts {
        std::array::from_fn(|i| of.get(i).copied().unwrap_or(0))
    }

    #[test]
    fn lengths_of_a_known_distribution() {
        let lengths = Lengths::of(&counts(&[5, 9, 12, 13, 16, 45]));
        assert_eq!(lengths.0[..6], [4, 4, 3, 3, 3, 1]);
    }

    #[test]
    fn codes_are_canonical_with_the_first_bit_lowest() {
        let mut lengths = Lengths([0; 256]);
        lengths.0[..6].copy_from_slice(&[4, 4, 3, 3, 3, 1]);
        assert_eq!(lengths.codes()[..6], [0b0111, 0b1111, 0b001, 0b101, 0b011, 0b0]);
    }

    #[test]
    fn no_code_is_longer_than_the_limit_and_all_are_complete() {
        let steep = counts(&(0..40).map(|i| 1 << i).collect::<Vec<_>>());
        for counts in [steep, [1; 256], counts(&[1, 1]), counts(&[u64::MAX, 1, u64::MAX])] {
            let lengths = Lengths::of(&counts);
            let mut table = Vec::new();
            lengths.write(&mut table);
            assert_eq!(Lengths::read(&table).unwrap(), lengths);
        }
        assert_eq!(Lengths::of(&[1; 256]).0, [8; 256]);
    }
}
