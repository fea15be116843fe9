//! Progress between two beats, in memory.
//!
//! Owns: the latest tick of every job that runs in this process.
//! Must not know: rows.
//! Invariant: a tick is shown only for the attempt that made it, and forgotten with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::queue::Lease;
use crate::domain::{JobId, Progress};

/// The ticks.
#[derive(Debug, Default)]
pub(super) struct Live(Mutex<HashMap<JobId, (u64, Progress)>>);

impl Live {
    /// Remembers how far an attempt is.
    pub(super) fn tick(&self, lease: Lease, progress: &Progress) {
        self.lock().insert(lease.job, (lease.fence, progress.clone()));
    }

    /// How far this attempt was when it last said so.
    pub(super) fn of(&self, lease: Lease) -> Option<Progress> {
        let ticks = self.lock();
        let (fence, progress) = ticks.get(&lease.job)?;
        (*fence == lease.fence).then(|| progress.clone())
    }

    /// Forgets an attempt, unless a newer one has ticked since.
    pub(super) fn forget(&self, lease: Lease) {
        let mut ticks = self.lock();
        if ticks
            .get(&lease.job)
            .is_some_and(|(fence, _)| *fence == lease.fence)
        {
            ticks.remove(&lease.job);
        }
    }

    /// A map of plain values is whole even after a panic in between.
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, (u64, Progress)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
