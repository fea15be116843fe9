//! Clearing away what jobs kept that are over.
//!
//! Owns: when it is looked for, and that nobody works in what is removed.
//! Must not know: what is in it.
//! Invariant: only folders of jobs that are over, or of which nobody knows, are removed. The worker that ends a job removes
//! its folder itself; what is left is of workers that died, of jobs that ended elsewhere or were cancelled between attempts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::scratch::remove;
use crate::child::Kept;
use crate::domain::JobId;
use crate::domain::queue::Queue;

/// What tidying needs.
#[derive(Debug, Clone)]
pub(super) struct Tidier {
    /// Knows which jobs are over.
    pub(super) queue: Arc<dyn Queue>,
    /// The folder with one folder a job.
    pub(super) kept: PathBuf,
    /// Mean time between two looks.
    pub(super) every: Duration,
}

impl Tidier {
    /// Tidies until `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        loop {
            self.tidy().await;
            let pause = self.every.mul_f64(0.5 + rand::random::<f64>());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    pub(super) async fn tidy(&self) {
        let kept = self.kept.clone();
        let jobs = tokio::task::spawn_blocking(move || jobs(&kept)).await;
        let jobs = jobs.unwrap_or_default();
        if jobs.is_empty() {
            return;
        }
        let live = match self.queue.live(&jobs).await {
            Ok(live) => live,
            Err(error) => return tracing::debug!(%error, "what jobs kept is not looked at now"),
        };
        for job in jobs.into_iter().filter(|job| !live.contains(job)) {
            let folder = self.kept.join(job.to_string());
            let cleared = tokio::task::spawn_blocking(move || clear(&folder)).await;
            match cleared {
                Ok(Ok(true)) => tracing::info!(%job, "removed what a job kept that is over"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%job, %error, "what a job kept is not removed"),
                Err(panic) => tracing::error!(%job, %panic, "what a job kept is not removed"),
            }
        }
    }
}

/// The jobs that kept something; the folder is not there until one does.
fn jobs(kept: &Path) -> Vec<JobId> {
    let entries = std::fs::read_dir(kept).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Not where an attempt works that does not know yet that it is over.
fn clear(folder: &Path) -> io::Result<bool> {
    let Some(_mine) = Kept::lock(folder)? else {
        return Ok(false);
    };
    remove(folder)?;
    Ok(true)
}
