//! Entropy coding: bytes that are not equally likely, in fewer bits.
//!
//! Owns: codes, the chunked stream, the split of floats into planes. Must not know: tensors, files, what the symbols mean.
//! Invariant: what is decoded is what was encoded, and equal input gives equal bytes on every CPU and for any number of
//! threads.
//!
//! # A stream
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 1 | version: 2 where the form is 4, 1 elsewhere |
//! | 1 | 1 | form: 0 stored, 1 repeated, 2 Huffman, 3 rANS, 4 Huffman of groups |
//! | 2 | 1 | `k`: a chunk is 2ᵏ symbols, the last one what is left; 6 ≤ `k` ≤ 24 |
//! | 3 | 1 | form 4: `n`, symbols of a group: 2, 3, 4, 6, 8 or 12; elsewhere 0 |
//! | 4 | 4 | `T`, bytes of the table |
//! | 8 | 8 | `N`, number of symbols |
//! | 16 | `T` | table |
//! | 16 + `T` | 4 `C` | forms 2, 3 and 4: a length for each of the `C = ⌈N / 2ᵏ⌉` chunks |
//! | then | | chunks, one after another, to the end |
//!
//! *Stored*: no table, no lengths; the symbols follow. *Repeated*: the table is the one symbol, nothing follows.
//!
//! Bits 0 to 30 of a *length* are a chunk's bytes. Bit 31 says that they are the symbols themselves.
//!
//! A *table* begins with 32 bytes: symbol `s` occurs where bit `s mod 8` of byte `⌊s / 8⌋` is set. In the order of the
//! symbols that occur follow
//! - rANS: the frequency of each, two bytes, from 1 to 16383; they add up to 2¹⁴;
//! - Huffman: the length of each code, from 1 to 12, four bits, the first of two in the low half of a byte; a half
//!   that is left over is 0. The code is complete. Codes are given out by ascending length, then by ascending symbol,
//!   as is canonical; the first bit of each is read first.
//!
//! A *chunk* is 64 states of four bytes, then words of two bytes. Symbol `i` of a chunk belongs to lane `i mod 64`; in form
//! 4 group `i`, which has symbols `n·i` to `n·i + n − 1`. Groups begin anew in each chunk; what its last one has too many
//! is the lowest symbol, and is not read. With `x` the state of its lane, a symbol is read so:
//! - rANS: `u = x mod 2¹⁴`; the symbol is the one with `c ≤ u < c + f`, where `f` is its frequency and `c` the sum of the
//!   frequencies of lower symbols; `x ← f·⌊x / 2¹⁴⌋ + u − c`;
//! - Huffman: the symbol is the one whose code the lowest bits of `x` are, the first bit lowest; `x ← ⌊x / 2ˡ⌋`, where
//!   `l` is the length of the code; in form 4 a group is read so;
//! - then, where `x < 2¹⁶`, `x ← 2¹⁶·x + w` with `w` the next word of the chunk.
//!
//! In the end all words are used up and every state is 2¹⁶ again.
//!
//! # Planes of floats
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 1 | version: 1 |
//! | 1 | 1 | type: 0 bf16, 1 f16, 2 f32 |
//! | 2 | 1 | `P`, number of planes: 2, 2, 4 |
//! | 3 | 5 | 0 |
//! | 8 | 8 | `N`, number of weights |
//! | 16 | 8 `P` | bytes of each plane's stream |
//! | then | | the streams, each of `N` symbols, to the end |
//!
//! Planes of a weight's bits, highest bit first: bf16: exponent (8) · sign and mantissa (1 + 7). f16: sign, exponent and
//! upper mantissa (1 + 5 + 2) · lower mantissa (8). f32: exponent (8) · sign and upper mantissa (1 + 7) · the next 8
//! bits · the lowest 8 bits.

mod counts;
mod encode;
mod groups;
mod huffman;
mod lanes;
mod prefix;
mod rans;
pub mod split;
mod stream;
#[cfg(test)]
mod tests;
#[cfg_attr(not(target_arch = "x86_64"), path = "none.rs")]
mod vector;

pub use encode::encode;
pub use stream::{Coder, Stream, decode};

use crate::error::Error;

/// How often each symbol occurs.
type Counts = [u64; 256];

fn corrupt(what: &str) -> Error {
    Error::bad_input(
        "corrupt_entropy_stream",
        format!("an entropy coded stream is damaged: {what}"),
    )
}

/// By way of a vector, so that it never lies on the stack.
#[expect(clippy::expect_used, reason = "the length of the vector is that of the type")]
fn boxed<T, const N: usize>(values: Vec<T>) -> Box<[T; N]> {
    values.try_into().ok().expect("as long as it says")
}
