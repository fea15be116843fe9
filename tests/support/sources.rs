//! The repository's own source files, for tests that read them.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file: its path from the repository's root, with `/`, and its text.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under a folder, by path.
pub(crate) fn rust_files(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no Rust file under {folder}");
    found
}

fn walk(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).expect("inside the repository");
            found.push(Source {
                path: relative.to_string_lossy().replace('\\', "/"),
                text: fs::read_to_string(&path).expect("UTF-8"),
            });
        }
    }
}

/// Names of what lies in a folder: modules, as their parent declares them.
pub(crate) fn modules(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder can be read");
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                let holds_rust = !rust_below(&entry.path()).is_empty();
                return holds_rust.then_some(name);
            }
            name.strip_suffix(".rs").map(str::to_owned)
        })
        .filter(|name| !["lib", "main", "mod", "benches"].contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

fn rust_below(folder: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    walk(folder, &mut found);
    found
}
