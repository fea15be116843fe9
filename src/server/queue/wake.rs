//! Waiting for work: polling is the truth, a notification only shortens the wait.
//!
//! Owns: the poll period and its jitter; passing on what other processes say.
//! Must not know: what is waited for.
//! Invariant: a notification between a look and the wait is not lost, because [`Ear::listen`] comes before the look.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::queue::Ring;

/// The least time between two polls; the most is five times as long.
pub const POLL: Duration = Duration::from_secs(1);
/// How long what other processes say is gathered, on average, before this one looks: a burst costs one look, and not all
/// processes look at once.
const GATHER: Duration = Duration::from_millis(50);

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
        self.wait_or_poll(stop, POLL).await;
    }

    /// The same with another time between polls.
    pub async fn wait_or_poll(self, stop: &CancellationToken, poll: Duration) {
        tokio::select! {
            () = self.0 => {}
            () = stop.cancelled() => {}
            () = tokio::time::sleep(period(poll, rand::random())) => {}
        }
    }
}

/// Between once and five times as long, so that nodes which started together do not poll together.
fn period(poll: Duration, chance: f64) -> Duration {
    poll + (poll * 4).mul_f64(chance.clamp(0.0, 1.0))
}

/// Wakes who waits here when other processes say something, until `stop`; at once over where there can be none.
pub async fn relay(
    rings: Option<BoxStream<'static, Ring>>,
    work: &Notify,
    news: &Notify,
    stop: &CancellationToken,
) {
    let Some(mut rings) = rings else { return };
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            first = rings.next() => first,
        };
        let Some(first) = first else { return };
        let (mut is_work, mut is_news) = (first == Ring::Work, first == Ring::News);
        let until = Instant::now() + (GATHER * 2).mul_f64(rand::random());
        while let Ok(Some(ring)) = tokio::time::timeout_at(until, rings.next()).await {
            is_work |= ring == Ring::Work;
            is_news |= ring == Ring::News;
        }
        if is_news {
            news.notify_waiters();
        }
        if is_work || is_news {
            work.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};

    use super::*;

    #[tokio::test]
    async fn what_others_say_in_a_burst_wakes_who_it_is_for_once() {
        let (work, news, stop) = (Notify::new(), Notify::new(), CancellationToken::new());
        let (worker, keeper) = (Ear::listen(&work), Ear::listen(&news));
        relay(Some(stream::iter([Ring::Work; 9]).boxed()), &work, &news, &stop).await;
        assert!(worker.0.now_or_never().is_some() && keeper.0.now_or_never().is_none());
        let (worker, keeper) = (Ear::listen(&work), Ear::listen(&news));
        relay(Some(stream::iter([Ring::News]).boxed()), &work, &news, &stop).await;
        assert!(worker.0.now_or_never().is_some() && keeper.0.now_or_never().is_some());
    }

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
        assert_eq!(period(POLL, 0.0), Duration::from_secs(1));
        assert_eq!(period(POLL, 1.0), Duration::from_secs(5));
    }
}
