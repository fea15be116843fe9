//! Whose turn it is to write an upload.
//!
//! Owns: one slot an upload, the hand-over from an older call to a newer one.
//! Must not know: files.
//! Invariant: one writer an upload: a newer call ends the older one before it reads the offset.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::domain::ports::BlobError;

/// The slots of all uploads.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, Arc<Slot>>>>);

/// Who may write an upload.
#[derive(Debug, Default)]
struct Slot {
    current: Mutex<CancellationToken>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// The right to write an upload, until a newer call takes it.
pub(super) struct Turn {
    /// Ends when it is taken.
    pub(super) stop: CancellationToken,
    _gate: OwnedMutexGuard<()>,
}

impl Turns {
    /// Takes the turn from whoever has it.
    pub(super) async fn take(&self, key: &str) -> Result<Turn, BlobError> {
        let slot = lock(&self.0).entry(key.to_owned()).or_default().clone();
        let stop = CancellationToken::new();
        std::mem::replace(&mut *lock(&slot.current), stop.clone()).cancel();
        let gate = slot.gate.clone().lock_owned().await;
        if stop.is_cancelled() {
            return Err(BlobError::Superseded);
        }
        Ok(Turn { stop, _gate: gate })
    }

    /// Forgets an upload that is no more.
    pub(super) fn forget(&self, key: &str) {
        lock(&self.0).remove(key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
