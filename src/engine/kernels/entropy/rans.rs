//! Static range variant of asymmetric numeral systems (rANS; Duda 2013).
//!
//! Owns: frequencies, the tables of both directions, their bytes. Must not know: chunks.
//! Invariant: frequencies of a table are at least 1 and add up to 2¹⁴. Everything is whole numbers, so the same counts
//! give the same bytes everywhere.
//!
//! A symbol `s` of frequency `f` and cumulative frequency `c` takes a state `x` to `⌊x / f⌋·2¹⁴ + c + x mod f`.

use super::lanes::{Code, Decode, Reader, Writer};
use super::{Counts, boxed, corrupt, vector};
use crate::error::Result;

/// Frequencies add up to two to this.
pub(super) const BITS: u32 = 14;
pub(super) const TOTAL: u32 = 1 << BITS;
/// Alphabets of at most this size are ranked without gaps: their tables fit into registers.
pub(super) const FEW: usize = 32;
/// Bytes of the set of symbols.
const SET: usize = 32;

/// Frequency of each symbol; 0 for those that never occur.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frequencies(pub(super) [u16; 256]);

impl Frequencies {
    /// The frequencies that cost the counted symbols least. At least two of them occur.
    pub(super) fn of(counts: &Counts) -> Self {
        let total: u64 = counts.iter().sum::<u64>().max(1);
        let share = |n: u64| (u128::from(n) * u128::from(TOTAL) + u128::from(total / 2)) / u128::from(total);
        let mut frequencies = counts.map(|n| if n == 0 { 0 } else { share(n).max(1) as u16 });
        let sum = |f: &[u16; 256]| f.iter().map(|f| u32::from(*f)).sum::<u32>();
        for _ in sum(&frequencies)..TOTAL {
            raise(counts, &mut frequencies, None);
        }
        for _ in TOTAL..sum(&frequencies) {
            lower(counts, &mut frequencies);
        }
        // Only a frequency above a half may have no exact reciprocal; the next one below has, and costs nothing to speak of.
        while let Some(at) = frequencies.iter().position(|f| *f > 0 && !is_exact(*f)) {
            frequencies[at] -= 1;
            raise(counts, &mut frequencies, Some(at));
        }
        Self(frequencies)
    }

    /// Bits that the counted symbols will take, states aside.
    pub(super) fn cost(&self, counts: &Counts) -> f64 {
        let one = |(n, f): (&u64, &u16)| match n {
            0 => 0.0,
            n => *n as f64 * (f64::from(BITS) - f64::from(*f).log2()),
        };
        counts.iter().zip(&self.0).map(one).sum()
    }

    /// Appends the set of symbols and their frequencies.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut set = [0u8; SET];
        for (symbol, _) in self.0.iter().enumerate().filter(|(_, f)| **f > 0) {
            set[symbol / 8] |= 1 << (symbol % 8);
        }
        out.extend(set);
        out.extend(self.0.iter().filter(|f| **f > 0).flat_map(|f| f.to_le_bytes()));
    }

    /// Reads what [`Frequencies::write`] wrote.
    pub(super) fn read(table: &[u8]) -> Result<Self> {
        let (set, listed) = table
            .split_at_checked(SET)
            .ok_or_else(|| corrupt("its table is too short"))?;
        let present: u32 = set.iter().map(|byte| byte.count_ones()).sum();
        if listed.len() != 2 * present as usize {
            return Err(corrupt("its table is not as long as its symbols say"));
        }
        let mut listed = listed
            .as_chunks()
            .0
            .iter()
            .map(|bytes| u16::from_le_bytes(*bytes));
        let mut frequencies = [0; 256];
        let mut sum = 0;
        for (symbol, frequency) in frequencies.iter_mut().enumerate() {
            if set[symbol / 8] >> (symbol % 8) & 1 == 1 {
                *frequency = listed.next().unwrap_or(0);
                if *frequency == 0 || u32::from(*frequency) >= TOTAL {
                    return Err(corrupt("a frequency is out of range"));
                }
                sum += u32::from(*frequency);
            }
        }
        if sum != TOTAL {
            return Err(corrupt("its frequencies do not add up"));
        }
        Ok(Self(frequencies))
    }
}

