//! Owns: the token list: texts, types, scores, added tokens, padding.
//!
//! Must not know: merges, pre-tokenizers, special token ids.
//! Invariant: [`Vocab`] holds one distinct text for each id from zero up, because llama.cpp aborts on two ids of one
//! text.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::files::TokenizerFiles;
use super::value_error;
use crate::formats::gguf::error::GgufError;

/// Most tokens. The largest vocabularies in use have about 260 000.
pub const MAX_TOKENS: u32 = 1 << 24;

/// Token types on disk (`llama_token_type`).
pub(super) mod kind {
    pub(crate) const NORMAL: i32 = 1;
    pub(crate) const UNKNOWN: i32 = 2;
    pub(crate) const CONTROL: i32 = 3;
    pub(crate) const USER_DEFINED: i32 = 4;
    pub(crate) const UNUSED: i32 = 5;
    pub(crate) const BYTE: i32 = 6;
}

/// Score of an added token, and of padding; neither takes part in merging.
const ADDED_SCORE: f32 = -1000.0;
const PAD_SCORE: f32 = -10_000.0;

/// The finished token list.
pub(super) struct Vocab {
    pub(super) tokens: Vec<String>,
    pub(super) types: Vec<i32>,
    /// sentencepiece only.
    pub(super) scores: Option<Vec<f32>>,
}

/// A token before the list is complete.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) kind: i32,
    pub(super) score: f32,
}

/// A token added to the base vocabulary, or one of it marked special.
#[derive(Clone, Debug)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    pub(super) special: bool,
}

/// Tokens by id, with holes.
pub(super) struct Slots {
    slots: Vec<Option<Token>>,
}

impl Slots {
    /// As many empty slots as the embedding has rows.
    pub(super) fn new(vocab_size: u32) -> Result<Self, GgufError> {
        if vocab_size > MAX_TOKENS {
            let (what, got, limit) = (
                "vocab_size of config.json".into(),
                vocab_size.into(),
                MAX_TOKENS.into(),
            );
            return Err(GgufError::Limit { what, got, limit });
        }
        Ok(Self {
            slots: vec![None; vocab_size as usize],
        })
    }

    /// Fills the slot of `id`, which must be empty.
    pub(super) fn fill(&mut self, id: u32, token: Token) -> Result<(), GgufError> {
        let slot = self.slot(id, &token.text)?;
        if let Some(old) = slot {
            return Err(clash(id, &old.text, &token.text));
        }
        *slot = Some(token);
        Ok(())
    }

    /// Lays added tokens over the base: special ones become control tokens, the others are matched in the text as
    /// the user wrote it. A token the base has by the same text keeps its score, and its type if that is special.
    pub(super) fn add(&mut self, added: &[Added]) -> Result<(), GgufError> {
        for Added { id, content, special } in added {
            let control = *special || looks_special(content);
            let slot = self.slot(*id, content)?;
            let same = slot.as_ref().filter(|token| token.text == *content);
            let score = same.map_or(ADDED_SCORE, |token| token.score);
            let kind = match same.map(|token| token.kind) {
                Some(kind @ (kind::UNKNOWN | kind::BYTE)) => kind,
                _ if control => kind::CONTROL,
                _ => kind::USER_DEFINED,
            };
            let text = match kind {
                // llama.cpp matches these before it turns spaces into U+2581
                kind::USER_DEFINED => content.replace('\u{2581}', " "),
                _ => content.clone(),
            };
            *slot = Some(Token { text, kind, score });
        }
        Ok(())
    }

    /// Pads the holes and checks that texts are distinct.
    pub(super) fn finish(self, with_scores: bool) -> Result<Vocab, GgufError> {
        let mut vocab = Vocab {
            tokens: Vec::new(),
            types: Vec::new(),
            scores: None,
        };
        let mut scores = Vec::new();
        for (id, slot) in self.slots.into_iter().enumerate() {
            let token = slot.unwrap_or_else(|| Token {
                text: format!("[PAD{id}]"),
                kind: kind::UNUSED,
                score: PAD_SCORE,
            });
            vocab.tokens.push(token.text);
            vocab.types.push(token.kind);
            scores.push(token.score);
        }
        let mut ids = HashMap::with_capacity(vocab.tokens.len());
        for (id, text) in vocab.tokens.iter().enumerate() {
            if let Some(first) = ids.insert(text.as_str(), id) {
                return Err(GgufError::TokenizerValue {
                    path: format!("token {id}"),
                    expected: format!("a text that token {first} does not have"),
                    got: format!("{text:?}"),
                });
            }
        }
        vocab.scores = with_scores.then_some(scores);
        Ok(vocab)
    }

