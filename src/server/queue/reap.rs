//! Taking jobs back from workers that went silent.
//!
//! Owns: when it is looked for them.
//! Must not know: what they were doing.
//! Invariant: among other processes no sweep before a full lease after the start, because a store that was away
//! leaves live leases expired; alone, at once, because nobody can be alive.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ticked;
use crate::domain::Clock;
use crate::domain::ports::StoreError;
use crate::domain::queue::{Queue, Silent};
use crate::telemetry::Metrics;

/// Who else may be working on the jobs of this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// Nobody: this process holds the store alone.
    None,
    /// Other processes.
    Some,
}

/// What reaping needs.
#[derive(Debug, Clone)]
pub struct Reaper {
    /// The jobs.
    pub queue: Arc<dyn Queue>,
    /// Told when jobs can be claimed again.
    pub wake: Arc<Notify>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Time, for the metric.
    pub clock: Arc<dyn Clock>,
    /// How long a lease holds.
    pub ttl: Duration,
}

impl Reaper {
    /// Frees what a former process left running, before anything is claimed. Tries until the store answers.
    pub async fn recover(&self, stop: &CancellationToken) {
        loop {
            match self.take_back(Silent::Everyone).await {
                Ok(0) => return,
                Ok(jobs) => tracing::info!(jobs, "took back what a former process left running"),
                Err(error) => {
                    tracing::warn!(%error, "jobs of a former process not taken back yet");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    }
                }
            }
        }
    }

    /// Looks for silent workers until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut pause = self.ttl;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match self.take_back(Silent::Expired).await {
                Ok(_) => ticked(&self.metrics, self.clock.as_ref(), "reap"),
                Err(error) => tracing::warn!(%error, "silent workers not looked for"),
            }
            // Between a quarter and three quarters of a lease: nodes do not sweep in step.
            pause = self.ttl.mul_f64(0.25 + 0.5 * rand::random::<f64>());
        }
    }

    async fn take_back(&self, silent: Silent) -> Result<usize, StoreError> {
        let reaped = self.queue.reap(silent).await?;
        for job in &reaped {
            tracing::warn!(job = %job.job, worker = %job.worker, state = job.state.as_str(),
                "job {} taken back from silent worker {}: {}", job.job, job.worker, job.state.as_str());
            self.metrics.reaped.inc();
            self.metrics.attempts.with_label_values(&["lost"]).inc();
        }
        if !reaped.is_empty() {
            self.wake.notify_waiters();
        }
        Ok(reaped.len())
    }
}
