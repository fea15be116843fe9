//! Models: a draft takes files; a ready one never changes.
//!
//! Owns: the model, its file references, the rules for file names.
//! Must not know: where bytes are; what the engine reads in them.
//! Invariant: names in a model are relative, unique and cannot leave a folder they are put in.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::pull::PullState;
use super::{ModelId, Pull};

/// A file of a model or artifact.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileRef {
    /// Relative path with `/`.
    pub name: String,
    /// SHA-256, lower-case hexadecimal.
    pub digest: String,
    /// Size.
    pub bytes: u64,
}

/// A tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TensorRow {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its stored type.
    pub dtype: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// Its stored size.
    pub bytes: u64,
}

/// Where a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Takes files.
    Draft,
    /// Inspected and immutable.
    Ready,
}

impl ModelState {
    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Ready => "ready",
        }
    }
}

/// A model.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its id.
    pub id: ModelId,
    /// What the user calls it.
    pub name: Option<String>,
    /// The user's own pairs.
    pub metadata: BTreeMap<String, String>,
    /// Where it stands.
    pub state: ModelState,
    /// Its files, by name.
    pub files: Vec<FileRef>,
    /// Digest over names and file digests; of a ready model.
    pub digest: Option<String>,
    /// What the engine found (its `ModelSummary` as JSON); of a ready model.
    pub summary: Option<Value>,
    /// Where its files are brought from, if they are.
    pub pull: Option<Pull>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it became ready.
    pub committed_at: Option<OffsetDateTime>,
}

impl Model {
    /// Whether its files are being brought, so that nobody else may change them.
    pub fn is_pulling(&self) -> bool {
        self.pull
            .as_ref()
            .is_some_and(|pull| pull.state == PullState::Active)
    }

    /// The word for where it stands, with what became of a pull.
    pub fn status(&self) -> &'static str {
        match self.pull.as_ref().map(|pull| pull.state) {
            Some(PullState::Active) => "pulling",
            Some(PullState::Failed) => "failed",
            Some(PullState::Done) | None => self.state.as_str(),
        }
    }
}

/// The digest of a set of files: over `digest  name\n` lines in name order, as `sha256sum` would print them.
pub fn set_digest(files: &[FileRef]) -> String {
    let mut files: Vec<&FileRef> = files.iter().collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(format!("{}  {}\n", file.digest, file.name));
    }
    hex(&hasher.finalize())
}

/// The lower-case hexadecimal form.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            let _infallible = write!(out, "{byte:02x}");
            out
        })
}

/// Whether something may be called so: short and printable.
pub fn is_name(name: &str) -> bool {
    (1..=200).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Why a file name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Cannot be stored safely.
    #[error("the file name {name:?} {reason}")]
    Invalid {
        /// The name, cut to what is needed to find it.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Pickle runs code when it is read.
    #[error(
        "{0} is a Python pickle, which can run code when it is opened; convert the weights to \
         safetensors (model.save_pretrained(..., safe_serialization=True)) and upload those"
    )]
    Pickle(String),
}

/// Longest file name.
pub const MAX_NAME_BYTES: usize = 255;

const PICKLES: [&str; 7] = ["bin", "ckpt", "joblib", "pickle", "pkl", "pt", "pth"];

/// Checks a file name of a model.
pub fn check_file_name(name: &str) -> Result<(), NameError> {
    let rules: [(bool, &'static str); 6] = [
        (name.is_empty(), "is empty"),
        (name.len() > MAX_NAME_BYTES, "has more than 255 bytes"),
        (name.chars().any(char::is_control), "holds a control character"),
        (name.contains('\\'), "holds a backslash; separate folders with /"),
        (
            name.starts_with('/') || name.as_bytes().get(1) == Some(&b':'),
            "is absolute; names are relative to the model",
        ),
        (
            name.split('/').any(|part| matches!(part, "" | "." | "..")),
            "has an empty, `.` or `..` part",
        ),
    ];
    if let Some((_, reason)) = rules.into_iter().find(|(broken, _)| *broken) {
        let name = name.chars().take(100).collect();
        return Err(NameError::Invalid { name, reason });
    }
    let extension = name
        .rsplit_once('.')
        .map_or("", |(_, extension)| extension)
        .to_ascii_lowercase();
    if PICKLES.contains(&extension.as_str()) {
        return Err(NameError::Pickle(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_escape_are_refused() {
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            ".",
            "a\\b",
            "a\0b",
            "a\nb",
            "C:/x",
        ] {
            assert!(
                matches!(check_file_name(name), Err(NameError::Invalid { .. })),
                "{name:?}"
            );
        }
        assert!(check_file_name(&"x".repeat(256)).is_err());
        for name in [
            "config.json",
            "onnx/model.onnx",
            "model-00001-of-00002.safetensors",
            ".gitattributes",
            "a..b",
        ] {
            assert_eq!(check_file_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn pickles_are_refused_and_safetensors_named() {
        for name in ["pytorch_model.bin", "x.PT", "a/b.ckpt", "m.pkl"] {
            let error = check_file_name(name).expect_err(name);
            assert!(
                matches!(error, NameError::Pickle(_)) && error.to_string().contains("safetensors"),
                "{name}"
            );
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    proptest! {
        /// Joined to a folder, a name that was accepted is a place below it.
        #[test]
        fn no_accepted_name_leaves_its_folder(name in "([a-c.:/\\\\~ \\x00\n]|\\.\\.|\\PC){0,12}") {
            use std::path::{Component, Path};
            match check_file_name(&name) {
                Ok(()) => {
                    let parts: Vec<_> = Path::new(&name).components().collect();
                    prop_assert!(!parts.is_empty());
                    prop_assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))));
                    prop_assert_eq!(parts.len(), name.split('/').count());
                    prop_assert!(!name.contains(['\\', '\0', '\n']) && name.len() <= MAX_NAME_BYTES);
                }
                Err(error) => prop_assert!(error.to_string().len() < 600),
            }
        }
    }

    #[test]
    fn the_digest_of_a_set_does_not_depend_on_order() {
        let file = |name: &str| FileRef {
            name: name.into(),
            digest: "00".into(),
            bytes: 1,
        };
        assert_eq!(
            set_digest(&[file("a"), file("b")]),
            set_digest(&[file("b"), file("a")])
        );
        assert_ne!(set_digest(&[file("a")]), set_digest(&[file("b")]));
    }
}
