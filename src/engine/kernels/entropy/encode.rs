//! The way into a stream.
//!
//! Owns: the choice of form and chunk size, the order of its parts. Must not know: how codes work, where symbols are from.
//! Invariant: what is chosen depends on counts alone, never on the number of threads.

use super::counts::{Source, are_dense, count};
use super::lanes::{self, STATE_BYTES};
use super::stream::{
    Coder, FORM_GROUPS, FORM_HUFFMAN, FORM_RANS, FORM_REPEATED, FORM_STORED, PLAIN, version_of,
};
use super::{Counts, groups, huffman, rans};
use rayon::prelude::*;
use std::ops::{Range, RangeInclusive};

/// Logarithms of chunk sizes to choose from.
const SIZES: RangeInclusive<u8> = 18..=22;
/// A chunk should take at least this: of its states, about 200 bytes are lost.
const CHUNK_BYTES: f64 = 400.0 * 1024.0;
/// A code that saves less than this share is not worth reading.
const SAVING: f64 = 1.0 / 1024.0;
/// Symbols that are copied at a time.
const PIECE: usize = 1 << 16;

/// Encodes symbols; where no code would save a thousandth of them, they are stored.
pub fn encode(symbols: &[u8], coder: Coder) -> Vec<u8> {
    let encoded = Encoded::of(symbols, coder, SAVING);
    let mut out = vec![0; encoded.bytes()];
    encoded.write(&mut out);
    out
}

/// The parts of a stream.
pub(super) struct Encoded<'a, S: ?Sized> {
    source: &'a S,
    /// Header and table.
    head: Vec<u8>,
    body: Body,
}

enum Body {
    Nothing,
    Stored,
    /// Chunks of 2ᵏ symbols; none where they are plain.
    Chunks(u8, Vec<Option<Vec<u8>>>),
}

impl<'a, S: Source + ?Sized> Encoded<'a, S> {
    /// Encodes where that saves at least that share.
    pub(super) fn of(source: &'a S, coder: Coder, saving: f64) -> Self {
        if are_dense(source, saving) {
            return Self::stored(source);
        }
        let counts = count(source);
        let bytes = Table::of(&counts, coder).map_or(0.0, |(_, bits)| bits / 8.0);
        let each = bytes / source.len().max(1) as f64;
        let size = SIZES
            .into_iter()
            .find(|k| f64::from(1u32 << k) * each >= CHUNK_BYTES);
        Self::in_chunks(source, &counts, coder, size.unwrap_or(*SIZES.end()), saving)
    }

    /// The same with chunks of 2ᵏ symbols, which were counted.
    pub(super) fn in_chunks(source: &'a S, counts: &Counts, coder: Coder, k: u8, saving: f64) -> Self {
        let Some((table, bits)) = Table::of(counts, coder) else {
            let Some(symbol) = counts.iter().position(|n| *n > 0) else {
                return Self::stored(source);
            };
            return Self {
                source,
                head: header(FORM_REPEATED, k, 0, &[symbol as u8], source.len()),
                body: Body::Nothing,
            };
        };
        let (table, bits) = table.or_groups(bits, source, counts, k);
        let head = table.head(k, source.len());
        let chunks = source.len().div_ceil(1 << k);
        let overhead = head.len() + chunks * (4 + STATE_BYTES);
        if overhead as f64 + bits / 8.0 > source.len() as f64 * (1.0 - saving) {
            return Self::stored(source);
        }
        Self {
            source,
            head,
            body: Body::Chunks(k, table.encode(source, k)),
        }
    }

    fn stored(source: &'a S) -> Self {
        Self {
            source,
            head: header(FORM_STORED, *SIZES.start(), 0, &[], source.len()),
            body: Body::Stored,
        }
    }

    /// Bytes of the stream.
    pub(super) fn bytes(&self) -> usize {
        self.head.len()
            + match &self.body {
                Body::Nothing => 0,
                Body::Stored => self.source.len(),
                Body::Chunks(k, chunks) => (0..chunks.len())
                    .map(|i| 4 + self.chunk_bytes(*k, chunks, i))
                    .sum(),
            }
    }

    fn chunk_bytes(&self, k: u8, chunks: &[Option<Vec<u8>>], index: usize) -> usize {
        match &chunks[index] {
            Some(chunk) => chunk.len(),
            None => part(index, 1 << k, self.source.len()).len(),
        }
    }

