//! Waiting for work: polling is the truth, a notification only shortens the wait.
//!
//! Owns: the poll period and its jitter.
//! Must not know: what is waited for.
//! Invariant: a notification between a look and the wait is not lost, because [`Ear::listen`] comes before the look.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;

const LEAST: Duration = Duration::from_secs(1);
const SPREAD: Duration = Duration::from_secs(4);

/// Someone who will be notified from now on.
#[derive(Debug)]
pub struct Ear<'a>(Pin<Box<Notified<'a>>>);

impl<'a> Ear<'a> {
    /// Subscribes: do this, then look, then [`wait`](Self::wait).
    pub fn listen(notify: &'a Notify) -> Self {
        let mut notified = Box::pin(notify.notified());
        notified.as_mut().enable();
        Self(notified)
    }

    /// Waits for a notification, the next poll, or the end.
    pub async fn wait(self, stop: &CancellationToken) {
        tokio::select! {
            () = self.0 => {}
            () = stop.cancelled() => {}
            () = tokio::time::sleep(period(rand::random())) => {}
        }
    }
}

/// Between one and five seconds, so that nodes which started together do not poll together.
fn period(chance: f64) -> Duration {
    LEAST + SPREAD.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_notification_before_the_wait_is_heard() {
        let notify = Notify::new();
        let ear = Ear::listen(&notify);
        assert!(Ear::listen(&notify).0.now_or_never().is_none());
        notify.notify_waiters();
        assert!(ear.0.now_or_never().is_some());
    }

    #[test]
    fn polls_are_spread() {
        assert_eq!(period(0.0), Duration::from_secs(1));
        assert_eq!(period(1.0), Duration::from_secs(5));
    }
}
