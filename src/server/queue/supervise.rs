//! Loops that must not stop silently.
//!
//! Owns: starting a loop again after a panic.
//! Must not know: what the loop does.
//! Invariant: a supervised loop ends only when it returns.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

use crate::telemetry::panic_text;

const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });

/// Runs a loop to its return; a panic is logged and the loop begun again.
pub async fn supervise<F: Future<Output = ()>>(name: &str, mut begin: impl FnMut() -> F) {
    while let Err(panic) = AssertUnwindSafe(begin()).catch_unwind().await {
        tracing::error!(
            panic = panic_text(panic.as_ref()),
            "loop {name} panicked; beginning it again"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_panic_is_not_the_end() {
        let turns = AtomicU32::new(0);
        supervise("test", || async {
            assert!(turns.fetch_add(1, Ordering::SeqCst) >= 2, "not yet");
        })
        .await;
        assert_eq!(turns.load(Ordering::SeqCst), 3);
    }
}
