//! Canonical Huffman codes of groups of symbols, so that a symbol need not cost whole bits.
//!
//! Owns: how symbols make groups, the choice of their size, the tables of both directions and their bytes. Must not know:
//! what else a stream holds.
//! Invariant: a code has at most [`MOST`] groups of at most [`LIMIT`] bits, whatever a table says of itself.
//!
//! A group is a number: its symbols' ranks among those that occur are its digits, the first one lowest.

use super::counts::Source;
use super::lanes::{Code, Decode, LANES, Reader, Writer};
use super::{Counts, boxed, corrupt, prefix, vector};
use crate::error::Result;
use crate::kernels::symbols::entropy;
use rayon::prelude::*;

/// The longest code.
pub(super) const LIMIT: u32 = 15;
pub(super) const ENTRIES: usize = 1 << LIMIT;
/// No code has more groups.
pub(super) const MOST: usize = 1 << 12;
/// Symbols of a group.
const SIZES: [usize; 6] = [2, 3, 4, 6, 8, 12];
/// Bytes of the set of symbols.
const SET: usize = 32;
/// Groups that are made or spelled at a time; whole rows.
const PIECE: usize = 16 * LANES;
/// Groups that one task counts.
const COUNTED: usize = 1 << 16;

/// Calls a function for groups of a size that is known when it is compiled.
macro_rules! sized {
    ($size:expr, $function:ident($($arg:expr),*)) => {
        match $size {
            2 => $function::<2>($($arg),*),
            3 => $function::<3>($($arg),*),
            4 => $function::<4>($($arg),*),
            6 => $function::<6>($($arg),*),
            8 => $function::<8>($($arg),*),
            _ => $function::<12>($($arg),*),
        }
    };
}

/// Which symbols occur, and the length of the code of each of their groups; 0 for those that never occur.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) size: usize,
    symbols: Vec<u8>,
    bits: Vec<u8>,
}

/// How many groups of that size so many symbols make, if no more than a code may have.
fn groups(symbols: usize, size: usize) -> Option<usize> {
    let groups = symbols.checked_pow(size as u32)?;
    (groups <= MOST).then_some(groups)
}

impl Lengths {
    /// The lengths, and the bits of what they code, that are fewest with their table; none where no size takes fewer than
    /// `bits`. The source's chunks are of 2ᵏ symbols: a group never lies in two.
    pub(super) fn best<S: Source + ?Sized>(
        source: &S,
        counts: &Counts,
        k: u8,
        bits: f64,
    ) -> Option<(Self, f64)> {
        let listed = (0..=255u8).zip(counts).filter(|(_, n)| **n > 0);
        let symbols: Vec<u8> = listed.map(|(symbol, _)| symbol).collect();
        let mut best: Option<(Self, f64)> = None;
        let mut least = bits;
        // Bits of a symbol that the groups tried last leave at least, and by how much these are fewer than before. Where a
        // table takes more than could be gained if they fell as much again, its groups need not be counted.
        let (mut rate, mut fall) = (entropy(counts), 0.0);
        for size in SIZES {
            let gain = least - (rate - fall) * source.len() as f64;
            let Some(groups) = groups(symbols.len(), size).filter(|n| 4.0 * (*n as f64) < gain) else {
                break;
            };
            let counts = count(source, &Maker::new(&symbols, size), k);
            if counts.iter().filter(|n| **n > 0).count() < 2 {
                break;
            }
            let now = entropy(&counts) / size as f64;
            (rate, fall) = (now, (rate - now).max(0.0));
            let lengths = prefix::lengths(&counts[..groups], LIMIT);
            let coded = prefix::cost(&lengths, &counts);
            let total = coded + 4.0 * groups as f64;
            if total < least {
                least = total;
                let symbols = symbols.clone();
                let table = Self {
                    size,
                    symbols,
                    bits: lengths,
                };
                best = Some((table, coded));
            }
        }
        best
    }

