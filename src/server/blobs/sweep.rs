//! What nobody refers to any more: expired uploads, leftovers of a crash, blobs without a row.
//!
//! Owns: when and in which order they go.
//! Must not know: why they were left.
//! Invariant: a blob goes only when it was not published lately and no row refers to it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::ports::{BlobError, Blobs, Clock, StoreError, Stores, Uploads};
use crate::telemetry::Metrics;

const PERIOD: Duration = Duration::from_mins(10);
const BATCH: usize = 200;

/// What a sweep needs.
#[derive(Debug)]
pub struct Sweeper {
    /// Knows what is referred to.
    pub stores: Arc<dyn Stores>,
    /// Holds blobs.
    pub blobs: Arc<dyn Blobs>,
    /// Holds uploads.
    pub uploads: Arc<dyn Uploads>,
    /// Tells what has expired.
    pub clock: Arc<dyn Clock>,
    /// Age at which an upload expires.
    pub upload_age: Duration,
    /// Shows that the loop lives.
    pub metrics: Arc<Metrics>,
}

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob store.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// Sweeps now and then, until `stop`.
pub async fn run(sweeper: Sweeper, stop: CancellationToken) {
    loop {
        match sweeper.sweep().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "swept what nobody refers to"),
            Err(error) => tracing::warn!(%error, "sweep ended early; the next one goes on"),
        }
        let now = sweeper.clock.now().unix_timestamp() as f64;
        sweeper
            .metrics
            .loop_last_tick_timestamp
            .with_label_values(&["sweep"])
            .set(now);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

impl Sweeper {
    /// One sweep; says how much went.
    pub async fn sweep(&self) -> Result<usize, SweepError> {
        let mut removed = 0;
        for id in self
            .stores
            .expired_uploads(self.clock.now(), BATCH as u32)
            .await?
        {
            match self.uploads.abandon(id).await {
                Ok(()) | Err(BlobError::NotFound | BlobError::Superseded) => {}
                Err(error) => return Err(error.into()),
            }
            self.stores.drop_upload(id).await?;
            self.count("upload", 1);
            removed += 1;
        }
        // Twice the age: by then every row of such an upload is gone.
        let stale = self.uploads.remove_stale(self.upload_age * 2).await?;
        self.count("upload", stale as u64);
        removed += stale;
        for digests in self.blobs.settled().await?.chunks(BATCH) {
            for digest in self.stores.unreferenced(digests).await? {
                self.blobs.discard(&digest).await?;
                self.count("blob", 1);
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn count(&self, kind: &str, removed: u64) {
        self.metrics.pruned.with_label_values(&[kind]).inc_by(removed);
    }
}
