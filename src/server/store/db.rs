//! One way to talk to two databases: sessions, arguments, rows, errors.
//!
//! Owns: which connection a call uses, binding and reading values, what a database error means.
//! Must not know: tables.
//! Invariant: a session that is dropped before `commit` changes nothing.

use std::borrow::Cow;
use std::fs::File;
use std::time::Duration;

use serde_json::Value;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{PgPool, Postgres, Row as _, Sqlite, SqlitePool, Transaction};
use time::OffsetDateTime;
use tracing::Instrument as _;

use super::statement::Statement;
use crate::domain::ports::StoreError;
use crate::telemetry::traces;

/// Longest time that one call may take, waiting for a connection included: a sick database must not hang a loop.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections of one database.
#[derive(Debug)]
pub(super) enum Db {
    /// One writer, because SQLite has one; readers see the last commit.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        /// Keeps other processes out.
        _lock: File,
    },
    /// Heartbeats have connections of their own, so that no queue of requests can cost a lease.
    Postgres { pool: PgPool, beats: PgPool },
}

impl Db {
    /// A session for one reading statement.
    pub(super) async fn read(&self) -> Result<Session, StoreError> {
        Ok(Session(match self {
            Self::Sqlite { readers, .. } => Inner::SqliteRead(readers.acquire().await?),
            Self::Postgres { pool, .. } => Inner::PgRead(pool.acquire().await?),
        }))
    }

    /// A transaction.
    pub(super) async fn write(&self) -> Result<Session, StoreError> {
        Ok(Session(match self {
            Self::Sqlite { writer, .. } => Inner::SqliteWrite(begin(writer).await?),
            Self::Postgres { pool, .. } => Inner::PgWrite(pool.begin().await?),
        }))
    }

    /// A transaction for a heartbeat.
    pub(super) async fn beat(&self) -> Result<Session, StoreError> {
        match self {
            Self::Sqlite { .. } => self.write().await,
            Self::Postgres { beats, .. } => Ok(Session(Inner::PgWrite(beats.begin().await?))),
        }
    }
}

/// Takes the write lock at once: a read that becomes a write could fail half-way.
async fn begin(writer: &SqlitePool) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
    loop {
        match writer.begin_with("BEGIN IMMEDIATE").await {
            // SQLite ended the last transaction by itself, as it does when the disk is full. The driver believes
            // for ever that it is open: the connection is of no use any more.
            Err(sqlx::Error::InvalidSavePointStatement) => writer.acquire().await?.close().await?,
            begun => return begun,
        }
    }
}

/// Bounds the time of a call.
pub(super) async fn timed<T, E: From<StoreError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(CALL_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(StoreError::Unavailable(format!("no answer in {CALL_TIMEOUT:?}")).into()),
    }
}

/// A connection in use.
#[derive(Debug)]
pub(super) struct Session(Inner);

