//! What an attempt leaves for the next one, on whichever machine that runs.
//!
//! Owns: when it is brought into the blob store, and how it comes back into the job's folder.
//! Must not know: what the files are; the engine names them.
//! Invariant: what the job refers to is of one moment of one attempt, and complete. A folder says which attempt worked in
//! it last, so that an older state never takes the place of a newer one.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use modelpress_engine::kept_files;

use super::engine::{Fault, FaultKind};
use super::kit::Kit;
use super::probe::Point;
use super::publish::Obstacle;
use super::scratch;
use crate::child::Kept;
use crate::domain::FileRef;
use crate::domain::model::check_file_name;
use crate::domain::ports::{BlobError, Blobs};
use crate::domain::queue::{Checkpoint, Claim, Lease};
use crate::queue::retry::Hope;

/// The file that says which attempt worked in the folder last.
const FENCE: &str = "fence";
/// How often an attempt is looked after.
const LOOK: Duration = Duration::from_millis(200);
/// Saving takes at most one part in so many of an attempt's time.
const SHARE: u32 = 10;
/// A file that went while the others were taken means that the work went on; then it is begun again so many times.
const TRIES: usize = 3;

/// Saves what one attempt has.
#[derive(Debug)]
pub(super) struct Saver<'a> {
    kit: &'a Kit,
    lease: Lease,
    kept: PathBuf,
    /// For files on their way into the blob store; on the same disk as `kept`.
    passage: PathBuf,
    /// What is in the blob store already.
    saved: HashMap<String, (Stamp, FileRef)>,
    /// What the job refers to.
    referred: Vec<FileRef>,
}

/// Tells a file from another one that takes its name.
type Stamp = (u64, Option<SystemTime>);

impl<'a> Saver<'a> {
    pub(super) fn new(kit: &'a Kit, lease: Lease, kept: PathBuf, out: &Path) -> Self {
        Self {
            kit,
            lease,
            kept,
            passage: out.join(".checkpoint"),
            saved: HashMap::new(),
            referred: Vec::new(),
        }
    }

    /// Saves whenever there is something new, but not more often than every `pause`; ends when the lease is lost.
    pub(super) async fn go_on(&mut self, pause: Duration) -> Obstacle {
        let mut rest = Duration::ZERO;
        let mut last = Instant::now();
        let mut seen = Vec::new();
        loop {
            tokio::time::sleep(LOOK).await;
            if last.elapsed() < rest {
                continue;
            }
            // A finished block and a kept tensor each bring a name.
            let now = kept_files(&self.kept).unwrap_or_default();
            if now == seen {
                continue;
            }
            seen = now;
            let begun = Instant::now();
            match self.save().await {
                Ok(()) => {}
                Err(Obstacle::Lost) => return Obstacle::Lost,
                Err(Obstacle::Fault(fault)) => {
                    tracing::warn!(job = %self.lease.job, error = fault.message, "no checkpoint now");
                }
            }
            rest = pause.max(begun.elapsed() * SHARE);
            last = Instant::now();
        }
    }

    /// Brings what is new into the blob store and lets the job refer to it.
    pub(super) async fn save(&mut self) -> Result<(), Obstacle> {
        let taken = self
            .take()
            .await
            .map_err(|error| Obstacle::Fault(passing(&error)))?;
        let mut files = Vec::with_capacity(taken.len());
        for (name, stamp, path) in taken {
            let known = self.saved.get(&name).filter(|(of, _)| *of == stamp);
            let file = match known {
                Some((_, file)) => file.clone(),
                None => self.bring(&name, path).await?,
            };
            self.saved.insert(name, (stamp, file.clone()));
            files.push(file);
        }
        if files.is_empty() || files == self.referred {
            return Ok(());
        }
        self.kit.queue.checkpoint(self.lease, &files).await?;
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        self.saved.retain(|name, _| names.contains(&name.as_str()));
        self.referred = files;
        self.kit.probe.reach(Point::Checkpoint)?;
        Ok(())
    }