    /// Appends the set of symbols and the lengths of all groups, two a byte.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut set = [0u8; SET];
        for symbol in &self.symbols {
            set[usize::from(*symbol) / 8] |= 1 << (symbol % 8);
        }
        out.extend(set);
        prefix::write(&self.bits, out);
    }

    /// Reads what [`Lengths::write`] wrote for groups of that size.
    pub(super) fn read(size: u8, table: &[u8]) -> Result<Self> {
        let size = usize::from(size);
        let (set, listed) = table
            .split_at_checked(SET)
            .ok_or_else(|| corrupt("its table is too short"))?;
        let symbols: Vec<u8> = (0..=255u8)
            .filter(|symbol| set[usize::from(*symbol) / 8] >> (symbol % 8) & 1 == 1)
            .collect();
        let groups = groups(symbols.len(), size)
            .filter(|_| SIZES.contains(&size))
            .ok_or_else(|| corrupt("its groups are too many, or of no size that there is"))?;
        let bits = prefix::read(listed, groups, LIMIT)?;
        Ok(Self { size, symbols, bits })
    }
}

/// Makes groups of symbols.
struct Maker {
    size: usize,
    base: u16,
    ranks: [u16; 256],
}

impl Maker {
    fn new(symbols: &[u8], size: usize) -> Self {
        let mut ranks = [0; 256];
        for (rank, symbol) in (0..).zip(symbols) {
            ranks[usize::from(*symbol)] = rank;
        }
        Self {
            size,
            base: symbols.len() as u16,
            ranks,
        }
    }

    /// The groups of at most [`PIECE`] times as many symbols; the last one may lack some, which count as the lowest.
    fn make<'a>(&self, symbols: &[u8], groups: &'a mut [u16; PIECE]) -> &'a [u16] {
        let groups = &mut groups[..symbols.len().div_ceil(self.size)];
        sized!(self.size, make(self, symbols, groups));
        groups
    }

    fn group(&self, symbols: &[u8]) -> u16 {
        let ranks = symbols.iter().map(|symbol| self.ranks[usize::from(*symbol)]);
        ranks.rev().fold(0, |number, rank| number * self.base + rank)
    }
}

fn make<const N: usize>(maker: &Maker, symbols: &[u8], groups: &mut [u16]) {
    let (whole, rest) = symbols.as_chunks::<N>();
    for (group, symbols) in groups.iter_mut().zip(whole) {
        *group = maker.group(symbols);
    }
    if let Some(last) = groups.get_mut(whole.len()) {
        *last = maker.group(rest);
    }
}

/// How often each group occurs in chunks of 2ᵏ symbols.
fn count<S: Source + ?Sized>(source: &S, maker: &Maker, k: u8) -> Vec<u64> {
    let (chunk, piece) = (1usize << k, COUNTED * maker.size);
    let parts = chunk.div_ceil(piece);
    let pieces = (0..source.len().div_ceil(chunk) * parts).into_par_iter();
    let none = || (vec![0u64; MOST], Vec::new());
    let counted = pieces.fold(none, |(mut counts, mut buffer), i| {
        let (first, end) = (i / parts * chunk, (i / parts + 1) * chunk);
        let end = end.min(source.len());
        let first = (first + i % parts * piece).min(end);
        let symbols = source.read(first..(first + piece).min(end), &mut buffer);
        add(&mut counts, maker, symbols);
        (counts, buffer)
    });
    let sum = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    counted.map(|(counts, _)| counts).reduce(|| vec![0; MOST], sum)
}

/// Two tables, so that equal neighbours do not wait for each other.
fn add(counts: &mut [u64], maker: &Maker, symbols: &[u8]) {
    let mut tables = vec![[0u32; MOST]; 2];
    let mut made = [0; PIECE];
    for symbols in symbols.chunks(PIECE * maker.size) {
        for pair in maker.make(symbols, &mut made).chunks(2) {
            for (table, group) in tables.iter_mut().zip(pair) {
                table[usize::from(*group) % MOST] += 1;
            }
        }
    }
    for (i, count) in counts.iter_mut().enumerate() {
        *count += u64::from(tables[0][i]) + u64::from(tables[1][i]);
    }
}

/// The table of the way in.
pub(super) struct Encoder {
    maker: Maker,
    /// Code, and its length from bit 16 on.
    pub(super) codes: Box<[u32; MOST]>,
}

impl Encoder {
    pub(super) fn new(lengths: &Lengths) -> Self {
        let mut codes = Box::new([0; MOST]);
        let found = prefix::codes(&lengths.bits);
        for ((code, bits), length) in codes.iter_mut().zip(found).zip(&lengths.bits) {
            *code = u32::from(bits) | u32::from(*length) << 16;
        }
        Self {
            maker: Maker::new(&lengths.symbols, lengths.size),
            codes,
        }
    }

