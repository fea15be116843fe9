//! Scratch space: a folder a process, a folder an attempt, and one a job that outlives attempts.
//!
//! Owns: making them, removing them, telling the living from the dead.
//! Must not know: what is in them.
//! Invariant: only folders of dead processes, of ended attempts, of jobs that are over or forgotten and of models that no
//! calibration added to for days are removed. A
//! process holds a lock in its folder as long as it lives, because several may share one disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modelpress_engine::digest;

use crate::child::Kept;
use crate::domain::model::FileRef;
use crate::domain::queue::Lease;

const LOCK: &str = "lock";
/// The folder of what jobs keep between attempts.
const KEPT: &str = "kept";
/// The folder of what calibration found, by model.
const STATISTICS: &str = "statistics";
/// A job that nobody went on with for so long is over, or goes on elsewhere.
const FORGOTTEN: Duration = Duration::from_hours(72);

/// The folder of this process.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    kept: PathBuf,
    statistics: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Removes what dead processes left and makes a folder for this one.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let kept = root.join(KEPT);
        // Not there until a job keeps something.
        for entry in fs::read_dir(&kept).into_iter().flatten() {
            let path = entry?.path();
            if is_older(&path, FORGOTTEN) && Kept::lock(&path)?.is_some() {
                remove(&path)?;
            }
        }
        let statistics = root.join(STATISTICS);
        for entry in fs::read_dir(&statistics).into_iter().flatten() {
            let path = entry?.path();
            if is_older(&path, FORGOTTEN) {
                remove(&path)?;
            }
        }
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            if path != kept && path != statistics && is_dead(&path) {
                remove(&path)?;
                tracing::info!(path = %path.display(), "removed the scratch space of a former process");
            }
        }
        let folder = root.join(uuid::Uuid::now_v7().simple().to_string());
        // Made complete beside its place: a folder without a held lock would look dead to a neighbour.
        let making = folder.with_extension("new");
        fs::create_dir_all(&making)?;
        let lock = File::create(making.join(LOCK))?;
        lock.try_lock()?;
        fs::rename(&making, &folder)?;
        Ok(Self {
            folder,
            kept,
            statistics,
            _lock: lock,
        })
    }

    /// The folder of an attempt.
    pub(super) fn folder_of(&self, lease: Lease) -> PathBuf {
        self.folder.join(format!("{}-{}", lease.job, lease.fence))
    }

    /// The folder of the folders of what jobs keep.
    pub(super) fn all_kept(&self) -> PathBuf {
        self.kept.clone()
    }

    /// The folder of what a job keeps between attempts; it need not be there.
    pub(super) fn kept(&self, lease: Lease) -> PathBuf {
        self.kept.join(lease.job.to_string())
    }

    /// The folder of what calibration found on a model of these files; it need not be there.
    pub(super) fn statistics(&self, files: &[FileRef]) -> PathBuf {
        let names: Vec<String> = files
            .iter()
            .map(|file| format!("{} {}", file.name, file.digest))
            .collect();
        self.statistics.join(digest::sha256(names.join("\n").as_bytes()))
    }

    /// A fresh folder for an attempt.
    pub(super) fn attempt(&self, lease: Lease) -> io::Result<PathBuf> {
        let folder = self.folder_of(lease);
        remove(&folder)?;
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only where nothing is kept any more.
        let _not_empty = fs::remove_dir(&self.kept);
        if let Err(error) = remove(&self.folder) {
            tracing::warn!(path = %self.folder.display(), %error, "scratch space not removed; the next start will");
        }
    }
}

/// Whether nobody holds the lock of a process's folder.
fn is_dead(folder: &Path) -> bool {
    let lock = folder.join(LOCK);
    match File::open(&lock) {
        Ok(file) => file.try_lock().is_ok(),
        // Half made, perhaps this very moment by a neighbour: only an old one is a leftover.
        Err(_) => is_old(folder),
    }
}

fn is_old(folder: &Path) -> bool {
    is_older(folder, Duration::from_mins(1))
}

fn is_older(folder: &Path, than: Duration) -> bool {
    let modified = fs::metadata(folder).and_then(|meta| meta.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > than))
}

/// Removes a file or folder that may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dead_are_cleared_away() {
        let root = tempfile::tempdir().expect("temp folder");
        let living = Scratch::open(root.path()).expect("opens");
        let dead = root.path().join("dead");
        fs::create_dir(&dead).expect("makes");
        fs::write(dead.join(LOCK), "").expect("writes");
        fs::write(dead.join("large"), "bytes").expect("writes");
        let neighbour = Scratch::open(root.path()).expect("opens");
        assert!(living.folder.is_dir() && neighbour.folder.is_dir());
        assert!(!dead.exists());
        drop(living);
        drop(neighbour);
        assert_eq!(fs::read_dir(root.path()).expect("lists").count(), 0);
    }
}
