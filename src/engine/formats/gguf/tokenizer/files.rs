//! Owns: which files of a checkpoint describe its tokenizer. Must not know: where files are kept.
//! Invariant: a file that is there but is not what its name says is an error, never ignored.

use serde_json::Value as Json;

use crate::formats::gguf::error::GgufError;

/// The tokenizer files of a checkpoint, parsed. All may be absent.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer_json: Option<Json>,
    /// `tokenizer.model`: a sentencepiece protobuf.
    pub sentencepiece: Option<Vec<u8>>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Json>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<Json>,
    /// `added_tokens.json`: text to id.
    pub added_tokens: Option<Json>,
    /// `chat_template.jinja`.
    pub chat_template: Option<String>,
}

impl TokenizerFiles {
    /// The names [`Self::read`] asks for.
    pub const NAMES: [&'static str; 6] = [
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
    ];

    /// Collects the files through `get`, which gives the bytes of a file of the checkpoint, or `None`.
    pub fn read<E: From<GgufError>>(
        mut get: impl FnMut(&'static str) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        let mut json = |name| match get(name)? {
            Some(bytes) => parse(name, &bytes).map(Some).map_err(E::from),
            None => Ok(None),
        };
        let tokenizer_json = json("tokenizer.json")?;
        let tokenizer_config = json("tokenizer_config.json")?;
        let special_tokens_map = json("special_tokens_map.json")?;
        let added_tokens = json("added_tokens.json")?;
        let chat_template = match get("chat_template.jinja")? {
            Some(bytes) => Some(String::from_utf8(bytes).map_err(|error| GgufError::NotUtf8 {
                what: "file chat_template.jinja".into(),
                got: error.utf8_error().to_string(),
            })?),
            None => None,
        };
        let sentencepiece = get("tokenizer.model")?;
        Ok(Self {
            tokenizer_json,
            sentencepiece,
            tokenizer_config,
            special_tokens_map,
            added_tokens,
            chat_template,
        })
    }

    /// A field of `tokenizer_config.json`; null when either is absent.
    pub(super) fn config(&self, field: &str) -> &Json {
        self.tokenizer_config
            .as_ref()
            .map_or(&Json::Null, |config| &config[field])
    }
}

fn parse(name: &str, bytes: &[u8]) -> Result<Json, GgufError> {
    serde_json::from_slice(bytes).map_err(|error| GgufError::TokenizerValue {
        path: name.into(),
        expected: "json".into(),
        got: error.to_string(),
    })
}