#[derive(Debug)]
enum Inner {
    SqliteRead(PoolConnection<Sqlite>),
    SqliteWrite(Transaction<'static, Sqlite>),
    PgRead(PoolConnection<Postgres>),
    PgWrite(Transaction<'static, Postgres>),
}

impl Session {
    /// The database, as OpenTelemetry names it.
    fn system(&self) -> &'static str {
        match self.0 {
            Inner::SqliteRead(_) | Inner::SqliteWrite(_) => "sqlite",
            Inner::PgRead(_) | Inner::PgWrite(_) => "postgresql",
        }
    }

    /// Runs a statement; answers how many rows it changed.
    pub(super) async fn run(
        &mut self,
        statement: &'static Statement,
        args: &[Arg<'_>],
    ) -> Result<u64, StoreError> {
        let span = traces::statement(self.system(), statement.name);
        self.execute(statement, args).instrument(span).await
    }

    async fn execute(&mut self, statement: &'static Statement, args: &[Arg<'_>]) -> Result<u64, StoreError> {
        let (lite, pg) = (statement.sqlite, statement.postgres);
        let done = match &mut self.0 {
            Inner::SqliteRead(c) => for_sqlite(lite, args)
                .execute(&mut **c)
                .await
                .map(|r| r.rows_affected()),
            Inner::SqliteWrite(c) => for_sqlite(lite, args)
                .execute(&mut **c)
                .await
                .map(|r| r.rows_affected()),
            Inner::PgRead(c) => for_postgres(pg, args)
                .execute(&mut **c)
                .await
                .map(|r| r.rows_affected()),
            Inner::PgWrite(c) => for_postgres(pg, args)
                .execute(&mut **c)
                .await
                .map(|r| r.rows_affected()),
        };
        done.map_err(|error| refine(statement, error))
    }

    /// The rows of a statement.
    pub(super) async fn all(
        &mut self,
        statement: &'static Statement,
        args: &[Arg<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let span = traces::statement(self.system(), statement.name);
        self.fetch(statement, args).instrument(span).await
    }

    async fn fetch(
        &mut self,
        statement: &'static Statement,
        args: &[Arg<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let (lite, pg) = (statement.sqlite, statement.postgres);
        let sqlite = |rows: Vec<SqliteRow>| rows.into_iter().map(Row::Sqlite).collect();
        let postgres = |rows: Vec<PgRow>| rows.into_iter().map(Row::Postgres).collect();
        let rows = match &mut self.0 {
            Inner::SqliteRead(c) => for_sqlite(lite, args).fetch_all(&mut **c).await.map(sqlite),
            Inner::SqliteWrite(c) => for_sqlite(lite, args).fetch_all(&mut **c).await.map(sqlite),
            Inner::PgRead(c) => for_postgres(pg, args).fetch_all(&mut **c).await.map(postgres),
            Inner::PgWrite(c) => for_postgres(pg, args).fetch_all(&mut **c).await.map(postgres),
        };
        rows.map_err(|error| refine(statement, error))
    }

    /// The first row of a statement.
    pub(super) async fn one(
        &mut self,
        statement: &'static Statement,
        args: &[Arg<'_>],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.all(statement, args).await?.into_iter().next())
    }

    /// Undoes everything and answers only when the locks are gone. Merely dropped, a transaction is rolled back a
    /// moment later, and a claim that looks meanwhile skips the row.
    pub(super) async fn abandon(self) -> Result<(), StoreError> {
        let done = match self.0 {
            Inner::SqliteRead(_) | Inner::PgRead(_) => Ok(()),
            Inner::SqliteWrite(tx) => tx.rollback().await,
            Inner::PgWrite(tx) => tx.rollback().await,
        };
        Ok(done?)
    }

    /// Makes it all happen.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let span = traces::statement(self.system(), "commit");
        let done = async {
            match self.0 {
                Inner::SqliteRead(_) | Inner::PgRead(_) => Ok(()),
                Inner::SqliteWrite(tx) => tx.commit().await,
                Inner::PgWrite(tx) => tx.commit().await,
            }
        };
        Ok(done.instrument(span).await?)
    }
}

/// An argument of a statement.
#[derive(Debug, Clone)]
pub(super) enum Arg<'a> {
    /// A number.
    Int(Option<i64>),
    /// A measurement.
    Real(f64),
    /// Text.
    Text(Option<Cow<'a, str>>),
}

impl From<i64> for Arg<'_> {
    fn from(n: i64) -> Self {
        Self::Int(Some(n))
    }
}

impl From<u64> for Arg<'_> {
    /// Sizes and counters beyond 2⁶³ are nobody's; what claims to be one is kept as the largest number.
    fn from(n: u64) -> Self {
        Self::Int(Some(i64::try_from(n).unwrap_or(i64::MAX)))
    }
}

impl From<u32> for Arg<'_> {
    fn from(n: u32) -> Self {
        Self::Int(Some(i64::from(n)))
    }
}

impl From<f64> for Arg<'_> {
    fn from(n: f64) -> Self {
        Self::Real(if n.is_finite() { n } else { 0.0 })
    }
}

impl From<Option<i64>> for Arg<'_> {
    fn from(n: Option<i64>) -> Self {
        Self::Int(n)
    }
}

impl From<OffsetDateTime> for Arg<'_> {
    fn from(at: OffsetDateTime) -> Self {
        Self::Int(Some(millis(at)))
    }
}

impl From<Option<OffsetDateTime>> for Arg<'_> {
    fn from(at: Option<OffsetDateTime>) -> Self {
        Self::Int(at.map(millis))
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(Cow::Borrowed(text)))
    }
}

impl From<String> for Arg<'_> {
    fn from(text: String) -> Self {
        Self::Text(Some(Cow::Owned(text)))
    }
}

impl<'a> From<Option<&'a str>> for Arg<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text.map(Cow::Borrowed))
    }
}

/// An argument that is text in the database: an identifier, for example.
pub(super) fn text(value: impl std::fmt::Display) -> Arg<'static> {
    Arg::Text(Some(Cow::Owned(value.to_string())))
}

/// An argument that is JSON.
pub(super) fn json(value: &impl serde::Serialize) -> Result<Arg<'static>, StoreError> {
    let text = serde_json::to_string(value).map_err(|error| StoreError::Internal(error.to_string()))?;
    Ok(text.into())
}

/// Milliseconds since 1970.
pub(super) fn millis(at: OffsetDateTime) -> i64 {
    (at.unix_timestamp_nanos() / 1_000_000) as i64
}

fn for_sqlite(sql: &'static str, args: &[Arg<'_>]) -> Query<'static, Sqlite, SqliteArguments> {
    args.iter().fold(sqlx::query(sql), |query, arg| match arg {
        Arg::Int(n) => query.bind(*n),
        Arg::Real(n) => query.bind(*n),
        Arg::Text(text) => query.bind(text.as_deref().map(str::to_owned)),
    })
}

fn for_postgres(sql: &'static str, args: &[Arg<'_>]) -> Query<'static, Postgres, PgArguments> {
    args.iter().fold(sqlx::query(sql), |query, arg| match arg {
        Arg::Int(n) => query.bind(*n),
        Arg::Real(n) => query.bind(*n),
        Arg::Text(text) => query.bind(text.as_deref().map(str::to_owned)),
    })
}

