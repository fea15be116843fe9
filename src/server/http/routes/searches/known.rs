//! What finished jobs came to, remembered: a search is asked for every few seconds, and reports are long.
//!
//! Owns: this memory.
//! Must not know: how a report is read.
//! Invariant: only what cannot change is kept, and no more than 4096 of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::ResultOut;
use crate::domain::JobId;

/// Results that are remembered at once.
const MOST: usize = 4096;

/// Results of jobs that are over.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<JobId, ResultOut>>);

impl Known {
    /// The result of a job, if it was seen before.
    pub fn get(&self, job: JobId) -> Option<ResultOut> {
        self.lock().get(&job).cloned()
    }

    /// Remembers the result of a job that is over.
    pub fn put(&self, job: JobId, result: &ResultOut) {
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(job, result.clone());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, ResultOut>> {
        // Whole entries only: the map is sound whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
