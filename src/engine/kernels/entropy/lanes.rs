//! Interleaved lanes: how the symbols of a chunk share one sequence of 16-bit words.
//!
//! Owns: states, the order of refills, the walk over rows in plain Rust. Must not know: what a code does to a state.
//! Invariant: a word is read exactly where one was written, so a chunk is whole only if all words are used up and every
//! state is back at [`LOWER`].
//!
//! A row is [`LANES`] symbols, one a lane. A lane's state `x` is in `[2¹⁶, 2³²)`; a symbol takes it below only where the
//! next word of the chunk belongs to that lane, and lanes take theirs in order. Encoding walks the rows backwards and
//! undoes this (Giesen 2014, "Interleaved entropy coders").

use super::corrupt;
use crate::error::Result;

/// Symbols of a row.
pub(super) const LANES: usize = 64;
/// Where states begin, and the least one between symbols.
pub(super) const LOWER: u32 = 1 << 16;
/// Bytes of the states before the words of a chunk.
pub(super) const STATE_BYTES: usize = 4 * LANES;

/// What a code does to one state.
pub(super) trait Code: Sync {
    /// What it codes at a time.
    type Symbol: Copy;
    /// The lowest 16 bits of a state that must leave it before this symbol enters.
    fn overflows(&self, state: u32, symbol: Self::Symbol) -> bool;
    /// The state with a symbol more; it has been made room in.
    fn put(&self, state: u32, symbol: Self::Symbol) -> u32;
    /// As many whole rows as are worth wider instructions, from the last on; how many symbols are left at the front.
    fn put_rows(&self, writer: &mut Writer<'_>, symbols: &[Self::Symbol]) -> usize;
}

/// The inverse.
pub(super) trait Decode: Sync {
    /// What it reads at a time.
    type Symbol: Copy;
    /// The symbol on top of a state, and the state without it.
    fn take(&self, state: u32) -> (Self::Symbol, u32);
    /// As many whole rows as are worth wider instructions; how many symbols that were.
    fn take_rows(&self, reader: &mut Reader<'_>, symbols: &mut [Self::Symbol]) -> usize;
}

/// States, and words from the back of a buffer to its front.
pub(super) struct Writer<'a> {
    pub(super) states: [u32; LANES],
    pub(super) bytes: &'a mut [u8],
    /// The first byte that is written.
    pub(super) at: usize,
}

impl<'a> Writer<'a> {
    /// For a chunk that is smaller than `limit`; none where its states alone are not.
    pub(super) fn new(limit: usize, buffer: &'a mut Vec<u8>) -> Option<Self> {
        let room = limit.checked_sub(STATE_BYTES)?;
        buffer.resize(room.max(buffer.len()), 0);
        Some(Self {
            states: [LOWER; LANES],
            bytes: &mut buffer[..room],
            at: room,
        })
    }

    /// True where the words of a row have room.
    pub(super) fn has_room(&self) -> bool {
        self.at >= 2 * LANES
    }

    /// Puts symbols before those that were put before; only the first put may end within a row. None where they have no
    /// room.
    pub(super) fn put<C: Code>(&mut self, code: &C, symbols: &[C::Symbol]) -> Option<()> {
        let whole = symbols.len() / LANES * LANES;
        if whole < symbols.len() {
            if !self.has_room() {
                return None;
            }
            self.put_row(code, &symbols[whole..]);
        }
        let left = code.put_rows(self, &symbols[..whole]);
        for row in symbols[..left].rchunks(LANES) {
            if !self.has_room() {
                return None;
            }
            self.put_row(code, row);
        }
        Some(())
    }

    fn put_row<C: Code>(&mut self, code: &C, symbols: &[C::Symbol]) {
        for (state, symbol) in self.states.iter_mut().zip(symbols).rev() {
            // Without a branch, as in reading: the word is written, and kept where it had to leave.
            let overflows = code.overflows(*state, *symbol);
            let word = (*state as u16).to_le_bytes();
            self.bytes[self.at - 2..self.at].copy_from_slice(&word);
            self.at -= 2 * usize::from(overflows);
            *state >>= 16 * u32::from(overflows);
            *state = code.put(*state, *symbol);
        }
    }

