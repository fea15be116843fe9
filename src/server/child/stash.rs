//! The folder that a job keeps between its attempts.
//!
//! Owns: who may work in it.
//! Must not know: what is kept.
//! Invariant: one process at a time, as long as it lives.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The lock's file in the folder.
const LOCK: &str = "lock";

/// What a job keeps between its attempts, for one of them alone.
#[derive(Debug)]
pub struct Kept {
    _lock: File,
}

impl Kept {
    /// Whether a file is the lock of its folder.
    pub fn is_lock(file: &Path) -> bool {
        file.file_name().is_some_and(|name| name == LOCK)
    }

    /// Takes the folder; nothing where another attempt, perhaps one that does not know yet that it lost its lease, works
    /// in it.
    pub fn lock(folder: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let lock = File::create(folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { _lock: lock })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attempt_at_a_time_works_with_what_a_job_keeps() {
        let root = tempfile::tempdir().expect("temp folder");
        let folder = root.path().join("job");
        let first = Kept::lock(&folder).expect("locks");
        assert!(first.is_some() && Kept::lock(&folder).expect("asks").is_none());
        drop(first);
        assert!(Kept::lock(&folder).expect("locks").is_some());
    }
}
