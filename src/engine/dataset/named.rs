//! Datasets under the names that a recipe uses.
//!
//! Owns: [`Datasets`]. Must not know: where names come from (identifiers of a server, paths of a command line).
//! Invariant: `builtin` is always there and always the text that comes with this version.

use super::Dataset;
use std::collections::BTreeMap;

/// The dataset that needs no upload.
pub const BUILTIN: &str = "builtin";

/// Opened datasets by name.
#[derive(Debug)]
pub struct Datasets {
    builtin: Dataset,
    held_out: Dataset,
    named: BTreeMap<String, Dataset>,
}

impl Default for Datasets {
    fn default() -> Self {
        Self {
            builtin: Dataset::builtin(),
            held_out: Dataset::held_out(),
            named: BTreeMap::new(),
        }
    }
}

impl Datasets {
    /// Only `builtin`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a dataset under a name; the one it had before goes. Nothing replaces `builtin`.
    pub fn insert(&mut self, name: impl Into<String>, dataset: Dataset) {
        self.named.insert(name.into(), dataset);
    }

    /// The dataset of that name.
    pub fn get(&self, name: &str) -> Option<&Dataset> {
        if name == BUILTIN {
            Some(&self.builtin)
        } else {
            self.named.get(name)
        }
    }

    /// The dataset of that name for measuring: the last third of `builtin`, which [`Datasets::get`] leaves out.
    pub fn held_out(&self, name: &str) -> Option<&Dataset> {
        if name == BUILTIN {
            Some(&self.held_out)
        } else {
            self.named.get(name)
        }
    }

    /// Every name there is, `builtin` first.
    pub fn names(&self) -> Vec<&str> {
        let named = self
            .named
            .keys()
            .map(String::as_str)
            .filter(|name| *name != BUILTIN);
        std::iter::once(BUILTIN).chain(named).collect()
    }
}
