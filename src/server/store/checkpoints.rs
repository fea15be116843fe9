//! Rows of checkpoints: what an attempt leaves for the next one.
//!
//! Owns: table `job_checkpoint`.
//! Must not know: what the files are.
//! Invariant: the rows of a job are of one moment of one attempt; a job that is over has none.

use super::Rows;
use super::db::{json, text};
use super::statement as sql;
use crate::domain::FileRef;
use crate::domain::queue::{Lease, QueueError};

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
