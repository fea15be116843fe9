//! Owns: special token ids, whether they are added to a text, and chat templates.
//!
//! Must not know: how the vocabulary was made. Invariant: an id written is an id of the vocabulary.
//!
//! Order of belief for an id: the text named in `tokenizer_config.json`, then in `special_tokens_map.json`, then the
//! id in `config.json`, then in `generation_config.json` (the first, where it is a list).

use std::collections::HashMap;

use serde_json::Value as Json;

use super::files::TokenizerFiles;
use super::{Converted, Target, unsupported};
use crate::formats::gguf::error::GgufError;
use crate::formats::gguf::value::{Metadata, Value};

/// Role in the Hugging Face files, and in the GGUF key.
const ROLES: &[(&str, &str)] = &[
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    ("sep", "seperator"),
    ("pad", "padding"),
    ("mask", "mask"),
];

/// Adds the keys after the token list.
pub(super) fn add_keys(
    out: &mut Metadata,
    files: &TokenizerFiles,
    target: &Target<'_>,
    converted: &Converted,
) -> Result<(), GgufError> {
    let ids: HashMap<&str, u32> = converted
        .vocab
        .tokens
        .iter()
        .map(String::as_str)
        .zip(0_u32..)
        .collect();
    for (role, key) in ROLES {
        if let Some(id) = id_of(role, files, target, &ids) {
            out.set(format!("tokenizer.ggml.{key}_token_id"), Value::U32(id));
        }
    }
    let added = Added::of(files);
    // a byte-level tokenizer that does not say so adds nothing; llama.cpp would guess by `pre`
    let bos = added.bos.or((converted.model == "gpt2").then_some(false));
    for (key, flag) in [("add_bos_token", bos), ("add_eos_token", added.eos)] {
        if let Some(flag) = flag {
            out.set(format!("tokenizer.ggml.{key}"), Value::Bool(flag));
        }
    }
    let space = files
        .config("add_prefix_space")
        .as_bool()
        .or(converted.space_prefix);
    if let Some(space) = space {
        out.set("tokenizer.ggml.add_space_prefix", Value::Bool(space));
    }
    add_chat_templates(out, files)
}

fn id_of(role: &str, files: &TokenizerFiles, target: &Target<'_>, ids: &HashMap<&str, u32>) -> Option<u32> {
    let named = [&files.tokenizer_config, &files.special_tokens_map]
        .into_iter()
        .flatten();
    let by_text = named
        .filter_map(|json| text_of(&json[format!("{role}_token")]))
        .find_map(|text| ids.get(text));
    let mut configs = [Some(target.config), target.generation_config]
        .into_iter()
        .flatten();
    let by_id = || configs.find_map(|json| first_id(&json[format!("{role}_token_id")]));
    by_text
        .copied()
        .or_else(by_id)
        .filter(|&id| (id as usize) < ids.len())
}

/// A token named by its text, or by an object with `content`.
fn text_of(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// An id, or the first of a list of ids.
fn first_id(id: &Json) -> Option<u32> {
    let id = id.as_array().map_or(Some(id), |list| list.first())?;
    id.as_u64()?.try_into().ok()
}

/// Which tokens the tokenizer puts around a text; `None` where the files do not say.
struct Added {
    bos: Option<bool>,
    eos: Option<bool>,
}

impl Added {
    fn of(files: &TokenizerFiles) -> Self {
        let template = Self::of_template(files);
        Self {
            bos: files.config("add_bos_token").as_bool().or(template.bos),
            eos: files.config("add_eos_token").as_bool().or(template.eos),
        }
    }

    /// From the `TemplateProcessing` step of `tokenizer.json`: a special token before or after the text.
    fn of_template(files: &TokenizerFiles) -> Self {
        let nothing = Self { bos: None, eos: None };
        let Some(json) = &files.tokenizer_json else {
            return nothing;
        };
        let post = &json["post_processor"];
        let steps = post["processors"]
            .as_array()
            .map_or_else(|| vec![post], |list| list.iter().collect());
        let single = steps.iter().find(|step| step["type"] == "TemplateProcessing");
        let Some(single) = single.and_then(|step| step["single"].as_array()) else {
            return nothing;
        };
        let text = single.iter().position(|part| part["Sequence"].is_object());
        let last = single.len().saturating_sub(1);
        text.map_or(nothing, |at| Self {
            bos: Some(at > 0),
            eos: (at < last).then_some(true),
        })
    }
}

/// `tokenizer.chat_template`, and the named ones of a list beside it.
fn add_chat_templates(out: &mut Metadata, files: &TokenizerFiles) -> Result<(), GgufError> {
    const KEY: &str = "tokenizer.chat_template";
    let stated = files.config("chat_template");
    match stated {
        Json::Null => {
            if let Some(template) = &files.chat_template {
                out.set(KEY, Value::text(template));
            }
        }
        Json::String(template) => out.set(KEY, Value::text(template)),
        Json::Array(list) => {
            let mut names = Vec::new();
            for item in list {
                let (Some(name), Some(template)) = (item["name"].as_str(), item["template"].as_str()) else {
                    return Err(bad_template(item));
                };
                let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                let name: String = name.chars().map(plain).collect();
                if name == "default" {
                    out.set(KEY, Value::text(template));
                } else {
                    out.set(format!("{KEY}.{name}"), Value::text(template));
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
            if !names.is_empty() {
                out.set("tokenizer.chat_templates", Value::texts(names));
            }
        }
        _ => return Err(bad_template(stated)),
    }
    Ok(())
}

fn bad_template(got: &Json) -> GgufError {
    unsupported(
        "tokenizer_config.json chat_template",
        "a string, or a list of objects with name and template",
        got,
    )
}
