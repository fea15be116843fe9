//! Text to token ids, by the model's own tokenizer.
//!
//! Owns: `tokenizer.json` and special tokens. Must not know: windows, networks.
//! Invariant: every id lies within the model's embedding table.

use super::chat::Chat;
use crate::checkpoint::Checkpoint;
use crate::dataset::Message;
use crate::error::{Error, Result};
use tokenizers::Tokenizer;

/// A model's tokenizer.
pub struct Tokens {
    tokenizer: Tokenizer,
    chat: Option<Chat>,
    vocab: usize,
}

impl Tokens {
    /// The tokenizer of a checkpoint whose embedding table has `vocab` rows.
    pub fn of(model: &Checkpoint, vocab: usize) -> Result<Self> {
        let bytes = model.side_file("tokenizer.json")?.ok_or_else(|| {
            Error::bad_input(
                "missing_tokenizer",
                "the model has no tokenizer.json, and text cannot be turned into tokens without it: upload it with \
                 the model, or use a dataset of token ids (input_ids)",
            )
        })?;
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| {
            Error::bad_input("invalid_tokenizer", format!("tokenizer.json cannot be read: {e}"))
        })?;
        // What a file says about padding and truncation is for serving; here every token counts.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|e| Error::internal(format!("tokenizer: {e}")))?;
        let words = tokenizer.get_vocab_size(false);
        if words > vocab {
            return Err(Error::bad_input(
                "tokenizer_mismatch",
                format!(
                    "tokenizer.json has {words} tokens, the model's embedding table {vocab} rows: they do not \
                     belong together"
                ),
            ));
        }
        Ok(Self {
            tokenizer,
            chat: Chat::of(model)?,
            vocab,
        })
    }

    /// Ids of a text; with `special`, those that begin and end a sequence are added.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, special).map_err(|e| {
            Error::bad_input("text_not_tokenized", format!("the tokenizer refused a text: {e}"))
        })?;
        let ids = encoding.get_ids().to_vec();
        self.check(&ids)?;
        Ok(ids)
    }

    /// Ids of two texts as one sequence.
    pub fn encode_pair(&self, text: &str, pair: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast((text, pair), true).map_err(|e| {
            Error::bad_input("text_not_tokenized", format!("the tokenizer refused a text: {e}"))
        })?;
        let ids = encoding.get_ids().to_vec();
        self.check(&ids)?;
        Ok(ids)
    }

    /// Ids of a conversation, by the model's chat template.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        let chat = self.chat.as_ref().ok_or_else(|| {
            Error::bad_input(
                "missing_chat_template",
                "the dataset holds messages, but the model has no chat template: upload chat_template.jinja or a \
                 tokenizer_config.json with one, or use a dataset of plain text",
            )
        })?;
        self.encode(&chat.render(messages)?, false)
    }

    /// Refuses ids beyond the embedding table.
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        check_ids(ids, self.vocab)
    }
}

/// Refuses ids beyond an embedding table of `vocab` rows.
pub(super) fn check_ids(ids: &[u32], vocab: usize) -> Result<()> {
    match ids.iter().find(|id| **id as usize >= vocab) {
        None => Ok(()),
        Some(id) => Err(Error::bad_input(
            "tokenizer_mismatch",
            format!("token id {id} lies outside the model's embedding table of {vocab} rows"),
        )),
    }
}
