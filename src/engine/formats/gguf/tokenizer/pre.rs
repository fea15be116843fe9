//! Owns: the name llama.cpp gives to a way of splitting text before BPE (`tokenizer.ggml.pre`).
//!
//! Must not know: vocabularies. Invariant: a name is given only if llama.cpp splits with the same patterns
//! (`src/llama-vocab.cpp`, `llm_tokenizer_bpe`); anything else is refused with the way out.
//!
//! llama.cpp's converter hashes the ids of a sample text, so each new vocabulary needs a new entry there. The
//! structure of the pre-tokenizer says the same thing for every vocabulary.

use serde_json::Value as Json;

use super::shown;
use crate::formats::gguf::error::GgufError;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_V3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

/// One splitting step, less what does not matter.
#[derive(Debug, PartialEq)]
enum Step<'a> {
    /// Each match of the pattern is a piece, and so is what lies between.
    Split(&'a str),
    /// Each digit is a piece.
    Digits,
    /// GPT-2's own pattern, then bytes.
    Gpt2,
    /// Bytes only.
    Bytes,
}

/// Names by the steps they stand for.
const NAMES: &[(&str, &[Step<'static>])] = &[
    ("gpt-2", &[Step::Gpt2]),
    ("smollm", &[Step::Digits, Step::Gpt2]),
    ("llama-bpe", &[Step::Split(LLAMA3), Step::Bytes]),
    ("qwen2", &[Step::Split(QWEN2), Step::Bytes]),
    ("qwen35", &[Step::Split(QWEN35), Step::Bytes]),
    ("tekken", &[Step::Split(TEKKEN), Step::Bytes]),
    ("gpt-4o", &[Step::Split(GPT4O), Step::Bytes]),
    (
        "deepseek-v3",
        &[
            Step::Split(r"\p{N}{1,3}"),
            Step::Split("[一-龥\u{3040}-ゟ゠-ヿ]+"),
            Step::Split(DEEPSEEK_V3),
            Step::Bytes,
        ],
    ),
    (
        "deepseek-coder",
        &[
            Step::Split("[\r\n]"),
            Step::Split(r"\s?\p{L}+"),
            Step::Split(r"\s?\p{P}+"),
            Step::Split("[一-龥ࠀ-一가-\u{d7ff}]+"),
            Step::Digits,
            Step::Bytes,
        ],
    ),
];

/// The name of a `pre_tokenizer`. `ignore_merges` is the BPE model's: whole words of the vocabulary need no merges.
pub(super) fn name(pre_tokenizer: &Json, ignore_merges: bool) -> Result<&'static str, GgufError> {
    let known = || {
        let parsed = steps(pre_tokenizer)
            .into_iter()
            .map(step)
            .collect::<Option<Vec<_>>>()?;
        NAMES
            .iter()
            .find(|(_, steps)| *steps == parsed)
            .map(|(name, _)| *name)
    };
    match known() {
        // the same pattern, for vocabularies that do merge every word
        Some("llama-bpe") if !ignore_merges => Ok("smaug-bpe"),
        Some(name) => Ok(name),
        None => Err(GgufError::UnknownPre {
            got: shown(pre_tokenizer),
        }),
    }
}

/// The steps of a pre-tokenizer, sequences opened.
pub(super) fn steps(pre_tokenizer: &Json) -> Vec<&Json> {
    match pre_tokenizer["pretokenizers"].as_array() {
        Some(list) => list.iter().flat_map(steps).collect(),
        None if pre_tokenizer.is_null() => Vec::new(),
        None => vec![pre_tokenizer],
    }
}

fn step(json: &Json) -> Option<Step<'_>> {
    match json["type"].as_str()? {
        "ByteLevel" if json["add_prefix_space"] == true => None,
        // files older than the flag always split
        "ByteLevel" if json["use_regex"] == false => Some(Step::Bytes),
        "ByteLevel" => Some(Step::Gpt2),
        "Digits" if json["individual_digits"] == true => Some(Step::Digits),
        "Split" => {
            let isolated = json["behavior"] == "Isolated" && json["invert"] != true;
            // removing what does not match is the same when the pattern matches everything
            let kept = json["behavior"] == "Removed" && json["invert"] == true;
            let pattern = json["pattern"]["Regex"].as_str()?;
            (isolated || kept).then_some(Step::Split(pattern))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "../tests/tokenizer_pre.rs"]
mod tests;
