//! Forgetting what is old: jobs, audit entries, idempotency keys, drafts.
//!
//! Owns: how often, in what portions.
//! Must not know: blobs; those without a row are swept elsewhere.
//! Invariant: small transactions with pauses, never in a request.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ticked;
use crate::domain::Clock;
use crate::domain::queue::{Pruned, Queue, Retention};
use crate::telemetry::Metrics;

/// Mean time between two rounds.
const PERIOD: Duration = Duration::from_hours(1);
/// Between two portions of one round.
const PAUSE: Duration = Duration::from_millis(500);

/// What pruning needs.
#[derive(Debug, Clone)]
pub struct Pruner {
    /// Deletes.
    pub queue: Arc<dyn Queue>,
    /// Shows that the loop lives.
    pub metrics: Arc<Metrics>,
    /// Time, for the metric.
    pub clock: Arc<dyn Clock>,
    /// What is old.
    pub retention: Retention,
}

impl Pruner {
    /// Prunes until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        loop {
            let pause = match self.queue.prune(self.retention).await {
                Ok(pruned) if pruned.is_empty() => PERIOD.mul_f64(0.5 + rand::random::<f64>()),
                Ok(pruned) => {
                    tracing::info!(?pruned, "deleted what is old");
                    self.count(pruned);
                    PAUSE
                }
                Err(error) => {
                    tracing::warn!(%error, "what is old was not deleted");
                    PERIOD
                }
            };
            ticked(&self.metrics, self.clock.as_ref(), "prune");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn count(&self, pruned: Pruned) {
        for (kind, rows) in [
            ("job", pruned.jobs),
            ("audit_entry", pruned.audit_entries),
            ("idempotency_key", pruned.idempotency_keys),
            ("draft", pruned.drafts),
            ("delivery", pruned.deliveries),
        ] {
            self.metrics.pruned.with_label_values(&[kind]).inc_by(rows);
        }
    }
}