    fn slot(&mut self, id: u32, text: &str) -> Result<&mut Option<Token>, GgufError> {
        let size = self.slots.len();
        self.slots
            .get_mut(id as usize)
            .ok_or_else(|| GgufError::TokenizerValue {
                path: format!("id of token {text:?}"),
                expected: format!("less than vocab_size = {size} of config.json"),
                got: id.to_string(),
            })
    }
}

fn clash(id: u32, old: &str, new: &str) -> GgufError {
    GgufError::TokenizerValue {
        path: format!("token {id}"),
        expected: "one text".into(),
        got: format!("{old:?} and {new:?}"),
    }
}

/// The `vocab` object of a `tokenizer.json` model: text and id.
pub(super) fn entries(
    json: &Json,
) -> Result<impl Iterator<Item = Result<(&str, u32), GgufError>>, GgufError> {
    let vocab = &json["model"]["vocab"];
    let object = vocab
        .as_object()
        .ok_or_else(|| value_error("tokenizer.json model.vocab", "an object", vocab))?;
    Ok(object.iter().map(|(text, id)| {
        Ok((
            text.as_str(),
            id_of(&format!("tokenizer.json model.vocab[{text:?}]"), id)?,
        ))
    }))
}

/// `added_tokens` of `tokenizer.json`.
pub(super) fn added_of_json(json: &Json) -> Result<Vec<Added>, GgufError> {
    let list = &json["added_tokens"];
    if list.is_null() {
        return Ok(Vec::new());
    }
    let list = list
        .as_array()
        .ok_or_else(|| value_error("tokenizer.json added_tokens", "an array", list))?;
    let added = list.iter().enumerate().map(|(i, token)| {
        let path = format!("tokenizer.json added_tokens[{i}]");
        added_token(&path, id_of(&format!("{path}.id"), &token["id"])?, token)
    });
    added.collect()
}

/// Added tokens of a checkpoint without `tokenizer.json`: `added_tokens_decoder` of `tokenizer_config.json`, and
/// `added_tokens.json`.
pub(super) fn added_of_files(files: &TokenizerFiles) -> Result<Vec<Added>, GgufError> {
    let mut out = Vec::new();
    for (text, id) in files
        .added_tokens
        .as_ref()
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        let id = id_of(&format!("added_tokens.json[{text:?}]"), id)?;
        out.push(Added {
            id,
            content: text.clone(),
            special: false,
        });
    }
    for (id, token) in files
        .config("added_tokens_decoder")
        .as_object()
        .into_iter()
        .flatten()
    {
        let path = format!("tokenizer_config.json added_tokens_decoder[{id:?}]");
        let id = id
            .parse()
            .ok()
            .ok_or_else(|| value_error(&path, "named by a token id", &Json::from(id.as_str())))?;
        out.push(added_token(&path, id, token)?);
    }
    Ok(out)
}

fn added_token(path: &str, id: u32, token: &Json) -> Result<Added, GgufError> {
    let content = &token["content"];
    let text = content
        .as_str()
        .ok_or_else(|| value_error(format!("{path}.content"), "a string", content))?;
    Ok(Added {
        id,
        content: text.into(),
        special: token["special"].as_bool().unwrap_or(false),
    })
}

fn id_of(path: &str, id: &Json) -> Result<u32, GgufError> {
    let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
    number.ok_or_else(|| value_error(path, "a token id", id))
}

/// Tokens that some checkpoints forget to mark special (llama.cpp's converter has the same list).
fn looks_special(text: &str) -> bool {
    let between = |start: &str, end: &str| text.starts_with(start) && text.ends_with(end);
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
}
