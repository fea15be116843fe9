//! What this engine can do, as data: for the API, the documentation and `--help`.
//!
//! Owns: the three catalogues. Must not know: how any of it works.
//! Invariant: made from the registration lists, so nothing can be missing.

use crate::formats::{READERS, WRITERS, writer};
use crate::presets::{self, Preset};
use crate::techniques::TECHNIQUES;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;

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

/// A page of the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// File name.
    pub name: String,
    /// Markdown.
    pub text: String,
}

/// Where the options stand: in front of this heading.
const BEHIND_OPTIONS: &str = "## When to use it";

/// A page of each technique, its options among it, and `README.md`, which lists them.
pub fn pages() -> Vec<Page> {
    let mut index = String::from(
        "# Techniques\n\nOne page each: what it does, the formula, its options, when to use it, what it measured on the \
         reference model. Made by `modelpress openapi --pages`, from what the engine knows of itself.\n\n",
    );
    let mut pages = Vec::new();
    for technique in TECHNIQUES {
        let name = technique.name();
        let _fits = writeln!(index, "- [`{name}`]({name}.md): {}", technique.summary());
        let options = format!(
            "## Options\n\n{}\n{BEHIND_OPTIONS}",
            options_table(&technique.schema())
        );
        pages.push(Page {
            name: format!("{name}.md"),
            text: technique.page().replacen(BEHIND_OPTIONS, &options, 1),
        });
    }
    pages.push(Page {
        name: "README.md".to_owned(),
        text: index,
    });
    pages
}

/// Options of a schema as a table.
fn options_table(schema: &Value) -> String {
    let none = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    if properties.is_empty() {
        return "None.\n".to_owned();
    }
    let mut table = String::from("| option | values | default | |\n|---|---|---|---|\n");
    for (name, property) in properties {
        let default = property
            .get("default")
            .map_or_else(String::new, |d| format!("`{d}`"));
        let about = property["description"]
            .as_str()
            .unwrap_or_default()
            .replace('|', "\\|");
        let _fits = writeln!(
            table,
            "| `{name}` | {} | {default} | {about} |",
            values_of(property)
        );
    }
    table
}

/// What an option may be, in words.
fn values_of(property: &Value) -> String {
    if let Some(words) = property["enum"].as_array() {
        let words = words.iter().map(|word| {
            format!(
                "`{}`",
                word.as_str().map_or_else(|| word.to_string(), str::to_owned)
            )
        });
        return words.collect::<Vec<_>>().join(", ");
    }
    if let Some(ways) = property["anyOf"].as_array() {
        return ways.iter().map(values_of).collect::<Vec<_>>().join(", or ");
    }
    let kind = property["type"].as_str().unwrap_or("any");
    match (property.get("minimum"), property.get("maximum")) {
        (Some(least), Some(most)) => format!("{kind}, {least} to {most}"),
        (Some(least), None) => format!("{kind}, from {least}"),
        _ => kind.to_owned(),
    }
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
