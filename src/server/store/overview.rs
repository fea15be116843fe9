//! Sums over many rows.
//!
//! Owns: what the overview and the system page say.
//! Must not know: who asks.
//! Invariant: one look reads each table once, and changes nothing.

use time::OffsetDateTime;

use super::Rows;
use super::db::Row;
use super::jobs::state;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::{JobState, NodeLoad, Overview};

impl Rows {
    pub(super) async fn sum_up(&self, since: OffsetDateTime) -> Result<Overview, StoreError> {
        let mut session = self.db.read().await?;
        let mut sums = Overview::default();
        for row in &session.all(&sql::OVERVIEW_JOBS, &[self.owner()]).await? {
            let state = state(row)?;
            sums.jobs.push((state, row.count("jobs")?));
            if state == JobState::Queued {
                sums.oldest_queued_at = row.maybe_time("oldest_at")?;
            }
            sums.planned_memory_bytes += row.count("planned")?;
        }
        let args = [self.owner(), since.into()];
        for row in &session.all(&sql::OVERVIEW_FAILURES, &args).await? {
            sums.failures.push((row.text("error_code")?, row.count("jobs")?));
        }
        if let Some(row) = session.one(&sql::OVERVIEW_ARTIFACTS, &[self.owner()]).await? {
            sums.artifact_bytes = row.count("artifact_bytes")?;
            sums.source_bytes = row.count("source_bytes")?;
        }
        Ok(sums)
    }

    pub(super) async fn sum_up_nodes(&self) -> Result<Vec<NodeLoad>, StoreError> {
        let rows = self.db.read().await?.all(&sql::NODE_LOADS, &[]).await?;
        rows.iter().map(load).collect()
    }
}

fn load(row: &Row) -> Result<NodeLoad, StoreError> {
    Ok(NodeLoad {
        worker: row.text("worker")?,
        running: row.count("jobs")?,
        lease_until: row.time("lease_until")?,
    })
}
