//! Owns: sentencepiece BPE (`llama` in GGUF): Llama 1 and 2, Mistral 7B.
//!
//! Must not know: special token ids. Invariant: llama.cpp merges the pair whose result has the highest score, so
//! scores fall in the order of the merges.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::bpe::merges;
use super::files::TokenizerFiles;
use super::sentencepiece::{Piece, parse};
use super::vocab::{Added, Slots, Token, Vocab, added_of_files, added_of_json, entries, kind};
use super::{Converted, Target, pre, unsupported, value_error};
use crate::formats::gguf::error::GgufError;

/// `tokenizer.ggml.pre` of every sentencepiece model.
const PRE: &str = "default";

/// `trainer_spec.model_type` of a model that merges.
const BPE: u64 = 2;

/// sentencepiece's stand-in for a space.
const SPACE: &str = "\u{2581}";

/// True for a BPE model that falls back to bytes.
pub(super) fn recognise(json: &Json) -> bool {
    let model = &json["model"];
    (model["type"] == "BPE" || model["type"].is_null()) && model["byte_fallback"] == true
}

/// From `tokenizer.json`. Scores are those of `tokenizer.model` where the checkpoint has one with the same pieces,
/// and are made from the order of the merges where it has not.
pub(super) fn from_json(
    json: &Json,
    model: Option<&[u8]>,
    target: &Target<'_>,
) -> Result<Converted, GgufError> {
    let space_prefix = space_prefix(json)?;
    let mut slots = Slots::new(target.vocab_size)?;
    let parsed = model
        .map(parse)
        .transpose()?
        .filter(|parsed| parsed.model_type == BPE);
    let added = added_of_json(json)?;
    let vocab = &json["model"]["vocab"];
    let same = |(id, piece): (usize, &Piece)| vocab[piece.text.as_str()].as_u64() == Some(id as u64);
    match parsed {
        Some(parsed) if parsed.pieces.iter().enumerate().all(same) => fill_pieces(&mut slots, parsed.pieces)?,
        _ => fill_entries(&mut slots, json, &added)?,
    }
    slots.add(&added)?;
    Ok(converted(slots.finish(true)?, space_prefix))
}

/// From `tokenizer.model` alone.
pub(super) fn from_model(
    model: &[u8],
    files: &TokenizerFiles,
    target: &Target<'_>,
) -> Result<Converted, GgufError> {
    let parsed = parse(model)?;
    if parsed.model_type != BPE {
        // llama.cpp has no unigram under the name `llama`
        let got = Json::from(parsed.model_type);
        return Err(unsupported(
            "tokenizer.model trainer_spec.model_type",
            "2 (BPE)",
            &got,
        ));
    }
    let mut slots = Slots::new(target.vocab_size)?;
    fill_pieces(&mut slots, parsed.pieces)?;
    slots.add(&added_of_files(files)?)?;
    Ok(converted(slots.finish(true)?, parsed.add_dummy_prefix))
}

fn converted(vocab: Vocab, space_prefix: bool) -> Converted {
    Converted {
        model: "llama",
        pre: PRE.into(),
        vocab,
        merges: None,
        space_prefix: Some(space_prefix),
    }
}

fn fill_pieces(slots: &mut Slots, pieces: Vec<Piece>) -> Result<(), GgufError> {
    for (id, Piece { text, score, kind }) in pieces.into_iter().enumerate() {
        slots.fill(id as u32, Token { text, kind, score })?;
    }
    Ok(())
}

fn fill_entries(slots: &mut Slots, json: &Json, added: &[Added]) -> Result<(), GgufError> {
    let scores = scores(json)?;
    let outside: HashSet<&str> = added.iter().map(|token| token.content.as_str()).collect();
    let unknown = json["model"]["unk_token"].as_str();
    // single characters merge with nothing, yet come after all that was merged, as in SentencePiece
    let mut next = -(scores.len() as f32);
    let mut order = entries(json)?.collect::<Result<Vec<_>, _>>()?;
    order.sort_by_key(|(_, id)| *id);
    for (text, id) in order {
        let (kind, score) = if Some(text) == unknown {
            (kind::UNKNOWN, 0.0)
        } else if is_byte(text) {
            (kind::BYTE, 0.0)
        } else if outside.contains(text) {
            (kind::CONTROL, 0.0)
        } else if let Some(score) = scores.get(text) {
            (kind::NORMAL, *score)
        } else {
            next -= 1.0;
            (kind::NORMAL, next + 1.0)
        };
        slots.fill(
            id,
            Token {
                text: text.into(),
                kind,
                score,
            },
        )?;
    }
    Ok(())
}

/// 0, -1, -2, … for each piece in the order in which the merges first make it.
fn scores(json: &Json) -> Result<HashMap<String, f32>, GgufError> {
    let vocab = &json["model"]["vocab"];
    let mut scores = HashMap::new();
    for (left, right) in merges(&json["model"])? {
        let piece = format!("{left}{right}");
        if vocab[piece.as_str()].is_null() {
            let expected = "pairs that make tokens of the vocabulary";
            return Err(value_error(
                "tokenizer.json model.merges",
                expected,
                &Json::from(piece),
            ));
        }
        let next = -(scores.len() as f32);
        scores.entry(piece).or_insert(next);
    }
    Ok(scores)
}

/// `<0x00>` to `<0xFF>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether a text gets a leading space, from the normalizer or the `Metaspace` step; refuses other normalizing.
fn space_prefix(json: &Json) -> Result<bool, GgufError> {
    let mut prefix = false;
    for step in opened(&json["normalizer"], "normalizers") {
        match step["type"].as_str() {
            Some("Prepend") if step["prepend"] == SPACE => prefix = true,
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == SPACE => {}
            _ => {
                let expected = "only Prepend and Replace of a space by U+2581";
                return Err(unsupported("tokenizer.json normalizer", expected, step));
            }
        }
    }
    for step in pre::steps(&json["pre_tokenizer"]) {
        match step["type"].as_str() {
            Some("Metaspace") => {
                let scheme = step["prepend_scheme"].as_str();
                prefix |= match scheme {
                    Some(scheme) => scheme != "never",
                    None => step["add_prefix_space"] != false,
                };
            }
            // Gemma cuts at spaces, which never merge across
            Some("Split") if step["pattern"]["String"] == " " => {}
            _ => {
                return Err(unsupported(
                    "tokenizer.json pre_tokenizer",
                    "none or Metaspace",
                    step,
                ));
            }
        }
    }
    Ok(prefix)
}

/// The steps of a JSON step or sequence.
fn opened<'a>(json: &'a Json, list: &str) -> Vec<&'a Json> {
    match json[list].as_array() {
        Some(items) => items.iter().flat_map(|item| opened(item, list)).collect(),
        None if json.is_null() => Vec::new(),
        None => vec![json],
    }
}
