//! The store in one SQLite file.
//!
//! Owns: opening it, its settings, the lock that keeps other processes out.
//! Must not know: statements.
//! Invariant: one process and one writer at a time; a commit that returned survives a power cut.

mod snapshot;

pub use snapshot::snapshot;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::db::Db;
use super::{Rows, migrate};
use crate::domain::Clock;
use crate::domain::ports::StoreError;

const READERS: u32 = 4;
/// Only a backup tool can hold the file: this process writes through one connection.
const BUSY: Duration = Duration::from_secs(10);
const ACQUIRE: Duration = Duration::from_secs(10);
/// How long another process may take to go away, and how often that is looked at.
const LOCK: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// Opens the file, creating it and bringing its schema up to date.
///
/// Nobody else has it open then, so every job that a former process was working on is free:
/// see [`Silent::Everyone`](crate::domain::queue::Silent).
pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Rows, StoreError> {
    let lock = lock(path).await?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // WAL with NORMAL may lose the last commits at a power cut; a 202 was answered for them.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .pragma("journal_size_limit", "67108864");
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE)
        // A file does not go away.
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await?;
    let readers = readers(options).await?;
    let failed = |error: sqlx::migrate::MigrateError| StoreError::Internal(format!("migration: {error}"));
    migrate::sqlite().run(&writer).await.map_err(failed)?;
    let db = Db::Sqlite {
        writer,
        readers,
        _lock: lock,
    };
    Ok(Rows::new(db, clock))
}

async fn readers(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(ACQUIRE)
        // A file does not go away.
        .test_before_acquire(false)
        .connect_with(options.pragma("query_only", "on"))
        .await
}

/// Keeps other processes out. One that was killed while it wrote holds its lock until the kernel is done with it.
async fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", name.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(failed)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK => tokio::time::sleep(LOOK).await,
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Unavailable(format!(
                    "{} is in use by another modelpress process; several processes need PostgreSQL (database_url)",
                    path.display()
                )));
            }
        }
    }
}
