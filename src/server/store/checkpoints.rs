//! Rows of checkpoints: what an attempt leaves for the next one.
//!
//! Owns: table `job_checkpoint`.
//! Must not know: what the files are.
//! Invariant: the rows of a job are of one moment of one attempt; a job that is over has none.

use super::Rows;
use super::db::{Session, json, text};
use super::models::file;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::queue::{Checkpoint, Lease, QueueError};
use crate::domain::{FileRef, JobId};

impl Rows {
    pub(super) async fn keep_checkpoint(&self, lease: Lease, files: &[FileRef]) -> Result<(), QueueError> {
        let mut tx = self.db.write().await?;
        super::events::reserve(&mut tx, lease, 0).await?;
        tx.run(&sql::CHECKPOINT_CLEAR, &[text(lease.job)]).await?;
        let args = [text(lease.job), lease.fence.into(), json(&files)?];
        tx.run(&sql::CHECKPOINT_INSERT, &args).await?;
        Ok(tx.commit().await?)
    }
}

/// What the latest attempt that left something left.
pub(super) async fn of_job(tx: &mut Session, job: JobId) -> Result<Option<Checkpoint>, StoreError> {
    let rows = tx.all(&sql::CHECKPOINT_FILES, &[text(job)]).await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Checkpoint {
        fence: first.count("fence")?,
        files: rows.iter().map(file).collect::<Result<_, _>>()?,
    }))
}
