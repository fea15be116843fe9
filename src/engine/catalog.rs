//! What this engine can do, as data: for the API, the documentation and `--help`.
//!
//! Owns: the three catalogues. Must not know: how any of it works.
//! Invariant: made from the registration lists, so nothing can be missing.

use crate::formats::WRITERS;
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
}

/// An output format.
#[derive(Clone, Debug, Serialize)]
pub struct FormatEntry {
    /// Name as recipes spell it.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// Engines known to load it.
    pub engines: &'static [&'static str],
    /// JSON Schema of its options.
    pub options: Value,
}

/// Every technique.
pub fn techniques() -> Vec<TechniqueEntry> {
    let entry = |t: &&dyn crate::techniques::Technique| TechniqueEntry {
        name: t.name(),
        summary: t.summary(),
        options: t.schema(),
    };
    TECHNIQUES.iter().map(entry).collect()
}

/// Every output format.
pub fn formats() -> Vec<FormatEntry> {
    let entry = |w: &&dyn crate::formats::Writer| FormatEntry {
        name: w.name(),
        summary: w.summary(),
        engines: w.engines(),
        options: w.schema(),
    };
    WRITERS.iter().map(entry).collect()
}

/// Every preset.
pub fn presets() -> Vec<Preset> {
    presets::all()
}
