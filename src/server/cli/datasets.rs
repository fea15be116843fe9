//! Datasets on the command line: `--dataset NAME=PATH`, or a path where a recipe names a dataset.
//!
//! Owns: which files a recipe's dataset is.
//! Must not know: what is in them.
//! Invariant: a name that was given is opened once; one that was not is a path or stays unknown.

use std::path::{Path, PathBuf};

use modelpress_engine::dataset::BUILTIN;
use modelpress_engine::plan::named_datasets;
use modelpress_engine::{Dataset, Datasets, Error, Recipe, SourceFile};

use super::{BAD_MODEL, Failure, USAGE};

/// What the recipe's datasets are.
#[derive(Debug, clap::Args)]
pub(super) struct DatasetArgs {
    /// A file or folder for a dataset that the recipe names; may be given several times. A recipe may also name a
    /// path, and `builtin` needs none
    #[arg(long = "dataset", value_name = "NAME=PATH", value_parser = named)]
    datasets: Vec<(String, PathBuf)>,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if name == BUILTIN => Err(format!(
            "{BUILTIN} is the text that comes with modelpress; give {path} another name"
        )),
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("give NAME=PATH".to_owned()),
    }
}

impl DatasetArgs {
    /// Opens what the recipe names. What is neither given nor a path is left for the plan to refuse.
    pub(super) fn open(&self, recipe: &Recipe) -> Result<Datasets, Failure> {
        let mut datasets = Datasets::new();
        for (name, path) in &self.datasets {
            if datasets.get(name).is_some() {
                return Err(Failure::new(USAGE, format!("--dataset {name} is given twice")));
            }
            datasets.insert(name, open(path)?);
        }
        for (name, _) in named_datasets(recipe) {
            if datasets.get(name).is_none() && Path::new(name).exists() {
                datasets.insert(name, open(Path::new(name))?);
            }
        }
        Ok(datasets)
    }
}

fn open(path: &Path) -> Result<Dataset, Failure> {
    let unreadable = |error: Error| {
        let (message, code) = (error.message, error.code);
        let text = format!(
            "the dataset {} cannot be read: {message} ({code})",
            path.display()
        );
        Failure::new(BAD_MODEL, text)
    };
    SourceFile::from_path(path)
        .and_then(|files| Dataset::open(&files))
        .map_err(unreadable)
}
