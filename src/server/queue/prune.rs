//! Forgetting old jobs.
//!
//! Owns: how often, in what portions.
//! Must not know: blobs; those without a row are swept elsewhere.
//! Invariant: small transactions with pauses, never in a request.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ticked;
use crate::domain::Clock;
use crate::domain::queue::{Queue, Retention};
use crate::telemetry::Metrics;

/// Mean time between two rounds.
const PERIOD: Duration = Duration::from_hours(1);
/// Between two portions of one round.
const PAUSE: Duration = Duration::from_millis(500);

/// What pruning needs.
#[derive(Debug, Clone)]
pub struct Pruner {
    /// The jobs.
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
                Ok(0) => PERIOD.mul_f64(0.5 + rand::random::<f64>()),
                Ok(rows) => {
                    tracing::info!(rows, "pruned jobs and audit entries of long ago");
                    PAUSE
                }
                Err(error) => {
                    tracing::warn!(%error, "old jobs not pruned");
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
}
