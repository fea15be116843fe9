//! `NOTIFY` and `LISTEN`: a hint to look sooner. Polling is the truth.
//!
//! Owns: the channel, how words are written, the connection that listens.
//! Must not know: what is looked for.
//! Invariant: nothing is notified inside a transaction of ours, where it would take a lock on the whole database at commit;
//! the connection that listens does nothing else, always reads, and does not get old.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::queue::Ring;
use crate::store::bell::Bell;

const CHANNEL: &str = "modelpress";
/// Between two notifications of this process: a burst is one.
const PAUSE: Duration = Duration::from_millis(50);
/// What a notification may take.
const LONGEST: Duration = Duration::from_secs(5);
/// About how long a connection listens. One whose link died without a word is replaced then.
const AGE: Duration = Duration::from_mins(5);
/// Before it is connected again.
const AGAIN: Duration = Duration::from_secs(2);

/// Notifies of every word, until the end.
pub(super) async fn say(bell: Arc<Bell>, pool: PgPool, end: CancellationToken) {
    loop {
        let words = tokio::select! {
            () = end.cancelled() => return,
            words = bell.words() => words,
        };
        for word in words {
            let notify = sqlx::query("SELECT pg_notify($1, $2)")
                .bind(CHANNEL)
                .bind(text(word));
            let said = tokio::time::timeout(LONGEST, notify.execute(&pool)).await;
            if !matches!(said, Ok(Ok(_))) {
                tracing::debug!(?word, "other processes not told; they will look by themselves");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Everything that other processes, and this one, say.
pub(super) fn listen(options: PgConnectOptions) -> BoxStream<'static, Ring> {
    async_stream::stream! {
        loop {
            match begin(options.clone()).await {
                Ok(mut listener) => {
                    // What was said meanwhile was not heard.
                    yield Ring::Work;
                    yield Ring::News;
                    let old = Instant::now() + spread(AGE);
                    while let Ok(Ok(Some(heard))) = tokio::time::timeout_at(old, listener.try_recv()).await {
                        if let Some(ring) = word(heard.payload()) {
                            yield ring;
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "not listening now; polling goes on"),
            }
            tokio::time::sleep(spread(AGAIN)).await;
        }
    }
    .boxed()
}

async fn begin(options: PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(LONGEST)
        .connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

fn text(ring: Ring) -> &'static str {
    match ring {
        Ring::Work => "work",
        Ring::News => "news",
    }
}

fn word(text: &str) -> Option<Ring> {
    match text {
        "work" => Some(Ring::Work),
        "news" => Some(Ring::News),
        // Of a newer version.
        _ => None,
    }
}

/// Between half and one and a half: nodes do not connect in step.
fn spread(time: Duration) -> Duration {
    time.mul_f64(0.5 + rand::random::<f64>())
}