    /// Writes the stream, which fills `out`.
    pub(super) fn write(&self, out: &mut [u8]) {
        let (head, mut rest) = out.split_at_mut(self.head.len());
        head.copy_from_slice(&self.head);
        match &self.body {
            Body::Nothing => {}
            Body::Stored => self.copy(0, rest),
            Body::Chunks(k, chunks) => {
                let mut places = Vec::with_capacity(chunks.len());
                let lengths;
                (lengths, rest) = rest.split_at_mut(4 * chunks.len());
                for (i, length) in lengths.as_chunks_mut().0.iter_mut().enumerate() {
                    let bytes = self.chunk_bytes(*k, chunks, i);
                    let plain = if chunks[i].is_none() { PLAIN } else { 0 };
                    *length = (bytes as u32 | plain).to_le_bytes();
                    let place;
                    (place, rest) = rest.split_at_mut(bytes);
                    places.push((i, place));
                }
                places.into_par_iter().for_each(|(i, place)| match &chunks[i] {
                    Some(chunk) => place.copy_from_slice(chunk),
                    None => self.copy(i << k, place),
                });
            }
        }
    }

    /// Copies symbols from the `first` on.
    fn copy(&self, first: usize, out: &mut [u8]) {
        let pieces = out.par_chunks_mut(PIECE).enumerate();
        pieces.for_each_init(Vec::new, |buffer, (i, out)| {
            let from = first + i * PIECE;
            out.copy_from_slice(self.source.read(from..from + out.len(), buffer));
        });
    }
}

fn part(index: usize, size: usize, length: usize) -> Range<usize> {
    index * size..((index + 1) * size).min(length)
}

/// All chunks, each by itself: of its symbols, by way of a buffer.
fn encode_all<S: Source + ?Sized>(
    source: &S,
    k: u8,
    encode: impl Fn(&[u8], &mut Vec<u8>) -> Option<Vec<u8>> + Sync,
) -> Vec<Option<Vec<u8>>> {
    let chunks = (0..source.len().div_ceil(1 << k)).into_par_iter();
    let buffers = || (Vec::new(), Vec::new());
    let encoded = chunks.map_init(buffers, |(symbols, words), i| {
        let symbols = source.read(part(i, 1 << k, source.len()), symbols);
        encode(symbols, words)
    });
    encoded.collect()
}

fn header(form: u8, k: u8, group: u8, table: &[u8], symbols: usize) -> Vec<u8> {
    let mut out = vec![version_of(form), form, k, group];
    out.extend((table.len() as u32).to_le_bytes());
    out.extend((symbols as u64).to_le_bytes());
    out.extend_from_slice(table);
    out
}

/// The table of a code.
enum Table {
    Huffman(Box<huffman::Lengths>),
    Groups(Box<groups::Lengths>),
    Rans(Box<rans::Frequencies>),
}

impl Table {
    /// A table of single symbols, and the bits of those that were counted. None where fewer than two occur.
    fn of(counts: &Counts, coder: Coder) -> Option<(Self, f64)> {
        if counts.iter().filter(|n| **n > 0).count() < 2 {
            return None;
        }
        Some(match coder {
            Coder::Huffman => {
                let lengths = huffman::Lengths::of(counts);
                let bits = lengths.cost(counts);
                (Self::Huffman(Box::new(lengths)), bits)
            }
            Coder::Rans => {
                let frequencies = rans::Frequencies::of(counts);
                let bits = frequencies.cost(counts);
                (Self::Rans(Box::new(frequencies)), bits)
            }
        })
    }

    /// A table of groups of symbols instead, where that takes fewer bits.
    fn or_groups<S: Source + ?Sized>(self, bits: f64, source: &S, counts: &Counts, k: u8) -> (Self, f64) {
        let grouped = match self {
            Self::Huffman(_) => groups::Lengths::best(source, counts, k, bits),
            _ => None,
        };
        grouped.map_or((self, bits), |(lengths, bits)| {
            (Self::Groups(Box::new(lengths)), bits)
        })
    }

    /// Header and table.
    fn head(&self, k: u8, symbols: usize) -> Vec<u8> {
        let mut table = Vec::new();
        let (form, group) = match self {
            Self::Huffman(lengths) => {
                lengths.write(&mut table);
                (FORM_HUFFMAN, 0)
            }
            Self::Groups(lengths) => {
                lengths.write(&mut table);
                (FORM_GROUPS, lengths.size as u8)
            }
            Self::Rans(frequencies) => {
                frequencies.write(&mut table);
                (FORM_RANS, 0)
            }
        };
        header(form, k, group, &table, symbols)
    }

    fn encode<S: Source + ?Sized>(&self, source: &S, k: u8) -> Vec<Option<Vec<u8>>> {
        match self {
            Self::Huffman(lengths) => {
                let code = huffman::Encoder::new(lengths);
                encode_all(source, k, |symbols, words| lanes::encode(&code, symbols, words))
            }
            Self::Groups(lengths) => {
                let code = groups::Encoder::new(lengths);
                encode_all(source, k, |symbols, words| code.encode(symbols, words))
            }
            Self::Rans(frequencies) => {
                let code = rans::Encoder::new(frequencies);
                encode_all(source, k, |symbols, words| lanes::encode(&code, symbols, words))
            }
        }
    }
}
