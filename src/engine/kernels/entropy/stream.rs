//! A stream: one table for all symbols, chunks that are coded each by itself.
//!
//! Owns: the layout described in [the parent](super), the choice of form and chunk size. Must not know: how codes work.
//! Invariant: nothing is allocated by what a stream says of itself: the caller says how many symbols there are, and a
//! table or a list of lengths is as long as the bytes it is read from.

use super::counts::{are_dense, count};
use super::lanes::{self, STATE_BYTES};
use super::{Counts, corrupt, huffman, rans};
use crate::error::{Error, Result};
use rayon::prelude::*;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;
/// Set in the length of a chunk that holds the symbols themselves.
const PLAIN: u32 = 1 << 31;
/// Logarithms of chunk sizes: what a stream may say, and what is chosen from.
const SIZES: std::ops::RangeInclusive<u8> = 6..=24;
const CHOICE: std::ops::RangeInclusive<u8> = 18..=22;
/// A chunk should take at least this: of its states, about 100 bytes are lost.
const CHUNK_BYTES: f64 = 200.0 * 1024.0;

/// Which code to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coder {
    /// Whole bits a symbol: fast without wide instructions, too.
    Huffman,
    /// Fractions of a bit: within 0.1 % of the entropy.
    Rans,
}

const STORED: u8 = 0;
const REPEATED: u8 = 1;
const HUFFMAN: u8 = 2;
const RANS: u8 = 3;

/// Encodes symbols; where no code would save a 128th of them, they are stored.
pub fn encode(symbols: &[u8], coder: Coder) -> Vec<u8> {
    if are_dense(symbols) {
        return stored(symbols);
    }
    let counts = count(symbols);
    let table = Table::of(&counts, coder);
    let bytes = table.as_ref().map_or(0.0, |table| table.cost(&counts) / 8.0);
    let each = bytes / symbols.len().max(1) as f64;
    let size = CHOICE
        .into_iter()
        .find(|k| f64::from(1u32 << k) * each >= CHUNK_BYTES)
        .unwrap_or(*CHOICE.end());
    encode_in_chunks(symbols, &counts, coder, size)
}

/// The same with chunks of 2ᵏ symbols.
pub(super) fn encode_in_chunks(symbols: &[u8], counts: &Counts, coder: Coder, k: u8) -> Vec<u8> {
    let Some(table) = Table::of(counts, coder) else {
        return match symbols.first() {
            Some(symbol) => header(REPEATED, k, &[*symbol], symbols.len()),
            None => stored(symbols),
        };
    };
    let mut bytes = Vec::new();
    table.write(&mut bytes);
    let chunks = symbols.len().div_ceil(1 << k);
    let overhead = HEADER_BYTES + bytes.len() + chunks * (4 + STATE_BYTES);
    if overhead as f64 + table.cost(counts) / 8.0 > symbols.len() as f64 * (1.0 - 1.0 / 128.0) {
        return stored(symbols);
    }
    let (form, encoded) = match table {
        Table::Huffman(lengths) => (HUFFMAN, encode_all(&huffman::Encoder::new(&lengths), symbols, k)),
        Table::Rans(frequencies) => (RANS, encode_all(&rans::Encoder::new(&frequencies), symbols, k)),
    };
    let mut out = header(form, k, &bytes, symbols.len());
    let payload = encoded.iter().zip(symbols.chunks(1 << k));
    out.reserve_exact(
        payload
            .clone()
            .map(|(c, s)| 4 + c.as_ref().map_or(s.len(), Vec::len))
            .sum(),
    );
    for (chunk, symbols) in payload.clone() {
        let length = chunk
            .as_ref()
            .map_or(symbols.len() as u32 | PLAIN, |chunk| chunk.len() as u32);
        out.extend(length.to_le_bytes());
    }
    for (chunk, symbols) in payload {
        out.extend_from_slice(chunk.as_deref().unwrap_or(symbols));
    }
    out
}

fn encode_all(code: &impl lanes::Code, symbols: &[u8], k: u8) -> Vec<Option<Vec<u8>>> {
    let chunks = symbols.par_chunks(1 << k).with_max_len(1);
    chunks.map(|chunk| lanes::encode(code, chunk)).collect()
}

fn stored(symbols: &[u8]) -> Vec<u8> {
    let mut out = header(STORED, *CHOICE.start(), &[], symbols.len());
    out.reserve_exact(symbols.len());
    out.extend_from_slice(symbols);
    out
}

fn header(form: u8, k: u8, table: &[u8], symbols: usize) -> Vec<u8> {
    let mut out = vec![VERSION, form, k, 0];
    out.extend((table.len() as u32).to_le_bytes());
    out.extend((symbols as u64).to_le_bytes());
    out.extend_from_slice(table);
    out
}

/// The table of a code.
enum Table {
    Huffman(huffman::Lengths),
    Rans(rans::Frequencies),
}

impl Table {
    /// None where fewer than two symbols occur.
    fn of(counts: &Counts, coder: Coder) -> Option<Self> {
        if counts.iter().filter(|n| **n > 0).count() < 2 {
            return None;
        }
        Some(match coder {
            Coder::Huffman => Self::Huffman(huffman::Lengths::of(counts)),
            Coder::Rans => Self::Rans(rans::Frequencies::of(counts)),
        })
    }

    /// Bits of the counted symbols.
    fn cost(&self, counts: &Counts) -> f64 {
        match self {
            Self::Huffman(lengths) => lengths.cost(counts),
            Self::Rans(frequencies) => frequencies.cost(counts),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Huffman(lengths) => lengths.write(out),
            Self::Rans(frequencies) => frequencies.write(out),
        }
    }
}

