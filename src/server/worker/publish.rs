//! From the engine's files to blobs that a row can refer to.
//!
//! Owns: the order: announce, then store file by file.
//! Must not know: the transaction that makes them visible.
//! Invariant: what is stored has the digest that the engine verified.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Watch;
use super::engine::{Fault, FaultKind, Made};
use super::probe::{Mishap, Point, Probe};
use crate::domain::model::set_digest;
use crate::domain::ports::{BlobError, BlobReply, Blobs};
use crate::domain::queue::{Claim, Publication, Queue, QueueError};
use crate::domain::{Artifact, ArtifactId, Clock, FileRef};
use crate::queue::retry::Hope;

/// Why nothing can be published.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// Somebody else has the job.
    Lost,
    /// It failed.
    Fault(Fault),
}

/// The ports that publishing needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Press<'a> {
    pub(super) queue: &'a dyn Queue,
    pub(super) blobs: &'a dyn Blobs,
    pub(super) clock: &'a dyn Clock,
    pub(super) probe: &'a dyn Probe,
    pub(super) watch: &'a Watch,
}

/// Pause before a store that is away is asked again.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 2000 });
/// How long it may be away before the attempt counts as failed.
const PATIENCE: Duration = Duration::from_mins(15);

/// Asks again while the store of bytes is away and the attempt goes on: no work of hours is thrown away, and none of a job's
/// attempts is spent, because a bucket cannot be reached for a while.
pub(super) async fn patiently<'a, T>(
    watch: &Watch,
    mut ask: impl FnMut() -> BlobReply<'a, T>,
) -> Result<T, BlobError> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(BlobError::Unavailable(cause)) if watch.stopped().is_none() && begun.elapsed() < PATIENCE => {
                tracing::warn!(cause, "the file store is away; it is asked again");
                tokio::time::sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}

impl Press<'_> {
    /// Brings every file into the blob store. A blob that no row refers to later is swept.
    pub(super) async fn store(&self, claim: &Claim, made: &Made) -> Result<Publication, Obstacle> {
        let files = made.artifacts.iter().flat_map(|artifact| &artifact.files);
        let digests: Vec<String> = files.map(|file| file.sha256.clone()).collect();
        self.queue.announce(claim.lease, &digests).await?;
        let mut artifacts = Vec::new();
        for artifact in &made.artifacts {
            let mut files = Vec::new();
            for file in &artifact.files {
                let stored = patiently(self.watch, || self.blobs.put_file(file.path.clone())).await?;
                if stored.digest != file.sha256 {
                    return Err(Obstacle::Fault(changed(&file.name)));
                }
                files.push(FileRef {
                    name: file.name.clone(),
                    digest: stored.digest,
                    bytes: stored.bytes,
                });
                self.probe.reach(Point::Publish)?;
            }
            artifacts.push(Artifact {
                id: ArtifactId::from_uuid(Uuid::now_v7()),
                job: claim.lease.job,
                model: claim.model,
                format: artifact.format.clone(),
                digest: set_digest(&files),
                files,
                created_at: self.clock.now(),
            });
        }
        Ok(Publication {
            artifacts,
            report: made.report.clone(),
        })
    }
}

/// The disk gave back other bytes than the engine read a moment ago.
fn changed(name: &str) -> Fault {
    Fault {
        code: "io".to_owned(),
        message: format!("{name} changed on disk between its check and its publication"),
        kind: FaultKind::Failed(Hope::Passing),
    }
}

impl From<QueueError> for Obstacle {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Lost => Self::Lost,
            QueueError::Store(error) => Self::Fault(Fault {
                code: "store_unavailable".to_owned(),
                message: error.to_string(),
                kind: FaultKind::Failed(Hope::Passing),
            }),
        }
    }
}

impl From<Mishap> for Obstacle {
    fn from(mishap: Mishap) -> Self {
        Self::Fault(mishap.into())
    }
}

impl From<BlobError> for Obstacle {
    fn from(error: BlobError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<BlobError> for Fault {
    fn from(error: BlobError) -> Self {
        let (code, hope) = match &error {
            BlobError::Full(_) => ("disk_full", Hope::Passing),
            BlobError::Unavailable(_) => ("files_unavailable", Hope::Passing),
            BlobError::NotFound => ("file_missing", Hope::None),
            BlobError::SourceChanged(_) => ("source_changed", Hope::None),
            _ => ("io", Hope::Passing),
        };
        Self {
            code: code.to_owned(),
            message: error.to_string(),
            kind: FaultKind::Failed(hope),
        }
    }
}