/// A row.
#[derive(Debug)]
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// A number.
    pub(super) fn int(&self, column: &str) -> Result<i64, StoreError> {
        self.maybe_int(column)?.ok_or_else(|| missing(column))
    }

    /// A number that cannot be negative.
    pub(super) fn count(&self, column: &str) -> Result<u64, StoreError> {
        u64::try_from(self.int(column)?).map_err(|_e| damaged(column))
    }

    /// A small number that cannot be negative.
    pub(super) fn small(&self, column: &str) -> Result<u32, StoreError> {
        u32::try_from(self.int(column)?).map_err(|_e| damaged(column))
    }

    /// A measurement.
    pub(super) fn real(&self, column: &str) -> Result<f64, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// A number, if there is one.
    pub(super) fn maybe_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// Text.
    pub(super) fn text(&self, column: &str) -> Result<String, StoreError> {
        self.maybe_text(column)?.ok_or_else(|| missing(column))
    }

    /// Text, if there is some.
    pub(super) fn maybe_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// Text that reads as something: an identifier, a state.
    pub(super) fn parsed<T: std::str::FromStr>(&self, column: &str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|_e| damaged(column))
    }

    /// JSON.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|_e| damaged(column))
    }

    /// JSON, if there is some.
    pub(super) fn maybe_json(&self, column: &str) -> Result<Option<Value>, StoreError> {
        let text = self.maybe_text(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(|_e| damaged(column)))
            .transpose()
    }

    /// A time.
    pub(super) fn time(&self, column: &str) -> Result<OffsetDateTime, StoreError> {
        self.maybe_time(column)?.ok_or_else(|| missing(column))
    }

    /// A time, if there is one.
    pub(super) fn maybe_time(&self, column: &str) -> Result<Option<OffsetDateTime>, StoreError> {
        let at = |ms: i64| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
        self.maybe_int(column)?
            .map(|ms| at(ms).map_err(|_e| damaged(column)))
            .transpose()
    }

    /// Every column as text: for comparing and showing whole tables in tests.
    #[cfg(test)]
    pub(super) fn cells(&self) -> Vec<(String, String)> {
        use sqlx::{Column as _, ValueRef as _};
        match self {
            Self::Sqlite(row) => {
                let cell = |i: usize| match row.try_get_raw(i) {
                    Ok(raw) if raw.is_null() => "null".to_owned(),
                    _ => row.try_get_unchecked::<String, _>(i).unwrap_or_default(),
                };
                let names = row.columns().iter().map(|c| c.name().to_owned());
                names.enumerate().map(|(i, name)| (name, cell(i))).collect()
            }
            Self::Postgres(row) => {
                let cell = |i: usize| {
                    let text = row.try_get::<Option<String>, _>(i);
                    let number = || row.try_get::<Option<i64>, _>(i).map(|n| n.map(|n| n.to_string()));
                    let cell = text.or_else(|_e| number());
                    cell.ok().flatten().unwrap_or_else(|| "null".to_owned())
                };
                let names = row.columns().iter().map(|c| c.name().to_owned());
                names.enumerate().map(|(i, name)| (name, cell(i))).collect()
            }
        }
    }
}

fn missing(column: &str) -> StoreError {
    StoreError::Internal(format!("column {column} is null"))
}

fn damaged(column: &str) -> StoreError {
    StoreError::Internal(format!("column {column} holds an unexpected value"))
}

fn refine(statement: &Statement, error: sqlx::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Internal(text) => StoreError::Internal(format!("{}: {text}", statement.name)),
        StoreError::Unavailable(text) => StoreError::Unavailable(format!("{}: {text}", statement.name)),
        StoreError::NoSpace(text) => StoreError::NoSpace(format!("{}: {text}", statement.name)),
        other => other,
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let passing = match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) => {
                true
            }
            E::Database(database) => database.code().is_some_and(|code| is_passing(&code)),
            _ => false,
        };
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        if code.is_some_and(|code| is_no_space(&code)) {
            Self::NoSpace(error.to_string())
        } else if passing {
            Self::Unavailable(error.to_string())
        } else {
            Self::Internal(error.to_string())
        }
    }
}

/// PostgreSQL's and SQLite's words for a full disk.
fn is_no_space(code: &str) -> bool {
    code == "53100" || code == "13"
}

/// Codes that say "not now": PostgreSQL's classes for connections, resources, restarts, conflicts and time-outs;
/// SQLite's busy, locked, full and I/O errors (the low byte is the class).
fn is_passing(code: &str) -> bool {
    if code.len() == 5 {
        return ["08", "53", "57", "58", "40", "55"]
            .iter()
            .any(|class| code.starts_with(class));
    }
    matches!(
        code.parse::<u32>().map(|code| code & 0xff),
        Ok(5 | 6 | 10 | 13 | 14)
    )
}
