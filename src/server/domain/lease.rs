//! The lease machine: who may work on a job, and what becomes of it, as pure functions.
//!
//! Owns: the transitions of state, attempt, fence, lease and cancel request; how long a retry waits.
//! Must not know: rows, time sources, threads: time is an argument.
//! Invariant: only the newest fence changes a running job, and a terminal state is written once.
//!
//! The store's SQL does the same steps one statement each; its conformance suite runs both side by side, and
//! `tests` below search every interleaving of two workers, a cancelling user and a jumping clock.

use super::JobState;

/// Shortest and longest wait before another attempt, in milliseconds.
const BACKOFF_MS: (u64, u64) = (5_000, 600_000);

/// What the machine knows of a job. Times are milliseconds of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Where the job stands.
    pub state: JobState,
    /// Attempts begun and not given back.
    pub attempt: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// Counts claims; names the one attempt that may write.
    pub fence: u64,
    /// Not claimable before this.
    pub run_after: i64,
    /// End of the lease while running.
    pub lease_until: Option<i64>,
    /// Whether the user asked to end it.
    pub cancel_requested: bool,
}

/// How an attempt ended, as its worker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Everything is published.
    Succeeded,
    /// It failed and trying again cannot help.
    Failed,
    /// It failed in a way that may pass: wait so many milliseconds.
    Retry(u64),
    /// It stopped because the user asked.
    Cancelled,
    /// The worker goes away; the attempt does not count.
    Released,
}

/// What becomes of a job whose attempt is over without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Another attempt.
    Again,
    /// The user wanted its end anyway.
    Cancel,
    /// No attempts are left.
    Spent,
}

impl Slot {
    /// A job as it is enqueued.
    pub fn new(max_attempts: u32, now: i64) -> Self {
        Self {
            state: JobState::Queued,
            attempt: 0,
            max_attempts,
            fence: 0,
            run_after: now,
            lease_until: None,
            cancel_requested: false,
        }
    }

    /// A worker takes it.
    #[must_use]
    pub fn claim(self, now: i64, ttl: i64) -> Option<Self> {
        (self.state == JobState::Queued && self.run_after <= now).then_some(Self {
            state: JobState::Running,
            attempt: self.attempt + 1,
            fence: self.fence + 1,
            lease_until: Some(now + ttl),
            ..self
        })
    }

    /// The worker of this fence is alive. An expired lease that nobody took back yet is still its own.
    #[must_use]
    pub fn beat(self, fence: u64, now: i64, ttl: i64) -> Option<Self> {
        self.held_by(fence).then_some(Self {
            lease_until: Some(now + ttl),
            ..self
        })
    }

    /// The worker of this fence is done with it.
    #[must_use]
    pub fn finish(self, fence: u64, verdict: Verdict, now: i64) -> Option<Self> {
        if !self.held_by(fence) {
            return None;
        }
        Some(match verdict {
            Verdict::Succeeded => self.end(JobState::Succeeded),
            Verdict::Failed => self.end(JobState::Failed),
            Verdict::Cancelled => self.end(JobState::Cancelled),
            Verdict::Retry(wait) => self.settle(self.fate(), now.saturating_add_unsigned(wait)),
            Verdict::Released => {
                let given_back = Self {
                    attempt: self.attempt - 1,
                    ..self
                };
                given_back.settle(given_back.fate(), now)
            }
        })
    }

    /// Takes it back from a silent worker.
    #[must_use]
    pub fn reap(self, now: i64, wait: u64) -> Option<Self> {
        let expired = self.state == JobState::Running && self.lease_until.is_some_and(|until| until <= now);
        expired.then(|| self.settle(self.fate(), now.saturating_add_unsigned(wait)))
    }

    /// The user asks to end it; `None` when it is over in another way.
    #[must_use]
    pub fn cancel(self) -> Option<Self> {
        match self.state {
            JobState::Queued => Some(
                Self {
                    cancel_requested: true,
                    ..self
                }
                .end(JobState::Cancelled),
            ),
            JobState::Running => Some(Self {
                cancel_requested: true,
                ..self
            }),
            JobState::Cancelled => Some(self),
            JobState::Succeeded | JobState::Failed => None,
        }
    }

    fn fate(self) -> Fate {
        fate(self.attempt, self.max_attempts, self.cancel_requested)
    }

    fn held_by(self, fence: u64) -> bool {
        self.state == JobState::Running && self.fence == fence
    }

    fn end(self, state: JobState) -> Self {
        Self {
            state,
            lease_until: None,
            ..self
        }
    }

    fn settle(self, fate: Fate, run_after: i64) -> Self {
        match fate {
            Fate::Again => Self {
                run_after,
                ..self.end(JobState::Queued)
            },
            Fate::Cancel => self.end(JobState::Cancelled),
            Fate::Spent => self.end(JobState::Failed),
        }
    }
}

/// What becomes of a job after so many attempts.
pub fn fate(attempt: u32, max_attempts: u32, cancel_requested: bool) -> Fate {
    if cancel_requested {
        Fate::Cancel
    } else if attempt < max_attempts {
        Fate::Again
    } else {
        Fate::Spent
    }
}

/// Wait before the attempt after this one: exponential with full jitter, so that jobs which failed together do
/// not come back together. `chance` is a random number in [0, 1).
pub fn backoff_ms(attempt: u32, chance: f64) -> u64 {
    let (least, most) = BACKOFF_MS;
    let ceiling = least
        .saturating_mul(1 << attempt.saturating_sub(1).min(20))
        .min(most);
    (ceiling as f64 * chance.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
