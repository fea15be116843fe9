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

/// Bytes that findings and models in between may take, those of all models together.
const FINDINGS_BYTES: u64 = 32 << 30;

/// What was found so lately may be in use this very moment.
const IN_USE: Duration = Duration::from_hours(1);

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
        if let Err(error) = trim(&self.statistics, FINDINGS_BYTES, IN_USE) {
            tracing::warn!(%error, "what earlier jobs found was not trimmed");
        }
        let folder = self.folder_of(lease);
        remove(&folder)?;
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// Removes findings, the oldest first, until all of them take no more than `most` bytes. Those younger than `spared` stay.
fn trim(statistics: &Path, most: u64, spared: Duration) -> io::Result<()> {
    let mut findings = Vec::new();
    for model in fs::read_dir(statistics).into_iter().flatten() {
        for finding in fs::read_dir(model?.path())? {
            let finding = finding?;
            let age = finding.metadata()?.modified()?;
            findings.push((age, finding.path(), bytes_in(&finding.path())?));
        }
    }
    findings.sort();
    let mut sum: u64 = findings.iter().map(|(_, _, bytes)| bytes).sum();
    for (_, path, bytes) in findings {
        if sum <= most {
            break;
        }
        if is_older(&path, spared) {
            remove(&path)?;
            tracing::info!(path = %path.display(), bytes, "removed what an earlier job found, to make room");
            sum -= bytes;
        }
    }
    Ok(())
}

/// Bytes of the files in a folder, however deep.
fn bytes_in(folder: &Path) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(folder)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(folder)?.map(|entry| bytes_in(&entry?.path())).sum()
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

    #[test]
    fn the_oldest_findings_make_room() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |name: &str, bytes: usize, hours: u64| {
            let folder = root.path().join("model").join(name);
            fs::create_dir_all(&folder).expect("makes");
            fs::write(folder.join("w"), vec![0; bytes]).expect("writes");
            let then = std::time::SystemTime::now() - Duration::from_hours(hours);
            File::open(&folder)
                .and_then(|f| f.set_modified(then))
                .expect("ages");
        };
        put("oldest", 100, 9);
        put("older", 100, 5);
        put("young", 100, 0);
        let left = || root.path().join("model").read_dir().expect("lists").count();
        trim(root.path(), 250, IN_USE).expect("trims");
        assert!(left() == 2 && !root.path().join("model/oldest").exists());
        trim(root.path(), 10, IN_USE).expect("trims");
        assert!(left() == 1 && root.path().join("model/young").exists());
    }
}
