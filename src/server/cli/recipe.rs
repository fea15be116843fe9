//! Recipes on the command line: a preset's name, a file, or JSON.
//!
//! Owns: telling the three apart; printing refusals.
//! Must not know: what is in a recipe.
//! Invariant: a refusal names the place in the recipe and what would be right.

use std::path::Path;

use modelpress_engine::{Checkpoint, Error, Plan, Recipe, Refusal, SourceFile, inspect, plan};
use serde_json::{Value, json};

use super::{BAD_MODEL, Failure, REFUSED, USAGE};

/// Opens the model and plans the recipe on it.
pub(super) fn open_and_plan(
    model: &Path,
    recipe: &str,
    formats: &[String],
) -> Result<(Checkpoint, Plan), Failure> {
    let recipe = read(recipe, formats)?;
    let unreadable = |error: Error| {
        Failure::new(
            BAD_MODEL,
            format!(
                "{} cannot be read: {} ({})",
                model.display(),
                error.message,
                error.code
            ),
        )
    };
    let files = SourceFile::from_path(model).map_err(unreadable)?;
    let checkpoint = inspect(&files).map_err(unreadable)?;
    let plan = plan(&recipe, &checkpoint).map_err(|refusals| refused(&refusals))?;
    Ok((checkpoint, plan))
}

fn read(text: &str, formats: &[String]) -> Result<Recipe, Failure> {
    let lower = text.to_ascii_lowercase();
    if [".yaml", ".yml", ".json"]
        .iter()
        .any(|extension| lower.ends_with(extension))
    {
        return from_file(Path::new(text), formats);
    }
    let recipe = if text.trim_start().starts_with('{') {
        serde_json::from_str(text)
            .map_err(|error| Failure::new(USAGE, format!("--recipe is not valid JSON: {error}")))?
    } else {
        Value::String(text.to_owned())
    };
    Recipe::from_value(&with_formats(recipe, formats)).map_err(|refusals| refused(&refusals))
}

/// JSON is YAML too.
fn from_file(path: &Path, formats: &[String]) -> Result<Recipe, Failure> {
    if !formats.is_empty() {
        return Err(Failure::new(
            USAGE,
            "a recipe file names its own formats; leave --format out",
        ));
    }
    let content = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(USAGE, format!("{}: {error}", path.display())))?;
    Recipe::from_yaml(&content).map_err(|refusals| refused(&refusals))
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

fn refused(refusals: &[Refusal]) -> Failure {
    use std::fmt::Write as _;
    let mut text = "the recipe is refused:".to_owned();
    for refusal in refusals {
        let place = if refusal.pointer.is_empty() {
            "/"
        } else {
            &refusal.pointer
        };
        let _infallible = write!(text, "\n  {place}: {} ({})", refusal.detail, refusal.code);
    }
    Failure::new(REFUSED, text)
}
