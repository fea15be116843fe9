//! Where there are no wider instructions to use.
//!
//! Owns: the answer that no row was done. Must not know: anything else.
//! Invariant: nothing is changed.

use super::lanes::{Reader, Writer};
use super::{groups, huffman, rans};

pub(super) fn put_rans(_code: &rans::Encoder, _writer: &mut Writer<'_>, symbols: &[u8]) -> usize {
    symbols.len()
}

pub(super) fn put_huffman(_code: &huffman::Encoder, _writer: &mut Writer<'_>, symbols: &[u8]) -> usize {
    symbols.len()
}

pub(super) fn take_rans(_code: &rans::Decoder, _reader: &mut Reader<'_>, _symbols: &mut [u8]) -> usize {
    0
}

pub(super) fn take_huffman(_code: &huffman::Decoder, _reader: &mut Reader<'_>, _symbols: &mut [u8]) -> usize {
    0
}

pub(super) fn put_groups(_code: &groups::Encoder, _writer: &mut Writer<'_>, groups: &[u16]) -> usize {
    groups.len()
}

pub(super) fn take_groups(_code: &groups::Decoder, _reader: &mut Reader<'_>, _groups: &mut [u16]) -> usize {
    0
}