    /// The chunk: states and words.
    pub(super) fn chunk(&self) -> Vec<u8> {
        let mut chunk = Vec::with_capacity(STATE_BYTES + self.bytes.len() - self.at);
        chunk.extend(self.states.iter().flat_map(|state| state.to_le_bytes()));
        chunk.extend(&self.bytes[self.at..]);
        chunk
    }
}

/// A chunk, by way of a buffer. Nothing where it would not be smaller than the symbols themselves.
pub(super) fn encode<C: Code<Symbol = u8>>(
    code: &C,
    symbols: &[u8],
    buffer: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    let mut writer = Writer::new(symbols.len(), buffer)?;
    writer.put(code, symbols)?;
    Some(writer.chunk())
}

/// States, and the words of a chunk that are not read yet.
pub(super) struct Reader<'a> {
    pub(super) states: [u32; LANES],
    pub(super) words: &'a [[u8; 2]],
}

impl<'a> Reader<'a> {
    pub(super) fn new(chunk: &'a [u8]) -> Result<Self> {
        let (states, words) = chunk
            .split_at_checked(STATE_BYTES)
            .ok_or_else(|| corrupt("a chunk is shorter than its states"))?;
        let (words, rest) = words.as_chunks();
        if !rest.is_empty() {
            return Err(corrupt("a chunk has half a word"));
        }
        let mut read = [0; LANES];
        for (state, bytes) in read.iter_mut().zip(states.as_chunks().0) {
            *state = u32::from_le_bytes(*bytes);
        }
        Ok(Self { states: read, words })
    }

    /// Takes symbols that follow those taken before; only the last take may end within a row.
    pub(super) fn take<C: Decode>(&mut self, code: &C, symbols: &mut [C::Symbol]) -> Result<()> {
        let done = code.take_rows(self, symbols);
        let (rows, rest) = symbols[done..].as_chunks_mut::<LANES>();
        for row in rows {
            match self.words.first_chunk() {
                Some(window) => self.take_row(code, window, row),
                None => self.take_last(code, row)?,
            }
        }
        self.take_last(code, rest)
    }

    /// Refuses a chunk that has more in it than was taken.
    pub(super) fn finish(&self) -> Result<()> {
        if !self.words.is_empty() || self.states.iter().any(|state| *state != LOWER) {
            return Err(corrupt("a chunk is not what was written"));
        }
        Ok(())
    }

    /// A row whose words are all there, whatever they are.
    fn take_row<C: Decode>(&mut self, code: &C, window: &[[u8; 2]; LANES], symbols: &mut [C::Symbol; LANES]) {
        let mut used = 0;
        for (state, symbol) in self.states.iter_mut().zip(symbols) {
            let (taken, next) = code.take(*state);
            *symbol = taken;
            // Without a branch: which lanes take a word is as random as the symbols are.
            let word = u32::from(u16::from_le_bytes(window[used % LANES]));
            let refills = next < LOWER;
            *state = next << (16 * u32::from(refills)) | word & u32::from(refills).wrapping_neg();
            used += usize::from(refills);
        }
        self.words = &self.words[used..];
    }

    /// A row, or part of one, near the end of the words.
    fn take_last<C: Decode>(&mut self, code: &C, symbols: &mut [C::Symbol]) -> Result<()> {
        for (state, symbol) in self.states.iter_mut().zip(symbols) {
            let (taken, mut next) = code.take(*state);
            if next < LOWER {
                let (word, rest) = self
                    .words
                    .split_first()
                    .ok_or_else(|| corrupt("a chunk ends before its symbols do"))?;
                next = next << 16 | u32::from(u16::from_le_bytes(*word));
                self.words = rest;
            }
            (*symbol, *state) = (taken, next);
        }
        Ok(())
    }
}

/// Fills `symbols` from a chunk that was made of as many.
pub(super) fn decode<C: Decode<Symbol = u8>>(code: &C, chunk: &[u8], symbols: &mut [u8]) -> Result<()> {
    let mut reader = Reader::new(chunk)?;
    reader.take(code, symbols)?;
    reader.finish()
}
