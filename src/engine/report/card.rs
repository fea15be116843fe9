//! The model card of an artifact: what it is, how it is loaded, what it costs, what it was made from.
//!
//! Owns: its Markdown, the front matter that model hubs read. Must not know: how anything was measured, clocks.
//! Invariant: what a model or a user wrote stands between backticks or as a JSON string, so it is never markup.

use super::html::{bytes, grouped};
use super::quality::{change, number, words};
use super::{FormatReport, Report};
use crate::checkpoint::Checkpoint;
use crate::evaluate::Quality;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;

/// A file that an artifact was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its name in the model.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// What a card is written from.
pub(crate) struct Card<'a> {
    /// The job's.
    pub report: &'a Report,
    /// What was compressed.
    pub model: &'a Checkpoint,
    /// The artifact's.
    pub format: &'a str,
    /// The hub's name of the library that loads it, where the format is one's own.
    pub library: Option<&'a str>,
    /// How it is loaded; `{file}` stands for the largest file.
    pub loading: &'a str,
    /// By what.
    pub engines: &'a [&'static str],
    /// Its largest file.
    pub weights: Option<&'a str>,
    /// What was compressed, file by file.
    pub origins: &'a [Origin],
}

/// What of the source's own front matter holds for what was made of it, too.
const CARRIED: [&str; 5] = [
    "license",
    "license_name",
    "license_link",
    "language",
    "pipeline_tag",
];
/// Longest front matter of a source that is read.
const LONGEST_HEAD: usize = 16 << 10;
/// Source files that are listed; the manifest has all.
const LISTED: usize = 20;

/// The card.
pub(crate) fn card(card: &Card<'_>) -> String {
    let mut out = String::from("---\n");
    front_matter(&mut out, card);
    out.push_str("---\n\n");
    let report = card.report;
    let architecture = report.model.architecture.as_deref().unwrap_or("model");
    let _ = write!(
        out,
        "# {} → {}\n\nCompressed by modelpress {} for {}. {} weights.\n\n## Load\n\n{}\n\n",
        code(architecture),
        code(&report.recipe.name()),
        report.engine_version,
        card.engines.join(", "),
        grouped(report.totals.parameters),
        card.loading.replace("{file}", card.weights.unwrap_or("FILE")),
    );
    if let Some(format) = report.formats.iter().find(|f| f.format == card.format) {
        size(&mut out, report, format);
    }
    quality(&mut out, report.quality.as_ref());
    made(&mut out, card);
    out
}

fn front_matter(out: &mut String, card: &Card<'_>) {
    let mut say = |key: &str, value: &Value| {
        // JSON is YAML, and no text in it can begin another key.
        let _ = writeln!(out, "{key}: {value}");
    };
    if let Some(library) = card.library {
        say("library_name", &Value::from(library));
    }
    let own = own_front_matter(card.model);
    for key in CARRIED {
        if let Some(value) = own.get(key).filter(|value| is_plain(value)) {
            say(key, value);
        }
    }
    if let Some(base) = hub_name(card.model) {
        say("base_model", &Value::from(base));
        say("base_model_relation", &Value::from("quantized"));
    }
    let tags = ["modelpress", card.format].into_iter().map(str::to_owned);
    let tags: Vec<String> = tags.chain([card.report.recipe.name()]).collect();
    say("tags", &Value::from(tags));
}

/// What the source's own card says in its first lines.
fn own_front_matter(model: &Checkpoint) -> Value {
    let text = model.side_file("README.md").ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let inner = text
        .strip_prefix("---\n")
        .and_then(|rest| rest.split_once("\n---"))
        .map(|(inner, _)| inner)
        .filter(|inner| inner.len() <= LONGEST_HEAD)
        .unwrap_or_default();
    serde_norway::from_str(inner).unwrap_or_default()
}

