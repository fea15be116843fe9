//! Canonical Huffman codes of at most twelve bits.
//!
//! Owns: the tables of both directions, their bytes. Must not know: chunks, how lengths are found.
//! Invariant: a code is complete: every twelve bits begin with exactly one symbol's.
//!
//! A state is a row of bits below a leading 1; a symbol's code is pushed at the low end and popped from there, first bit
//! lowest. So a symbol of length `l` costs what one of frequency 2⁻ˡ does in rANS, and both share their lanes.

use super::lanes::{Code, Decode, Reader, Writer};
use super::{Counts, corrupt, prefix, vector};
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
    /// The lengths that cost the counted symbols least. At least two symbols occur.
    pub(super) fn of(counts: &Counts) -> Self {
        let mut lengths = [0; 256];
        lengths.copy_from_slice(&prefix::lengths(counts, LIMIT));
        Self(lengths)
    }

    /// Bits that the counted symbols will take, states aside.
    pub(super) fn cost(&self, counts: &Counts) -> f64 {
        prefix::cost(&self.0, counts)
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
        prefix::write(&listed, out);
    }

    /// Reads what [`Lengths::write`] wrote.
    pub(super) fn read(table: &[u8]) -> Result<Self> {
        let (set, listed) = table
            .split_at_checked(SET)
            .ok_or_else(|| corrupt("its table is too short"))?;
        let present: u32 = set.iter().map(|byte| byte.count_ones()).sum();
        let listed = prefix::read(listed, present as usize, LIMIT)?;
        if listed.contains(&0) {
            return Err(corrupt("a code has no bits"));
        }
        let mut listed = listed.into_iter();
        let mut lengths = [0; 256];
        for (symbol, length) in lengths.iter_mut().enumerate() {
            if set[symbol / 8] >> (symbol % 8) & 1 == 1 {
                *length = listed.next().unwrap_or(0);
            }
        }
        Ok(Self(lengths))
    }
}

/// The table of the way in.
pub(super) struct Encoder {
    /// Code, and its length from bit 16 on.
    pub(super) codes: [u32; 256],
}

impl Encoder {
    pub(super) fn new(lengths: &Lengths) -> Self {
        let mut codes = [0; 256];
        for ((code, bits), length) in codes.iter_mut().zip(prefix::codes(&lengths.0)).zip(&lengths.0) {
            *code = u32::from(bits) | u32::from(*length) << 16;
        }
        Self { codes }
    }
}

impl Code for Encoder {
    type Symbol = u8;

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
        let codes = prefix::codes(&lengths.0);
        for (symbol, length) in lengths.0.iter().enumerate().filter(|(_, length)| **length > 0) {
            for at in (usize::from(codes[symbol])..ENTRIES).step_by(1 << length) {
                entries[at] = symbol as u16 | u16::from(*length) << 8;
            }
        }
        Self { entries }
    }
}

impl Decode for Decoder {
    type Symbol = u8;

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

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let of = |few: &[u64]| -> Counts { std::array::from_fn(|i| few.get(i).copied().unwrap_or(0)) };
        let steep = of(&(0..40).map(|i| 1 << i).collect::<Vec<_>>());
        for counts in [steep, [1; 256], of(&[0, 1, 0, 1]), of(&[u64::MAX, 1, u64::MAX])] {
            let lengths = Lengths::of(&counts);
            let mut table = Vec::new();
            lengths.write(&mut table);
            assert_eq!(Lengths::read(&table).unwrap(), lengths);
        }
    }
}
