//! The queue's verbs on top of the job table: keep a lease, take jobs back, wait for work, forget old jobs.
//!
//! Owns: when and how often each happens; what a failure means for a job.
//! Must not know: SQL, blobs, the engine.
//! Invariant: the lease time is the only setting; every other period follows from it or is jittered.

pub mod keep;
pub mod prune;
pub mod reap;
pub mod retry;
pub mod supervise;
pub mod wake;

use crate::domain::Clock;
use crate::telemetry::Metrics;

/// Shows that a loop lives.
pub fn ticked(metrics: &Metrics, clock: &dyn Clock, name: &str) {
    let now = clock.now().unix_timestamp() as f64;
    metrics
        .loop_last_tick_timestamp
        .with_label_values(&[name])
        .set(now);
}
