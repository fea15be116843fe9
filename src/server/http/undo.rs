//! Taking back blobs of a request that came to nothing, even when its client left and the handler was dropped.
//!
//! Owns: the list of what a request stored so far.
//! Must not know: why it failed.
//! Invariant: what is not kept is revoked.

use std::sync::Arc;

use crate::domain::ports::{Blobs, Stored};

/// Blobs that are revoked when this is dropped before [`Undo::keep`].
#[derive(Debug)]
pub struct Undo {
    blobs: Arc<dyn Blobs>,
    stored: Vec<Stored>,
}

impl Undo {
    /// Nothing to take back yet.
    pub fn new(blobs: Arc<dyn Blobs>) -> Self {
        Self {
            blobs,
            stored: Vec::new(),
        }
    }

    /// Adds a blob.
    pub fn add(&mut self, stored: Stored) {
        self.stored.push(stored);
    }

    /// The rows are written: everything stays.
    pub fn keep(mut self) {
        self.stored.clear();
    }

    /// Keeps everything if it came to something, and takes it back if not.
    pub async fn settle<T, E>(self, result: Result<T, E>) -> Result<T, E> {
        match result {
            Ok(_) => self.keep(),
            Err(_) => self.take_back().await,
        }
        result
    }

    /// Takes everything back now.
    pub async fn take_back(mut self) {
        revoke(self.blobs.clone(), std::mem::take(&mut self.stored)).await;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let stored = std::mem::take(&mut self.stored);
        if !stored.is_empty() {
            tokio::spawn(revoke(self.blobs.clone(), stored));
        }
    }
}

async fn revoke(blobs: Arc<dyn Blobs>, stored: Vec<Stored>) {
    for stored in stored {
        if let Err(error) = blobs.revoke(stored).await {
            tracing::warn!(%error, "blob of a refused request not removed; the sweep will try again");
        }
    }
}
