//! How a sender keeps up.
//!
//! Owns: the longest silence of a body, and its least speed.
//! Must not know: where the bytes go.
//! Invariant: only the time in which we wait for the sender counts; a slow disk of ours ends nobody's upload.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::time::Instant;

use super::intake::Cut;
use crate::domain::ports::Bounds;

/// What a sender has done since its speed was last looked at.
#[derive(Debug)]
pub(super) struct Pace {
    idle: Duration,
    least_bytes_per_second: u64,
    waited: Duration,
    came: u64,
}

impl Pace {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            idle: bounds.idle,
            least_bytes_per_second: bounds.least_bytes_per_second,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// The next chunk of a body; none at its end. Ends a sender who was silent, or who over as long a wait sent less than
    /// the least.
    pub(super) async fn next<S>(&mut self, body: &mut S) -> Result<Option<Bytes>, Cut>
    where
        S: Stream<Item = io::Result<Bytes>> + Unpin + Send,
    {
        let begun = Instant::now();
        let next = tokio::time::timeout(self.idle, body.next()).await;
        let Some(chunk) = next.map_err(|_elapsed| Cut::Idle)? else {
            return Ok(None);
        };
        let chunk = chunk.map_err(|error| Cut::Body(error.to_string()))?;
        self.waited += begun.elapsed();
        self.came += chunk.len() as u64;
        if self.waited >= self.idle {
            let least = self.least_bytes_per_second as f64 * self.waited.as_secs_f64();
            if (self.came as f64) < least {
                return Err(Cut::Slow);
            }
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        Ok(Some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        max_bytes: u64::MAX,
        idle: Duration::from_secs(1),
        least_bytes_per_second: 500,
        reserve_bytes: 0,
        announced: None,
    };

    /// Sends chunks of some bytes with a pause before each, and looks at the pace of them.
    async fn sent(bytes: usize, pause: u64, chunks: usize) -> Result<u64, Cut> {
        let body = stream::iter(0..chunks).then(move |_| async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            Ok(Bytes::from(vec![0; bytes]))
        });
        let (mut pace, mut body, mut came) = (Pace::new(&BOUNDS), body.boxed(), 0);
        while let Some(chunk) = pace.next(&mut body).await? {
            came += chunk.len() as u64;
        }
        Ok(came)
    }

    #[tokio::test]
    async fn a_dribble_ends_and_a_slow_line_does_not() {
        let (dribble, silent, slow, done) = tokio::join!(
            sent(1, 10, 1000),
            sent(1, 2000, 1),
            sent(500, 100, 30),
            sent(1, 10, 20)
        );
        assert!(matches!(dribble, Err(Cut::Slow)), "{dribble:?}");
        assert!(matches!(silent, Err(Cut::Idle)), "{silent:?}");
        assert_eq!(slow.expect("ten times the least"), 15_000);
        assert_eq!(done.expect("done before anybody looks"), 20);
    }

    #[tokio::test]
    async fn what_we_need_for_the_disk_is_not_the_senders_time() {
        let mut body = stream::iter((0..150).map(|_| Ok(Bytes::from_static(b"x"))));
        let mut pace = Pace::new(&BOUNDS);
        while pace
            .next(&mut body)
            .await
            .expect("nobody waited for it")
            .is_some()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
