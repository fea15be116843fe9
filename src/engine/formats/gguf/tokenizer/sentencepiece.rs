//! Owns: reading a sentencepiece model file (`tokenizer.model`), a protobuf, as far as a GGUF needs it.
//!
//! Must not know: GGUF keys. Invariant: hostile bytes give an error; memory is bounded by the length of the file.
//!
//! Field numbers: `sentencepiece_model.proto` of google/sentencepiece.

use crate::formats::gguf::error::GgufError;

/// One piece of the vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    /// sentencepiece's own number, the same as GGUF's token type.
    pub(super) kind: i32,
}

/// What is read of a model file.
#[derive(Debug, PartialEq)]
pub(super) struct SentencePiece {
    pub(super) pieces: Vec<Piece>,
    /// `trainer_spec.model_type`: 1 unigram, 2 BPE, 3 word, 4 char.
    pub(super) model_type: u64,
    /// `normalizer_spec.add_dummy_prefix`.
    pub(super) add_dummy_prefix: bool,
}

/// Reads the file.
pub(super) fn parse(bytes: &[u8]) -> Result<SentencePiece, GgufError> {
    let mut out = SentencePiece {
        pieces: Vec::new(),
        model_type: 1,
        add_dummy_prefix: true,
    };
    for field in Fields::new(bytes) {
        match field? {
            (1, Wire::Bytes(piece)) => out.pieces.push(parse_piece(piece, out.pieces.len())?),
            (2, Wire::Bytes(trainer)) => {
                for field in Fields::new(trainer) {
                    if let (3, Wire::Int(kind)) = field? {
                        out.model_type = kind;
                    }
                }
            }
            (3, Wire::Bytes(normalizer)) => {
                for field in Fields::new(normalizer) {
                    if let (3, Wire::Int(flag)) = field? {
                        out.add_dummy_prefix = flag != 0;
                    }
                }
            }
            _ => {}
        }
    }
    if out.pieces.is_empty() {
        return Err(broken("at least one piece", "none"));
    }
    Ok(out)
}

fn parse_piece(bytes: &[u8], index: usize) -> Result<Piece, GgufError> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: 1,
    };
    for field in Fields::new(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => {
                let text = std::str::from_utf8(text);
                piece.text = text
                    .map_err(|error| broken("utf-8 text", &format!("piece {index}: {error}")))?
                    .into();
            }
            (2, Wire::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Wire::Int(kind @ 1..=6)) => piece.kind = kind as i32,
            (3, Wire::Int(kind)) => {
                return Err(broken(
                    "a piece type from 1 to 6",
                    &format!("{kind} for piece {index}"),
                ));
            }
            _ => {}
        }
    }
    Ok(piece)
}

fn broken(expected: &str, got: &str) -> GgufError {
    GgufError::TokenizerValue {
        path: "tokenizer.model".into(),
        expected: expected.into(),
        got: got.into(),
    }
}

/// A protobuf value.
#[derive(Debug)]
enum Wire<'a> {
    Int(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of one protobuf message, in file order. Stops after the first error.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Int(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed64)?,
            2 => {
                let n = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(n)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (now, later) = self.rest.split_at_checked(n)?;
        self.rest = later;
        Some(now)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), GgufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let left = self.rest.len();
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or_else(|| {
            broken(
                "a sentencepiece protobuf",
                &format!("a broken field {left} bytes before the end"),
            )
        }))
    }
}

#[cfg(test)]
#[path = "../tests/tokenizer_sentencepiece.rs"]
mod tests;
