//! Which files of a source are the model.
//!
//! Owns: the choice.
//! Must not know: where the list comes from.
//! Invariant: what is chosen may be a model's file by its name; what cannot be chosen from is refused with a way out.

use crate::domain::Failure;
use crate::domain::model::{NameError, check_file_name};
use crate::domain::pull::is_among;

/// A file that a source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its name in the model.
    pub(super) name: String,
    /// What the source calls it.
    pub(super) origin: String,
    /// Its size.
    pub(super) bytes: u64,
    /// Its SHA-256, where the source says it.
    pub(super) sha256: Option<String>,
}

/// What lies beside weights: configuration, tokenizers, templates.
const BESIDE: [&str; 4] = ["jinja", "json", "model", "tiktoken"];
/// Text files that are part of a tokenizer; others are for people.
const TEXTS: [&str; 2] = ["merges.txt", "vocab.txt"];
/// How many names an answer lists.
const SHOWN: usize = 6;

/// Those that are named, or else the usual ones: safetensors with what lies beside them, or one GGUF file.
pub(super) fn choose(listed: Vec<Listed>, include: &[String]) -> Result<Vec<Listed>, Failure> {
    if include.is_empty() {
        return usual(listed);
    }
    let named: Vec<Listed> = listed
        .into_iter()
        .filter(|file| is_among(include, &file.name))
        .collect();
    if let Some(error) = named.iter().find_map(|file| check_file_name(&file.name).err()) {
        return Err(refused(&error));
    }
    if named.is_empty() {
        let message = format!(
            "the source has no file that include names ({})",
            include.join(", ")
        );
        return Err(failure("no_model_files", message));
    }
    Ok(named)
}

fn usual(listed: Vec<Listed>) -> Result<Vec<Listed>, Failure> {
    let pickle = listed.iter().find_map(|file| match check_file_name(&file.name) {
        Err(error @ NameError::Pickle(_)) => Some(error),
        _ => None,
    });
    let fits = |file: &Listed| check_file_name(&file.name).is_ok() && is_near(&file.name);
    let files: Vec<Listed> = listed.into_iter().filter(fits).collect();
    let with = |extension: &'static str| move |file: &&Listed| extension_of(&file.name) == extension;
    if files.iter().any(|file| extension_of(&file.name) == "safetensors") {
        // Some repositories hold the same weights again in the layout that their makers use.
        let is_main = |file: &Listed| !file.name.contains('/') && file.name.starts_with("model");
        let main = files.iter().filter(with("safetensors")).any(is_main);
        let keep = |file: &Listed| match extension_of(&file.name) {
            "safetensors" => !main || is_main(file) || file.name.contains('/'),
            other => BESIDE.contains(&other) || TEXTS.contains(&file.name.as_str()),
        };
        return Ok(files.into_iter().filter(keep).collect());
    }
    let found: Vec<Listed> = files.iter().filter(with("gguf")).cloned().collect();
    match (found.as_slice(), pickle) {
        ([_], _) => Ok(found),
        ([], Some(error)) => Err(refused(&error)),
        ([], None) => Err(failure(
            "no_model_files",
            "the source has neither safetensors nor a GGUF file; name other files with include",
        )),
        (several, _) => {
            let names: Vec<&str> = several
                .iter()
                .take(SHOWN)
                .map(|file| file.name.as_str())
                .collect();
            let message = format!(
                "the source has {} GGUF files, each of them a model; name one with include: {}",
                several.len(),
                names.join(", ")
            );
            Err(failure("several_models", message))
        }
    }
}

fn refused(error: &NameError) -> Failure {
    let code = match error {
        NameError::Invalid { .. } => "file_name_invalid",
        NameError::Pickle(_) => "pickle_refused",
    };
    failure(code, error.to_string())
}

fn failure(code: &str, message: impl Into<String>) -> Failure {
    Failure {
        code: code.to_owned(),
        message: message.into(),
    }
}

fn extension_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// At the top, or in a numbered folder, where sentence encoders keep their modules; nothing hidden.
fn is_near(name: &str) -> bool {
    if name.split('/').any(|part| part.starts_with('.')) {
        return false;
    }
    match name.split_once('/') {
        None => true,
        Some((folder, _)) => folder
            .split_once('_')
            .is_some_and(|(number, _)| number.parse::<u32>().is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], include: &[&str]) -> Result<Vec<String>, String> {
        let listed = names.iter().map(|name| Listed {
            name: (*name).to_owned(),
            origin: (*name).to_owned(),
            bytes: 1,
            sha256: None,
        });
        let include: Vec<String> = include.iter().map(|name| (*name).to_owned()).collect();
        let chosen = choose(listed.collect(), &include);
        let names = chosen.map(|files| files.into_iter().map(|file| file.name).collect());
        names.map_err(|failure| failure.code)
    }

    #[test]
    fn a_checkpoint_is_its_weights_and_what_lies_beside_them() {
        let names = [
            ".gitattributes",
            "README.md",
            "LICENSE.txt",
            "config.json",
            "generation_config.json",
            "merges.txt",
            "vocab.json",
            "tokenizer.model",
            "chat_template.jinja",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "model.Q4_K_M.gguf",
            "onnx/model.onnx",
            "onnx/config.json",
            "original/params.json",
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "../evil.json",
        ];
        let expected = [&names[3..12], &names[18..20]].concat();
        assert_eq!(
            chosen(&names, &[]),
            Ok(expected.iter().map(|name| (*name).to_owned()).collect())
        );
    }

    #[test]
    fn what_cannot_be_chosen_from_is_refused_with_a_code() {
        for (names, include, code) in [
            (
                &["config.json", "pytorch_model.bin"][..],
                &[][..],
                "pickle_refused",
            ),
            (&["README.md"], &[], "no_model_files"),
            (&["a.Q4.gguf", "a.Q8.gguf"], &[], "several_models"),
            (&["a.gguf"], &["b*"], "no_model_files"),
            (&["model.bin"], &["*"], "pickle_refused"),
            (&["../a.gguf"], &["*"], "file_name_invalid"),
        ] {
            assert_eq!(chosen(names, include), Err(code.to_owned()), "{names:?}");
        }
        let one = Ok(vec!["a.Q8.gguf".to_owned()]);
        assert_eq!(chosen(&["a.Q4.gguf", "a.Q8.gguf"], &["*Q8*"]), one);
        assert_eq!(chosen(&["README.md", "config.json", "a.Q8.gguf"], &[]), one);
    }
}
