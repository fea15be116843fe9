//! The store in a PostgreSQL database.
//!
//! Owns: opening it, pool sizes, server-side time limits.
//! Must not know: statements.
//! Invariant: no session waits for ever, neither for a lock nor for an answer.

mod bell;

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};

use tokio_util::sync::CancellationToken;

use super::bell::Bell;
use super::db::Db;
use super::rows::Neighbours;
use super::{Rows, migrate};
use crate::domain::Clock;
use crate::domain::ports::StoreError;

const CONNECTIONS: u32 = 16;
const BEAT_CONNECTIONS: u32 = 2;
const ACQUIRE: Duration = Duration::from_secs(10);
/// How long a connection that comes back may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a connection that was in use counts as alive.
const FRESH: Duration = Duration::from_secs(1);
/// A connection is renewed now and then: it may be to a server that is no longer the primary.
const AGE: Duration = Duration::from_mins(30);

/// Connects and brings the schema up to date; several processes may do so at once.
pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Rows, StoreError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| StoreError::Unavailable(format!("database_url: {error}")))?
        .application_name("modelpress");
    migrate(options.clone()).await?;
    let options = options.options([
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "60s"),
        ("tcp_keepalives_idle", "30"),
    ]);
    let pool = |most: u32| {
        PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(ACQUIRE)
            .max_lifetime(AGE)
            .test_before_acquire(false)
            .before_acquire(|connection, past| Box::pin(lives(connection, past.idle_for)))
            .after_release(|connection, _| Box::pin(answers(connection)))
            .connect_lazy_with(options.clone())
    };
    let db = Db::Postgres {
        pool: pool(CONNECTIONS),
        beats: pool(BEAT_CONNECTIONS),
    };
    let (words, end) = (Arc::new(Bell::default()), CancellationToken::new());
    tokio::spawn(bell::say(words.clone(), pool(1), end.clone()));
    let neighbours = Neighbours {
        words,
        listen: Arc::new(move || bell::listen(options.clone())),
        _end: end.drop_guard(),
    };
    Ok(Rows::new(db, clock).with_neighbours(neighbours))
}

/// Whether a connection that waited still lives. One that was in use a moment ago need not be asked: under load that
/// question would cost every request a round trip.
async fn lives(connection: &mut PgConnection, idle: Duration) -> Result<bool, sqlx::Error> {
    if idle >= FRESH {
        connection.ping().await?;
    }
    Ok(true)
}

/// Whether a connection that comes back still answers. A call that ran out of time leaves one whose link may be dead
/// without a word; the pool itself would wait for it until TCP gives up, a quarter of an hour, and count it as in use.
async fn answers(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(ANSWER, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        // As an error, the pool closes it without another word over the link.
        Err(_elapsed) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// On a connection without time limits: a migration may have much to do.
async fn migrate(options: PgConnectOptions) -> Result<(), StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE)
        .connect_with(options)
        .await?;
    let failed = |error: sqlx::migrate::MigrateError| StoreError::Internal(format!("migration: {error}"));
    let done = migrate::postgres().run(&pool).await.map_err(failed);
    pool.close().await;
    done
}
