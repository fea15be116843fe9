//! The last answer about the dependencies.
//!
//! Owns: how long it counts.
//! Must not know: what was asked.
//! Invariant: one look a second, however many ask.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

const KEPT: Duration = Duration::from_secs(1);

/// The last look at the dependencies.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    /// The last answer while it is fresh, or else a new one.
    pub async fn kept(&self, look: impl Future<Output = Result<(), String>>) -> Result<(), String> {
        let mut kept = self.0.lock().await;
        if let Some((at, answer)) = kept.as_ref()
            && at.elapsed() < KEPT
        {
            return answer.clone();
        }
        let answer = look.await;
        *kept = Some((Instant::now(), answer.clone()));
        answer
    }
}