/// A word or a list of words, of lengths that a card bears.
fn is_plain(value: &Value) -> bool {
    let is_word = |value: &Value| value.as_str().is_some_and(|text| text.len() <= 200);
    let is_list = |value: &Value| {
        value
            .as_array()
            .is_some_and(|all| all.len() <= 50 && all.iter().all(is_word))
    };
    is_word(value) || is_list(value)
}

/// `owner/name`, where config.json remembers that the model came from a hub.
fn hub_name(model: &Checkpoint) -> Option<&str> {
    let name = model.config.as_ref()?.get("_name_or_path")?.as_str()?;
    let is_word = |word: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !word.is_empty() && word.chars().all(fits) && !word.starts_with('.')
    };
    let (owner, own) = name.split_once('/')?;
    (name.len() <= 200 && is_word(owner) && is_word(own)).then_some(name)
}

fn size(out: &mut String, report: &Report, format: &FormatReport) {
    let t = &report.totals;
    let _ = write!(
        out,
        "## Size\n\n| | original | this |\n|---|---:|---:|\n| weights | {} | {} |\n| bits per weight | {:.2} | {:.3} |\n\
         | in the engine's memory | | {} |\n| all files | | {} bytes |\n\nRatio {:.2}.",
        bytes(t.source_bytes),
        bytes(format.weight_bytes),
        t.source_bits_per_weight,
        format.bits_per_weight,
        bytes(format.memory_bytes),
        grouped(format.bytes),
        format.compression_ratio,
    );
    if let Some(snr) = t.snr_db {
        let _ = write!(
            out,
            " Signal to noise of the weights that changed: {snr:.2} dB; entropy of their codes: {:.3} bits a weight.",
            t.code_entropy_bits
        );
    }
    out.push_str("\n\n");
}

fn quality(out: &mut String, quality: Option<&Quality>) {
    out.push_str("## Quality\n\n");
    let Some(quality) = quality else {
        out.push_str("Not measured: the recipe asked for no evaluation.\n\n");
        return;
    };
    let _ = write!(
        out,
        "{} tokens in {} sequences from {}, read by the original and by this model; 95 % intervals.\n\n\
         | measure | original | this | interval | change |\n|---|---:|---:|---:|---:|\n",
        grouped(quality.tokens as u64),
        quality.sequences,
        code(&quality.dataset),
    );
    for measure in &quality.measures {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} to {} | {} |",
            words(&measure.metric),
            measure.before.map_or_else(String::new, number),
            number(measure.after),
            number(measure.interval[0]),
            number(measure.interval[1]),
            measure
                .change
                .map_or_else(String::new, |value| change(&measure.metric, value)),
        );
    }
    out.push('\n');
}

fn made(out: &mut String, card: &Card<'_>) {
    let report = card.report;
    let recipe = serde_json::to_string_pretty(&report.recipe).unwrap_or_default();
    let _ = write!(
        out,
        "## Made by\n\nRecipe, hash `{}`, seed {}:\n\n```json\n{recipe}\n```\n\nFrom these files:\n\n\
         | file | bytes | SHA-256 |\n|---|---:|---|\n",
        report.recipe_hash, report.recipe.seed,
    );
    for origin in card.origins.iter().take(LISTED) {
        let _ = writeln!(
            out,
            "| {} | {} | `{}` |",
            code(&origin.name),
            grouped(origin.bytes),
            origin.sha256
        );
    }
    if let Some(more) = card.origins.len().checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = write!(out, "\nand {more} more, which `modelpress.json` names.\n");
    }
    for warning in &report.warnings {
        let _ = write!(out, "\n> {}\n", code(warning));
    }
    out.push_str(
        "\n`modelpress verify .` checks every file against `modelpress.json` and that against its signature, where it has \
         one.\n",
    );
}

/// Text that is not read as markup.
fn code(text: &str) -> String {
    let plain: String = text
        .chars()
        .filter(|c| !c.is_control())
        .map(|c| match c {
            '`' => '\'',
            '|' => '¦',
            other => other,
        })
        .collect();
    format!("`{plain}`")
}