    async fn bring(&self, name: &str, path: PathBuf) -> Result<FileRef, Obstacle> {
        let stored = self.kit.blobs.put_file(path).await?;
        // The sweep would take it if the others need longer than its grace.
        let digest = std::slice::from_ref(&stored.digest);
        self.kit.queue.announce(self.lease, digest).await?;
        Ok(FileRef {
            name: name.to_owned(),
            digest: stored.digest,
            bytes: stored.bytes,
        })
    }

    /// Second names for the files of this moment: the first ones may go any time, and none is changed in place.
    async fn take(&self) -> io::Result<Vec<(String, Stamp, PathBuf)>> {
        let (kept, passage) = (self.kept.clone(), self.passage.clone());
        let taken = tokio::task::spawn_blocking(move || {
            let mut last = None;
            for _ in 0..TRIES {
                match take(&kept, &passage) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => last = Some(error),
                    taken => return taken,
                }
            }
            last.map_or_else(|| Ok(Vec::new()), Err)
        });
        taken.await.map_err(io::Error::other)?
    }
}

fn take(kept: &Path, passage: &Path) -> io::Result<Vec<(String, Stamp, PathBuf)>> {
    scratch::remove(passage)?;
    let mut taken = Vec::new();
    // The mark is the last name: what it speaks of is there when it is read, and is looked for by the name in it.
    for name in kept_files(kept)? {
        let (from, to) = (kept.join(&name), passage.join(&name));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::hard_link(&from, &to)?;
        let meta = fs::metadata(&to)?;
        taken.push((name, (meta.len(), meta.modified().ok()), to));
    }
    Ok(taken)
}

/// Makes the job's folder ready for an attempt: what another machine left for it is brought here, unless what is here
/// is as new. Answers what to tell the user.
pub(super) async fn restore(kit: &Kit, claim: &Claim, kept: &Path) -> Result<Option<String>, Fault> {
    let io = |error: io::Error| passing(&error);
    let mut told = None;
    if let Some(checkpoint) = &claim.checkpoint
        && worked_in(kept) < checkpoint.fence
    {
        told = match bring_back(kit.blobs.as_ref(), checkpoint, kept).await {
            Ok(true) => Some("goes on from what an attempt elsewhere left".to_owned()),
            Ok(false) => None,
            Err(BlobError::NotFound) => {
                scratch::remove(kept).map_err(io)?;
                Some("what an attempt elsewhere left is gone; begins again".to_owned())
            }
            Err(other) => return Err(other.into()),
        };
    }
    fs::create_dir_all(kept).map_err(io)?;
    fs::write(kept.join(FENCE), claim.lease.fence.to_string()).map_err(io)?;
    kit.probe.reach(Point::Restored)?;
    Ok(told)
}

/// The attempt that worked in a folder last.
fn worked_in(kept: &Path) -> u64 {
    let fence = fs::read_to_string(kept.join(FENCE)).unwrap_or_default();
    fence.trim().parse().unwrap_or(0)
}

/// Fills the folder; not where another attempt is still at work in it.
async fn bring_back(blobs: &dyn Blobs, checkpoint: &Checkpoint, kept: &Path) -> Result<bool, BlobError> {
    let Some(_lock) = Kept::lock(kept)? else {
        return Ok(false);
    };
    for entry in fs::read_dir(kept)? {
        let path = entry?.path();
        if !Kept::is_lock(&path) {
            scratch::remove(&path)?;
        }
    }
    for file in &checkpoint.files {
        check_file_name(&file.name).map_err(|error| BlobError::Io(io::Error::other(error.to_string())))?;
        let (from, to) = (blobs.path(&file.digest).await?, kept.join(&file.name));
        let copied = tokio::task::spawn_blocking(move || {
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder)?;
            }
            // Not a second name: the blob must stay as it is, whatever the attempt does with its copy.
            fs::copy(from, to)
        });
        copied.await.map_err(io::Error::other)??;
    }
    Ok(true)
}

fn passing(error: &io::Error) -> Fault {
    Fault {
        code: "io".to_owned(),
        message: format!("scratch space: {error}"),
        kind: FaultKind::Failed(Hope::Passing),
    }
}
