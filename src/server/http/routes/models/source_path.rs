//! Registering files of this machine.
//!
//! Owns: which paths may be read.
//! Must not know: how files are hashed.
//! Invariant: after every link is resolved, a file lies under a folder that the configuration allows.

use std::path::{Path, PathBuf};

use crate::domain::FileRef;
use crate::http::auth::Caller;
use crate::http::engine::blocking;
use crate::http::problem::{self, Problem};
use crate::http::sets::{check_new_file, check_room};

/// How deep folders are followed.
const MAX_DEPTH: usize = 4;

/// Hashes the file, or the files of the folder, and lets them stand for blobs.
pub(super) async fn register(state: &Caller, path: &str) -> Result<Vec<FileRef>, Problem> {
    let (allowed, given, most) = (
        state.allowed_model_paths.clone(),
        PathBuf::from(path),
        state.limits.model_files,
    );
    let found = blocking(move || find(&allowed, &given, most)).await?;
    let mut files: Vec<FileRef> = Vec::with_capacity(found.len());
    for (name, path) in found {
        check_new_file(state, &files, &name)?;
        let stored = state.blobs.adopt(path).await?;
        files.push(FileRef {
            name,
            digest: stored.digest,
            bytes: stored.bytes,
        });
    }
    check_room(state, files.len().saturating_sub(1))?;
    Ok(files)
}

fn find(allowed: &[PathBuf], given: &Path, most: usize) -> Result<Vec<(String, PathBuf)>, Problem> {
    if allowed.is_empty() {
        let detail =
            "this server registers no paths; its operator can allow folders with allowed_model_paths";
        return Err(Problem::new(problem::PATH_NOT_ALLOWED, detail));
    }
    let path = resolve(allowed, given)?;
    if path.is_file() {
        let name = given
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        return Ok(vec![(name, path)]);
    }
    let mut found = Vec::new();
    walk(allowed, &path, "", 0, most, &mut found)?;
    found.sort();
    if found.is_empty() {
        let detail = "the folder holds no files that a model can have";
        return Err(Problem::field("/source_path", "missing_files", detail));
    }
    Ok(found)
}

/// Hidden entries and pickles beside safetensors are left out: checkpoints often carry both.
fn walk(
    allowed: &[PathBuf],
    folder: &Path,
    prefix: &str,
    depth: usize,
    most: usize,
    found: &mut Vec<(String, PathBuf)>,
) -> Result<(), Problem> {
    for entry in std::fs::read_dir(folder).map_err(|e| unreadable(&e))? {
        let entry = entry.map_err(|e| unreadable(&e))?;
        let Ok(file_name) = entry.file_name().into_string() else {
            continue;
        };
        let name = format!("{prefix}{file_name}");
        if file_name.starts_with('.') || crate::domain::model::check_file_name(&name).is_err() {
            continue;
        }
        let path = resolve(allowed, &entry.path())?;
        if path.is_dir() {
            if depth < MAX_DEPTH {
                walk(allowed, &path, &format!("{name}/"), depth + 1, most, found)?;
            }
        } else if path.is_file() {
            found.push((name, path));
        }
        if found.len() > most {
            let detail = format!("a model has at most {most} files");
            return Err(Problem::new(problem::TOO_LARGE, detail).with_code("too_many_files"));
        }
    }
    Ok(())
}

fn resolve(allowed: &[PathBuf], path: &Path) -> Result<PathBuf, Problem> {
    // The same answer for "outside" and "not there": what lies outside is nobody's business.
    let refused = || {
        let detail = "the path is not there, or not under a folder that this server may register from";
        Problem::new(problem::PATH_NOT_ALLOWED, detail)
    };
    if !path.is_absolute() {
        return Err(Problem::field(
            "/source_path",
            "path_not_absolute",
            "source_path must be absolute",
        ));
    }
    let real = std::fs::canonicalize(path).map_err(|error| refused().because(error))?;
    if allowed.iter().any(|root| real.starts_with(root)) {
        Ok(real)
    } else {
        Err(refused())
    }
}

fn unreadable(error: &std::io::Error) -> Problem {
    Problem::new(problem::PATH_NOT_ALLOWED, "the folder cannot be read").because(error)
}
