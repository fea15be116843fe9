//! JSON that passes through: plans and reports, which may speak of hundreds of thousands of tensors.
//!
//! Owns: keeping such JSON as text; as a tree of values it takes ten times the memory.
//! Must not know: what is in it.
//! Invariant: it is JSON; a clone shares the text.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// JSON as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(Arc<str>);

impl Document {
    /// Writes a value down.
    pub fn of(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::to_string(value).map(Self::from_store)
    }

    /// Text that was a document before.
    pub fn from_store(text: String) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the value back.
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_is_read_back_in_the_same_order() {
        let document = Document::of(&serde_json::json!({"z": [1, 2.5], "a": null})).expect("writes");
        assert_eq!(document.as_str(), r#"{"z":[1,2.5],"a":null}"#);
        let back: serde_json::Value = document.read().expect("reads");
        assert_eq!(Document::of(&back).expect("writes"), document);
    }
}
