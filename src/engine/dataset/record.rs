//! One record of a dataset.
//!
//! Owns: what a record may hold. Must not know: files.
//! Invariant: a record is never empty: blank text and rows without ids are no records.

use serde::{Deserialize, Serialize};

/// What one line, row or document says.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The text, conversation, ids or numbers.
    pub content: Content,
    /// What a classifier should answer.
    pub label: Option<Label>,
    /// The second text of a pair (premise and hypothesis, query and passage); only beside [`Content::Text`].
    pub text_pair: Option<String>,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text to be tokenized.
    Text(String),
    /// A conversation for the model's chat template.
    Messages(Vec<Message>),
    /// Token ids, as they are fed to the model.
    Ids(Vec<u32>),
    /// Numbers, such as the pixels of an image: one entry of a float array.
    Values {
        /// Shape of the entry.
        shape: Vec<usize>,
        /// Its numbers, outermost dimension first.
        values: Vec<f32>,
    },
}

impl Content {
    /// What kind it is.
    pub fn kind(&self) -> ContentKind {
        match self {
            Self::Text(_) => ContentKind::Text,
            Self::Messages(_) => ContentKind::Messages,
            Self::Ids(_) => ContentKind::Ids,
            Self::Values { .. } => ContentKind::Values,
        }
    }
}

/// What the records of a dataset hold: all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentKind {
    /// Text.
    Text,
    /// Conversations.
    Messages,
    /// Token ids.
    Ids,
    /// Numbers.
    Values,
    /// No records: the importance of a model's columns.
    Importance,
}

impl ContentKind {
    /// Name as the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Messages => "messages",
            Self::Ids => "ids",
            Self::Values => "values",
            Self::Importance => "importance",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// What a classifier should answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// By number, as the model's outputs are numbered.
    Class(i64),
    /// By name, as `id2label` in the model's configuration spells it.
    Name(String),
}
