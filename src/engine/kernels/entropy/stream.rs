//! The way out of a stream: one table for all symbols, chunks that are coded each by itself.
//!
//! Owns: the layout described in [the parent](super). Must not know: how codes work, how a form is chosen.
//! Invariant: nothing is allocated by what a stream says of itself: the caller says how many symbols there are, and a
//! table or a list of lengths is as long as the bytes it is read from.

use super::{corrupt, groups, huffman, lanes, rans};
use crate::error::{Error, Result};
use rayon::prelude::*;

/// The newest.
const VERSION: u8 = 2;
pub(super) const HEADER_BYTES: usize = 16;
/// Set in the length of a chunk that holds the symbols themselves.
pub(super) const PLAIN: u32 = 1 << 31;
/// Logarithms of chunk sizes that a stream may say.
const SIZES: std::ops::RangeInclusive<u8> = 6..=24;

/// Which code to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coder {
    /// Whole bits a group of symbols, within 1 % of the entropy of the codes of a matrix: fast without wide instructions,
    /// too.
    Huffman,
    /// Fractions of a bit: within 0.1 % of the entropy.
    Rans,
}

pub(super) const FORM_STORED: u8 = 0;
pub(super) const FORM_REPEATED: u8 = 1;
pub(super) const FORM_HUFFMAN: u8 = 2;
pub(super) const FORM_RANS: u8 = 3;
pub(super) const FORM_GROUPS: u8 = 4;

/// The first version that has a form; readers of those before then say what they lack.
pub(super) fn version_of(form: u8) -> u8 {
    if form >= FORM_GROUPS { 2 } else { 1 }
}

enum Form<'a> {
    Stored(&'a [u8]),
    Repeated(u8),
    Huffman(huffman::Decoder),
    Rans(Box<rans::Decoder>),
    Groups(Box<groups::Decoder>),
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
        let [version, form, k, group, t0, t1, t2, t3, symbols @ ..] = *head;
        if !(1..=VERSION).contains(&version) {
            return Err(Error::unsupported(
                "entropy_stream_version",
                format!("an entropy coded stream is of version {version}; this reads 1 to {VERSION}"),
            ));
        }
        if version != version_of(form) || (group != 0 && form != FORM_GROUPS) || !SIZES.contains(&k) {
            return Err(corrupt("its header is none"));
        }
        if u64::from_le_bytes(symbols) != expected as u64 {
            return Err(corrupt("it holds another number of symbols than expected"));
        }
        let (table, rest) = rest
            .split_at_checked(u32::from_le_bytes([t0, t1, t2, t3]) as usize)
            .ok_or_else(|| corrupt("it ends within its table"))?;
        let (form, chunks) = match (form, table) {
            (FORM_STORED, []) if rest.len() == expected => (Form::Stored(rest), Vec::new()),
            (FORM_REPEATED, [symbol]) if rest.is_empty() => (Form::Repeated(*symbol), Vec::new()),
            (FORM_HUFFMAN, table) => {
                let decoder = huffman::Decoder::new(&huffman::Lengths::read(table)?);
                (Form::Huffman(decoder), split_chunks(rest, expected, k)?)
            }
            (FORM_RANS, table) => {
                let decoder = rans::Decoder::new(&rans::Frequencies::read(table)?);
                (Form::Rans(Box::new(decoder)), split_chunks(rest, expected, k)?)
            }
            (FORM_GROUPS, table) => {
                let decoder = groups::Decoder::new(&groups::Lengths::read(group, table)?);
                (Form::Groups(Box::new(decoder)), split_chunks(rest, expected, k)?)
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
            (Form::Rans(code), Some((chunk, true))) => lanes::decode(&**code, chunk, symbols)?,
            (Form::Groups(code), Some((chunk, true))) => code.decode(chunk, symbols)?,
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