enum Form<'a> {
    Stored(&'a [u8]),
    Repeated(u8),
    Huffman(huffman::Decoder),
    Rans(rans::Decoder),
}

/// A stream whose header, table and lengths were found good.
pub struct Stream<'a> {
    form: Form<'a>,
    k: u8,
    symbols: usize,
    /// The chunks, and whether each is coded.
    chunks: Vec<(&'a [u8], bool)>,
}

impl<'a> Stream<'a> {
    /// Reads what goes before the chunks of a stream of `expected` symbols. Refuses streams of any other number, and
    /// such as are cut off, too long or contradict themselves.
    pub fn parse(bytes: &'a [u8], expected: usize) -> Result<Self> {
        let (head, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or_else(|| corrupt("it is shorter than its header"))?;
        let [version, form, k, zero, t0, t1, t2, t3, symbols @ ..] = *head;
        if version != VERSION {
            return Err(Error::unsupported(
                "entropy_stream_version",
                format!("an entropy coded stream is of version {version}; this reads {VERSION}"),
            ));
        }
        if zero != 0 || !SIZES.contains(&k) {
            return Err(corrupt("its header is none"));
        }
        if u64::from_le_bytes(symbols) != expected as u64 {
            return Err(corrupt("it holds another number of symbols than expected"));
        }
        let (table, rest) = rest
            .split_at_checked(u32::from_le_bytes([t0, t1, t2, t3]) as usize)
            .ok_or_else(|| corrupt("it ends within its table"))?;
        let (form, chunks) = match (form, table) {
            (STORED, []) if rest.len() == expected => (Form::Stored(rest), Vec::new()),
            (REPEATED, [symbol]) if rest.is_empty() => (Form::Repeated(*symbol), Vec::new()),
            (HUFFMAN, table) => {
                let decoder = huffman::Decoder::new(&huffman::Lengths::read(table)?);
                (Form::Huffman(decoder), split_chunks(rest, expected, k)?)
            }
            (RANS, table) => {
                let decoder = rans::Decoder::new(&rans::Frequencies::read(table)?);
                (Form::Rans(decoder), split_chunks(rest, expected, k)?)
            }
            _ => return Err(corrupt("its form does not go with its length")),
        };
        Ok(Self {
            form,
            k,
            symbols: expected,
            chunks,
        })
    }

    /// Symbols of every chunk but the last; a power of two.
    pub fn chunk_symbols(&self) -> usize {
        1 << self.k
    }

    /// All symbols, where they lie in the stream as they are.
    pub fn as_stored(&self) -> Option<&'a [u8]> {
        match self.form {
            Form::Stored(symbols) => Some(symbols),
            _ => None,
        }
    }

    /// Decodes chunk `index` into as many symbols as it has. Memory: none.
    pub fn decode_chunk(&self, index: usize, symbols: &mut [u8]) -> Result<()> {
        let first = index.saturating_mul(self.chunk_symbols());
        let here = self.symbols.saturating_sub(first).min(self.chunk_symbols());
        if symbols.len() != here {
            return Err(Error::internal(
                "a chunk of an entropy coded stream has another length",
            ));
        }
        match (&self.form, self.chunks.get(index)) {
            (Form::Stored(all), _) => symbols.copy_from_slice(&all[first.min(all.len())..][..here]),
            (Form::Repeated(symbol), _) => symbols.fill(*symbol),
            (Form::Huffman(code), Some((chunk, true))) => lanes::decode(code, chunk, symbols)?,
            (Form::Rans(code), Some((chunk, true))) => lanes::decode(code, chunk, symbols)?,
            (_, Some((chunk, false))) => symbols.copy_from_slice(chunk),
            // An empty chunk, past the last one.
            (_, None) => {}
        }
        Ok(())
    }

    /// Decodes all chunks, in parallel.
    pub fn decode(&self, symbols: &mut [u8]) -> Result<()> {
        if symbols.len() != self.symbols {
            return Err(Error::internal("an entropy coded stream has another length"));
        }
        let chunks = symbols
            .par_chunks_mut(self.chunk_symbols())
            .with_max_len(1)
            .enumerate();
        chunks.try_for_each(|(index, symbols)| self.decode_chunk(index, symbols))
    }
}

/// Chunks by their lengths, which begin `rest`, and whether each is coded.
fn split_chunks(rest: &[u8], symbols: usize, k: u8) -> Result<Vec<(&[u8], bool)>> {
    let count = symbols.div_ceil(1 << k);
    let (lengths, mut rest) = count
        .checked_mul(4)
        .and_then(|bytes| rest.split_at_checked(bytes))
        .ok_or_else(|| corrupt("it ends within its lengths"))?;
    let mut chunks = Vec::with_capacity(count);
    for (i, length) in lengths.as_chunks().0.iter().enumerate() {
        let length = u32::from_le_bytes(*length);
        let is_coded = length & PLAIN == 0;
        let (chunk, after) = rest
            .split_at_checked((length & !PLAIN) as usize)
            .ok_or_else(|| corrupt("it ends within a chunk"))?;
        if !is_coded && chunk.len() != (symbols - (i << k)).min(1 << k) {
            return Err(corrupt("a chunk of plain symbols has another length"));
        }
        chunks.push((chunk, is_coded));
        rest = after;
    }
    if !rest.is_empty() {
        return Err(corrupt("it goes on after its last chunk"));
    }
    Ok(chunks)
}

/// Decodes a stream into the symbols it was made of, whose number the caller knows.
pub fn decode(bytes: &[u8], symbols: &mut [u8]) -> Result<()> {
    Stream::parse(bytes, symbols.len())?.decode(symbols)
}