/// Gives one more to the symbol that gains most by it: `n·ln((f + 1) / f)`, as near as `n / (f + ½)` is.
fn raise(counts: &Counts, frequencies: &mut [u16; 256], not: Option<usize>) {
    let mut best: Option<(usize, u128, u128)> = None;
    for (i, (n, f)) in counts.iter().zip(frequencies.iter()).enumerate() {
        let (n, f) = (u128::from(*n), 2 * u128::from(*f) + 1);
        if n > 0 && not != Some(i) && best.is_none_or(|(_, most, of)| n * of > most * f) {
            best = Some((i, n, f));
        }
    }
    if let Some((at, ..)) = best {
        frequencies[at] += 1;
    }
}

/// Takes one from the symbol that loses least by it.
fn lower(counts: &Counts, frequencies: &mut [u16; 256]) {
    let mut best: Option<(usize, u128, u128)> = None;
    for (i, (n, f)) in counts.iter().zip(frequencies.iter()).enumerate() {
        if *f > 1 {
            let (n, f) = (u128::from(*n), 2 * u128::from(*f) - 1);
            if best.is_none_or(|(_, least, of)| n * of < least * f) {
                best = Some((i, n, f));
            }
        }
    }
    if let Some((at, ..)) = best {
        frequencies[at] -= 1;
    }
}

/// `r` and `s` such that `⌊x / f⌋ = (x + 1)·r >> 32 + s` (Robison 2005, rounded down).
fn reciprocal(f: u16) -> (u32, u32) {
    let shift = u32::from(f).ilog2();
    let inverse = (1u64 << (32 + shift)) / u64::from(f);
    (inverse.min(u64::from(u32::MAX)) as u32, shift)
}

/// Whether that is so for every `x` below `f·2¹⁸`: what the inverse lacks must not add up to one `1 / f`.
fn is_exact(f: u16) -> bool {
    let (inverse, shift) = reciprocal(f);
    let lacks = (1u64 << (32 + shift)) - u64::from(inverse) * u64::from(f);
    (lacks * u64::from(f)) << 18 <= 1 << (32 + shift)
}

/// Tables of the way in.
pub(super) struct Encoder {
    pub(super) inverses: [u32; 256],
    /// Cumulative frequency, frequency less 1 from bit 14 on, shift from bit 28 on.
    pub(super) steps: [u32; 256],
}

impl Encoder {
    pub(super) fn new(frequencies: &Frequencies) -> Self {
        let (mut inverses, mut steps) = ([0; 256], [0; 256]);
        let mut below = 0u32;
        for (symbol, f) in frequencies.0.iter().enumerate().filter(|(_, f)| **f > 0) {
            let (inverse, shift) = reciprocal(*f);
            inverses[symbol] = inverse;
            steps[symbol] = below | (u32::from(*f) - 1) << BITS | shift << (2 * BITS);
            below += u32::from(*f);
        }
        Self { inverses, steps }
    }
}

impl Code for Encoder {
    type Symbol = u8;

    fn overflows(&self, state: u32, symbol: u8) -> bool {
        state >> (32 - BITS) > self.steps[usize::from(symbol)] >> BITS & (TOTAL - 1)
    }

    fn put(&self, state: u32, symbol: u8) -> u32 {
        let (inverse, step) = (
            self.inverses[usize::from(symbol)],
            self.steps[usize::from(symbol)],
        );
        let high = ((u64::from(state.wrapping_add(1)) * u64::from(inverse)) >> 32) as u32;
        let quotient = high >> (step >> (2 * BITS));
        let others = TOTAL - 1 - (step >> BITS & (TOTAL - 1));
        state
            .wrapping_add(step & (TOTAL - 1))
            .wrapping_add(quotient.wrapping_mul(others))
    }

    fn put_rows(&self, writer: &mut Writer<'_>, symbols: &[u8]) -> usize {
        vector::put_rans(self, writer, symbols)
    }
}

/// Tables of the way out.
pub(super) struct Decoder {
    /// Rank of the symbol that a slot belongs to; three bytes more, so that four may be read from any.
    pub(super) ranks: Box<[u8; TOTAL as usize + 3]>,
    /// By rank: cumulative frequency, frequency less 1 from bit 14 on.
    pub(super) steps: [u32; 256],
    /// By rank.
    pub(super) symbols: [u8; 256],
    /// Highest rank and 1.
    pub(super) size: usize,
}

