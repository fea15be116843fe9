//! What this engine can do, as data: for the API, the documentation and `--help`.
//!
//! Owns: the three catalogues. Must not know: how any of it works.
//! Invariant: made from the registration lists, so nothing can be missing.

use crate::formats::{READERS, WRITERS, writer};
use crate::presets::{self, Preset};
use crate::techniques::TECHNIQUES;
use serde::Serialize;
use serde_json::Value;

/// A technique.
#[derive(Clone, Debug, Serialize)]
pub struct TechniqueEntry {
    /// Name as recipes spell it.
    pub name: &'static str,
    /// What it does, with the source.
    pub summary: &'static str,
    /// JSON Schema of its options.
    pub options: Value,
    /// Schemes that a budget may give single tensors, where it has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schemes: Option<SchemesEntry>,
}

/// What a budget chooses from.
#[derive(Clone, Debug, Serialize)]
pub struct SchemesEntry {
    /// Every scheme there is.
    pub all: &'static [&'static str],
    /// Those that are taken unless a budget names its candidates.
    pub suggested: &'static [&'static str],
}

/// A format that is read, written, or both.
#[derive(Clone, Debug, Serialize)]
pub struct FormatEntry {
    /// Name as recipes and models spell it.
    pub name: &'static str,
    /// What is written, or what is read where nothing is written.
    pub summary: &'static str,
    /// What to upload, where it is read.
    pub input_summary: Option<&'static str>,
    /// Whether a recipe may ask for it.
    pub writable: bool,
    /// Engines known to load what is written.
    pub engines: &'static [&'static str],
    /// JSON Schema of its options, where it is written.
    pub options: Option<Value>,
}

/// Every technique.
pub fn techniques() -> Vec<TechniqueEntry> {
    let entry = |t: &&dyn crate::techniques::Technique| TechniqueEntry {
        name: t.name(),
        summary: t.summary(),
        options: t.schema(),
        schemes: t.schemes().map(|schemes| SchemesEntry {
            all: schemes.all(),
            suggested: schemes.suggested(),
        }),
    };
    TECHNIQUES.iter().map(entry).collect()
}

/// Every format, alphabetical.
pub fn formats() -> Vec<FormatEntry> {
    let input = |name: &str| READERS.iter().find(|r| r.name() == name).map(|r| r.summary());
    let written = |w: &&dyn crate::formats::Writer| FormatEntry {
        name: w.name(),
        summary: w.summary(),
        input_summary: input(w.name()),
        writable: true,
        engines: w.engines(),
        options: Some(w.schema()),
    };
    let only_read = |r: &&dyn crate::formats::Reader| FormatEntry {
        name: r.name(),
        summary: r.summary(),
        input_summary: Some(r.summary()),
        writable: false,
        engines: &[],
        options: None,
    };
    let no_writer = |r: &&&dyn crate::formats::Reader| writer(r.name()).is_none();
    let mut all: Vec<FormatEntry> = WRITERS.iter().map(written).collect();
    all.extend(READERS.iter().filter(no_writer).map(only_read));
    all.sort_by_key(|entry| entry.name);
    all
}

/// Every preset.
pub fn presets() -> Vec<Preset> {
    presets::all()
}
