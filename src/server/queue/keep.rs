//! Keeping a lease: beats on a task of their own.
//!
//! Owns: when to beat, when a lease counts as lost.
//! Must not know: what the attempt computes; it is told to stop and asked how far it is.
//! Invariant: work stops before the lease can have expired: a beat every third of it, and after two thirds
//! without an answer the lease is given up, since the next claimer may start at its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::queue::{Beat, Lease, Queue, QueueError};

/// Shortest time between two beats, however often someone wakes the keeper.
const GAP: Duration = Duration::from_millis(500);

/// Why work must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The user asked.
    Cancel,
    /// The lease is lost: write nothing.
    Lost,
    /// The process goes away: give the job back.
    Drain,
}

/// What is kept alive.
pub trait Kept: Send + Sync {
    /// How far it is.
    fn beat(&self) -> Beat;
    /// It must stop.
    fn stop(&self, why: Stop);
    /// A beat was accepted.
    fn accepted(&self);
}

/// Beats until it is dropped or the lease is lost.
pub async fn keep(
    queue: Arc<dyn Queue>,
    lease: Lease,
    ttl: Duration,
    wake: Arc<Notify>,
    kept: Arc<dyn Kept>,
) {
    let mut good_until = Instant::now() + ttl * 2 / 3;
    let mut pause = ttl / 3;
    loop {
        rest(pause, &wake).await;
        let asked = Instant::now();
        // A beat that hangs must not hide that the time is up.
        let answer = tokio::time::timeout_at(good_until.max(asked), queue.beat(lease, &kept.beat())).await;
        match answer {
            Ok(Ok(pulse)) => {
                kept.accepted();
                // Counted from the question: the database counted from later.
                good_until = asked + ttl * 2 / 3;
                pause = ttl / 3;
                if pulse.cancel_requested {
                    kept.stop(Stop::Cancel);
                }
            }
            Ok(Err(QueueError::Lost)) => return kept.stop(Stop::Lost),
            Ok(Err(QueueError::Store(error))) => {
                tracing::warn!(job = %lease.job, %error, "heartbeat failed");
                pause = ttl / 12;
            }
            Err(_elapsed) => {}
        }
        if Instant::now() >= good_until {
            tracing::warn!(job = %lease.job, "no heartbeat was accepted for two thirds of the lease; giving the job up");
            return kept.stop(Stop::Lost);
        }
    }
}

/// Until the next beat is due, or someone has news for the job.
async fn rest(pause: Duration, wake: &Notify) {
    let mut news = std::pin::pin!(wake.notified());
    news.as_mut().enable();
    let gap = GAP.min(pause);
    tokio::time::sleep(gap).await;
    tokio::select! {
        () = tokio::time::sleep(pause.saturating_sub(gap)) => {}
        () = news => {}
    }
}
