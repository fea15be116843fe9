//! Recipes on the command line: a preset's name, a file, or JSON.
//!
//! Owns: telling the three apart; printing refusals.
//! Must not know: what is in a recipe.
//! Invariant: a refusal names the place in the recipe and what would be right.

use std::path::Path;

use modelpress_engine::recipe::strict;
use modelpress_engine::{Checkpoint, Datasets, Error, Plan, Recipe, Refusal, SourceFile, inspect, plan};
use serde_json::{Value, json};

use super::datasets::DatasetArgs;
use super::{BAD_MODEL, Failure, REFUSED, USAGE};

/// A recipe as it stands on the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// `--recipe`.
    pub(super) recipe: &'a str,
    /// `--format`, each.
    pub(super) formats: &'a [String],
    /// `--dataset`, each.
    pub(super) datasets: &'a DatasetArgs,
}

/// What is needed to execute.
pub(super) struct Opened {
    pub(super) model: Checkpoint,
    pub(super) datasets: Datasets,
    pub(super) plan: Plan,
}

/// Opens the model and the datasets and plans the recipe on them.
pub(super) fn open_and_plan(model: &Path, asked: Asked<'_>) -> Result<Opened, Failure> {
    let recipe = read(asked)?;
    let datasets = asked.datasets.open(&recipe)?;
    let model = open_model(model)?;
    let plan = plan(&recipe, &model, &datasets).map_err(|refusals| asked.refused(&refusals))?;
    Ok(Opened {
        model,
        datasets,
        plan,
    })
}

/// Opens a checkpoint folder or a model file.
pub(super) fn open_model(model: &Path) -> Result<Checkpoint, Failure> {
    let unreadable = |error: Error| {
        let message = format!(
            "{} cannot be read: {} ({})",
            model.display(),
            error.message,
            error.code
        );
        Failure::new(BAD_MODEL, message)
    };
    let files = SourceFile::from_path(model).map_err(unreadable)?;
    inspect(&files).map_err(unreadable)
}

pub(super) fn read(asked: Asked<'_>) -> Result<Recipe, Failure> {
    if asked.is_file() {
        return from_file(asked);
    }
    let recipe = if asked.is_object() {
        strict(&mut serde_json::Deserializer::from_str(asked.recipe))
            .map_err(|error| Failure::new(USAGE, format!("--recipe is not valid JSON: {error}")))?
    } else {
        Value::String(asked.recipe.to_owned())
    };
    let recipe = with_formats(recipe, asked.formats);
    Recipe::from_value(&recipe).map_err(|refusals| asked.refused(&refusals))
}

/// JSON is YAML too.
fn from_file(asked: Asked<'_>) -> Result<Recipe, Failure> {
    if !asked.formats.is_empty() {
        return Err(Failure::new(
            USAGE,
            "a recipe file names its own formats; leave --format out",
        ));
    }
    let content = std::fs::read_to_string(asked.recipe)
        .map_err(|error| Failure::new(USAGE, format!("{}: {error}", asked.recipe)))?;
    Recipe::from_yaml(&content).map_err(|refusals| asked.refused(&refusals))
}

fn with_formats(recipe: Value, formats: &[String]) -> Value {
    if formats.is_empty() {
        return recipe;
    }
    match recipe {
        Value::String(preset) => json!({"preset": preset, "formats": formats}),
        Value::Object(mut fields) => {
            fields.insert("formats".to_owned(), json!(formats));
            Value::Object(fields)
        }
        other => other,
    }
}

impl Asked<'_> {
    fn is_file(&self) -> bool {
        let extension = Path::new(self.recipe)
            .extension()
            .map(std::ffi::OsStr::to_ascii_lowercase);
        extension.is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known))
    }

    fn is_object(&self) -> bool {
        self.recipe.trim_start().starts_with('{')
    }

    /// What stands where: the flag, or the place in the recipe.
    fn place(&self, pointer: &str) -> String {
        if !self.formats.is_empty() && pointer.starts_with("/formats") {
            let index = pointer
                .split('/')
                .nth(2)
                .and_then(|index| index.parse::<usize>().ok());
            let format = index.and_then(|index| self.formats.get(index));
            format.map_or("--format".to_owned(), |format| format!("--format {format}"))
        } else if self.is_file() {
            format!(
                "{} at {}",
                self.recipe,
                if pointer.is_empty() { "/" } else { pointer }
            )
        } else if self.is_object() {
            format!("--recipe at {}", if pointer.is_empty() { "/" } else { pointer })
        } else {
            format!("--recipe {}", self.recipe)
        }
    }

    pub(super) fn refused(&self, refusals: &[Refusal]) -> Failure {
        use std::fmt::Write as _;
        let mut text = "the recipe is refused:".to_owned();
        for refusal in refusals {
            let place = self.place(&refusal.pointer);
            let _infallible = write!(text, "\n  {place}: {} ({})", refusal.detail, refusal.code);
        }
        let option = refusals.iter().find_map(|r| r.pointer.strip_prefix("/options/"));
        if let (Some(option), false, false) = (option, self.is_file(), self.is_object()) {
            let changed = json!({"preset": self.recipe, "options": {option: "…"}});
            let _infallible = write!(
                text,
                "\n  a preset's options can be changed: --recipe '{changed}'"
            );
        }
        Failure::new(REFUSED, text)
    }
}
