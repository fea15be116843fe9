//! Owns: byte-level BPE (`gpt2` in GGUF) from `tokenizer.json`: GPT-2, Llama 3, Qwen, SmolLM2.
//!
//! Must not know: special token ids. Invariant: merges keep their order, which is their rank.

use serde_json::Value as Json;

use super::vocab::{Slots, Token, added_of_json, entries, kind};
use super::{Converted, Target, pre, unsupported, value_error};
use crate::formats::gguf::error::GgufError;

/// True for a BPE model behind a `ByteLevel` pre-tokenizer or decoder.
pub(super) fn recognise(json: &Json) -> bool {
    let model = &json["model"];
    let bpe = model["type"] == "BPE" || (model["type"].is_null() && model["merges"].is_array());
    let byte_level = pre::steps(&json["pre_tokenizer"])
        .iter()
        .any(|step| step["type"] == "ByteLevel")
        || json["decoder"]["type"] == "ByteLevel";
    bpe && byte_level && model["byte_fallback"] != true
}

/// Reads the vocabulary and the merges, and names the pre-tokenizer.
pub(super) fn convert(json: &Json, target: &Target<'_>) -> Result<Converted, GgufError> {
    let model = &json["model"];
    for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[field].as_str().is_some_and(|text| !text.is_empty()) {
            return Err(unsupported(
                format!("tokenizer.json model.{field}"),
                "none",
                &model[field],
            ));
        }
    }
    refuse_normalizer(&json["normalizer"])?;
    let pre = match target.pre {
        Some(pre) => pre.to_owned(),
        None => pre::name(&json["pre_tokenizer"], model["ignore_merges"] == true)?.to_owned(),
    };
    let mut slots = Slots::new(target.vocab_size)?;
    for entry in entries(json)? {
        let (text, id) = entry?;
        slots.fill(
            id,
            Token {
                text: text.into(),
                kind: kind::NORMAL,
                score: 0.0,
            },
        )?;
    }
    slots.add(&added_of_json(json)?)?;
    let merges = merges(model)?;
    let merges = merges
        .into_iter()
        .map(|(left, right)| format!("{} {}", joinable(left), joinable(right)));
    Ok(Converted {
        model: "gpt2",
        pre,
        vocab: slots.finish(false)?,
        merges: Some(merges.collect()),
        space_prefix: None,
    })
}

/// Merges in rank order, from either spelling: `"a b"` or `["a", "b"]`.
pub(super) fn merges(model: &Json) -> Result<Vec<(&str, &str)>, GgufError> {
    let list = &model["merges"];
    let list = list
        .as_array()
        .ok_or_else(|| value_error("tokenizer.json model.merges", "an array", list))?;
    let pairs = list.iter().enumerate().map(|(i, merge)| {
        let pair = match merge {
            // a piece may itself begin with the separator only in the other spelling
            Json::String(text) => text.split_once(' ').filter(|(_, right)| !right.contains(' ')),
            Json::Array(pair) => match pair.as_slice() {
                [Json::String(left), Json::String(right)] => Some((left.as_str(), right.as_str())),
                _ => None,
            },
            _ => None,
        };
        let pair = pair.filter(|(left, right)| !left.is_empty() && !right.is_empty());
        pair.ok_or_else(|| {
            value_error(
                format!("tokenizer.json model.merges[{i}]"),
                "a pair of pieces",
                merge,
            )
        })
    });
    pairs.collect()
}

/// A space inside a piece is written as byte-level text writes it, so that the pair can be split again.
fn joinable(piece: &str) -> std::borrow::Cow<'_, str> {
    if piece.contains(' ') {
        piece.replace(' ', "\u{120}").into()
    } else {
        piece.into()
    }
}

/// llama.cpp normalizes nothing for these models. NFC is let through, as its own converter does for Qwen.
fn refuse_normalizer(normalizer: &Json) -> Result<(), GgufError> {
    match normalizer["type"].as_str() {
        None if normalizer.is_null() => Ok(()),
        Some("NFC") => Ok(()),
        Some("Sequence") => normalizer["normalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .try_for_each(refuse_normalizer),
        _ => Err(unsupported(
            "tokenizer.json normalizer",
            "none or NFC",
            normalizer,
        )),
    }
}
