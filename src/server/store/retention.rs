//! What is deleted when it is old enough.
//!
//! Owns: the order in which old jobs, audit entries, messages to webhooks and idempotency keys go.
//! Must not know: blobs; the sweep finds those without a row.
//! Invariant: a batch a call, and never a job that is not over.

use std::time::Duration;

use super::Rows;
use super::statement as sql;
use crate::domain::JobState;
use crate::domain::ports::StoreError;
use crate::domain::queue::Retention;

/// Rows deleted in one transaction, of each kind.
const BATCH: u32 = 100;

impl Rows {
    pub(super) async fn drop_old(&self, retention: Retention) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let ages: [(JobState, Option<Duration>); 3] = [
            (JobState::Succeeded, retention.succeeded),
            (JobState::Failed, retention.unsuccessful),
            (JobState::Cancelled, retention.unsuccessful),
        ];
        let mut dropped = 0;
        let mut tx = self.db.write().await?;
        for (state, age) in ages {
            if let Some(age) = age {
                let args = [state.as_str().into(), (now - age).into(), BATCH.into()];
                dropped += tx.run(&sql::JOB_PRUNE, &args).await?;
            }
        }
        if let Some(age) = retention.audit {
            dropped += tx
                .run(&sql::AUDIT_PRUNE, &[(now - age).into(), BATCH.into()])
                .await?;
        }
        if let Some(age) = retention.deliveries {
            dropped += tx
                .run(&sql::DELIVERY_PRUNE, &[(now - age).into(), BATCH.into()])
                .await?;
        }
        tx.run(&sql::IDEMPOTENCY_PRUNE, &[now.into()]).await?;
        tx.commit().await?;
        Ok(dropped)
    }
}