    /// All groups of symbols.
    #[cfg(test)]
    pub(super) fn groups(&self, symbols: &[u8]) -> Vec<u16> {
        let pieces = symbols.chunks(PIECE * self.maker.size);
        pieces
            .flat_map(|symbols| self.maker.make(symbols, &mut [0; PIECE]).to_vec())
            .collect()
    }

    /// A chunk, as [`lanes::encode`](super::lanes::encode) makes it of single symbols.
    pub(super) fn encode(&self, symbols: &[u8], buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
        let mut writer = Writer::new(symbols.len(), buffer)?;
        let mut groups = [0; PIECE];
        for symbols in symbols.chunks(PIECE * self.maker.size).rev() {
            writer.put(self, self.maker.make(symbols, &mut groups))?;
        }
        Some(writer.chunk())
    }
}

impl Code for Encoder {
    type Symbol = u16;

    fn overflows(&self, state: u32, group: u16) -> bool {
        let length = self.codes[usize::from(group) % MOST] >> 16;
        u64::from(state) << length >> 32 != 0
    }

    fn put(&self, state: u32, group: u16) -> u32 {
        let code = self.codes[usize::from(group) % MOST];
        state << (code >> 16) | code & 0xffff
    }

    fn put_rows(&self, writer: &mut Writer<'_>, groups: &[u16]) -> usize {
        vector::put_groups(self, writer, groups)
    }
}

/// The tables of the way out.
pub(super) struct Decoder {
    size: usize,
    /// How many of the lowest bits choose an entry, all set.
    pub(super) mask: u32,
    /// Group, and length from bit 12 on. One more, so that two may be read from any.
    pub(super) entries: Box<[u16; ENTRIES + 1]>,
    /// The symbols of each group.
    spelling: Vec<u8>,
}

impl Decoder {
    pub(super) fn new(lengths: &Lengths) -> Self {
        let longest = lengths.bits.iter().copied().max().unwrap_or(0);
        let count = 1usize << u32::from(longest).min(LIMIT);
        let mut entries = vec![0; ENTRIES + 1];
        let coded = prefix::codes(&lengths.bits).into_iter().zip(&lengths.bits);
        for (group, (code, length)) in (0..).zip(coded).filter(|(_, (_, length))| **length > 0) {
            for at in (usize::from(code)..count).step_by(1 << length) {
                entries[at] = group | u16::from(*length) << 12;
            }
        }
        let mut spelling = vec![0; MOST * lengths.size];
        for (group, symbols) in spelling
            .chunks_exact_mut(lengths.size)
            .take(lengths.bits.len())
            .enumerate()
        {
            let mut rest = group;
            for symbol in symbols {
                *symbol = lengths.symbols[rest % lengths.symbols.len()];
                rest /= lengths.symbols.len();
            }
        }
        Self {
            size: lengths.size,
            mask: count as u32 - 1,
            entries: boxed(entries),
            spelling,
        }
    }

    /// Fills `symbols` from a chunk that was made of as many.
    pub(super) fn decode(&self, chunk: &[u8], symbols: &mut [u8]) -> Result<()> {
        let mut reader = Reader::new(chunk)?;
        let mut groups = [0; PIECE];
        for symbols in symbols.chunks_mut(PIECE * self.size) {
            let groups = &mut groups[..symbols.len().div_ceil(self.size)];
            reader.take(self, groups)?;
            sized!(self.size, spell(&self.spelling, groups, symbols));
        }
        reader.finish()
    }
}

/// Writes the symbols of groups; of the last one as many as there is room for.
fn spell<const N: usize>(spelling: &[u8], groups: &[u16], symbols: &mut [u8]) {
    let Some(spelling) = spelling.as_chunks::<N>().0.first_chunk::<MOST>() else {
        return;
    };
    let (whole, rest) = symbols.as_chunks_mut::<N>();
    for (symbols, group) in whole.iter_mut().zip(groups) {
        *symbols = spelling[usize::from(*group) % MOST];
    }
    if let Some(last) = groups.get(whole.len()) {
        rest.copy_from_slice(&spelling[usize::from(*last) % MOST][..rest.len()]);
    }
}

impl Decode for Decoder {
    type Symbol = u16;

    fn take(&self, state: u32) -> (u16, u32) {
        let entry = self.entries[(state & self.mask) as usize % ENTRIES];
        (entry % MOST as u16, state >> (entry >> 12))
    }

    fn take_rows(&self, reader: &mut Reader<'_>, groups: &mut [u16]) -> usize {
        vector::take_groups(self, reader, groups)
    }
}
