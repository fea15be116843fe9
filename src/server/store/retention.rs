//! What is deleted when it is old enough.
//!
//! Owns: the order in which old jobs, searches, audit entries, messages to webhooks, idempotency keys and drafts go.
//! Must not know: blobs; the sweep finds those without a row.
//! Invariant: a batch a call, and never a job that is not over or a model that is ready.

use std::time::Duration;

use super::Rows;
use super::statement as sql;
use crate::domain::JobState;
use crate::domain::ports::StoreError;
use crate::domain::queue::{Pruned, Retention};

/// Rows deleted in one transaction, of each kind.
const BATCH: u32 = 100;

impl Rows {
    pub(super) async fn drop_old(&self, retention: Retention) -> Result<Pruned, StoreError> {
        let now = self.clock.now();
        let ages: [(JobState, Option<Duration>); 3] = [
            (JobState::Succeeded, retention.succeeded),
            (JobState::Failed, retention.unsuccessful),
            (JobState::Cancelled, retention.unsuccessful),
        ];
        let mut pruned = Pruned::default();
        let mut tx = self.db.write().await?;
        for (state, age) in ages {
            if let Some(age) = age {
                let args = [state.as_str().into(), (now - age).into(), BATCH.into()];
                pruned.jobs += tx.run(&sql::JOB_PRUNE, &args).await?;
            }
        }
        if let Some(age) = retention.audit {
            let args = [(now - age).into(), BATCH.into()];
            pruned.audit_entries = tx.run(&sql::AUDIT_PRUNE, &args).await?;
        }
        if let Some(age) = retention.deliveries {
            let args = [(now - age).into(), BATCH.into()];
            pruned.deliveries = tx.run(&sql::DELIVERY_PRUNE, &args).await?;
        }
        if let Some(age) = retention.drafts {
            let args = [(now - age).into(), BATCH.into()];
            pruned.drafts = tx.run(&sql::DRAFT_PRUNE, &args).await?;
        }
        // A search is of use as long as any of its jobs may be there.
        if let Some(age) = retention
            .succeeded
            .zip(retention.unsuccessful)
            .map(|(a, b)| a.max(b))
        {
            let args = [(now - age).into(), BATCH.into()];
            pruned.searches = tx.run(&sql::SEARCH_PRUNE, &args).await?;
        }
        let args = [now.into(), BATCH.into()];
        pruned.idempotency_keys = tx.run(&sql::IDEMPOTENCY_PRUNE, &args).await?;
        tx.commit().await?;
        Ok(pruned)
    }
}