impl Decoder {
    pub(super) fn new(frequencies: &Frequencies) -> Self {
        let few = frequencies.0.iter().filter(|f| **f > 0).count() <= FEW;
        let mut ranks = vec![0; TOTAL as usize + 3];
        let (mut steps, mut symbols) = ([0; 256], [0; 256]);
        let (mut below, mut size) = (0usize, 0);
        for (symbol, f) in frequencies.0.iter().enumerate().filter(|(_, f)| **f > 0) {
            let rank = if few { size } else { symbol };
            ranks[below..below + usize::from(*f)].fill(rank as u8);
            steps[rank] = below as u32 | (u32::from(*f) - 1) << BITS;
            symbols[rank] = symbol as u8;
            below += usize::from(*f);
            size = rank + 1;
        }
        Self {
            ranks: boxed(ranks),
            steps,
            symbols,
            size,
        }
    }
}

impl Decode for Decoder {
    type Symbol = u8;

    fn take(&self, state: u32) -> (u8, u32) {
        let slot = state & (TOTAL - 1);
        let rank = usize::from(self.ranks[slot as usize]);
        let step = self.steps[rank];
        let frequency = (step >> BITS) + 1;
        let next = frequency * (state >> BITS) + slot - (step & (TOTAL - 1));
        (self.symbols[rank], next)
    }

    fn take_rows(&self, reader: &mut Reader<'_>, symbols: &mut [u8]) -> usize {
        vector::take_rans(self, reader, symbols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reciprocal_that_is_called_exact_divides_exactly() {
        for f in 1..TOTAL as u16 {
            let (inverse, shift) = reciprocal(f);
            let divide = |x: u32| ((u64::from(x + 1) * u64::from(inverse)) >> 32) as u32 >> shift;
            let end = u64::from(f) << 18;
            let multiples = [1, 2, 3, 1 << 10, (1 << 18) - 1, 1 << 18].map(|q| q * u64::from(f));
            let near = multiples.iter().flat_map(|m| [m - 1, *m, m + 1]);
            let exact = near
                .filter(|x| *x < end)
                .all(|x| divide(x as u32) == (x / u64::from(f)) as u32);
            assert!(exact || !is_exact(f), "{f}");
            assert!(is_exact(f) || f > 8192, "{f}");
        }
    }

    #[test]
    fn frequencies_add_up_and_are_read_as_they_were_written() {
        let mut cases = vec![[1u64; 256], std::array::from_fn(|i| 1 << (i % 50)), [0; 256]];
        cases[2][7] = u64::MAX / 2;
        cases[2][200] = 1;
        for largest in 8000..9000 {
            let mut counts = [0; 256];
            (counts[3], counts[4]) = (largest * 3, (u64::from(TOTAL) - largest) * 3);
            cases.push(counts);
        }
        for counts in cases {
            let frequencies = Frequencies::of(&counts);
            assert_eq!(frequencies.0.iter().map(|f| u32::from(*f)).sum::<u32>(), TOTAL);
            assert!(frequencies.0.iter().all(|f| *f == 0 || is_exact(*f)));
            assert!(
                frequencies
                    .0
                    .iter()
                    .zip(&counts)
                    .all(|(f, n)| (*f > 0) == (*n > 0))
            );
            let mut table = Vec::new();
            frequencies.write(&mut table);
            assert_eq!(Frequencies::read(&table).unwrap(), frequencies);
        }
    }

    #[test]
    fn no_move_of_one_step_makes_frequencies_cheaper() {
        let counts: Counts = std::array::from_fn(|i| if i < 40 { 3_000_000u64 >> (i / 2) } else { 0 });
        let chosen = Frequencies::of(&counts);
        let cost = chosen.cost(&counts);
        for from in 0..40 {
            for to in 0..40 {
                let mut other = chosen.clone();
                if other.0[from] > 1 {
                    other.0[from] -= 1;
                    other.0[to] += 1;
                    assert!(other.cost(&counts) >= cost * (1.0 - 1e-9), "{from} {to}");
                }
            }
        }
    }
}
