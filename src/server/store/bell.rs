//! Words for other processes on the same database, said after commits.
//!
//! Owns: which words wait to be said.
//! Must not know: how they get there.
//! Invariant: a word that is said many times before it goes out goes out once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::queue::Ring;

/// The words that wait.
#[derive(Debug, Default)]
pub(super) struct Bell {
    waiting: Mutex<Vec<Ring>>,
    changed: Notify,
}

impl Bell {
    /// Adds a word; nobody waits for it to be heard.
    pub(super) fn ring(&self, ring: Ring) {
        let mut waiting = self.lock();
        if !waiting.contains(&ring) {
            waiting.push(ring);
            self.changed.notify_one();
        }
    }

    /// The words, when there are some.
    pub(super) async fn words(&self) -> Vec<Ring> {
        loop {
            let words = std::mem::take(&mut *self.lock());
            if !words.is_empty() {
                return words;
            }
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ring>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
