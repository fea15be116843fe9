//! A look at a database from outside: no lock, no migration, no change, also while a server works on it.
//!
//! Owns: questions that upkeep asks.
//! Must not know: what the answers mean for anybody.
//! Invariant: it reads only.

use std::path::Path;
use std::str::FromStr as _;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};
use time::OffsetDateTime;

use super::db::{millis, timed};
use super::migrate;
use crate::domain::ports::StoreError;

const SCHEMA: &str = "SELECT 'schema' AS word, CAST(coalesce(max(version), 0) AS BIGINT) AS number FROM _sqlx_migrations WHERE success";
const KEYS: &str = "SELECT 'keys' AS word, count(*) AS number FROM api_key WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)";
const BLOBS: &str = include_str!("sql/blobs.sql");
const PG_CLOCK: &str =
    "SELECT 'now' AS word, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS number";

/// A database that is only looked at.
#[derive(Debug)]
pub struct Look(Connection);

#[derive(Debug)]
enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Look {
    /// At an SQLite file, which must exist.
    pub async fn sqlite(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let connected = async { Ok::<_, StoreError>(SqliteConnection::connect_with(&options).await?) };
        Ok(Self(Connection::Sqlite(timed(connected).await?)))
    }

    /// At a PostgreSQL database.
    pub async fn postgres(url: &str) -> Result<Self, StoreError> {
        let wrong = |error| StoreError::Unavailable(format!("database_url: {error}"));
        let options = PgConnectOptions::from_str(url).map_err(wrong)?;
        let connected = async { Ok::<_, StoreError>(PgConnection::connect_with(&options).await?) };
        Ok(Self(Connection::Postgres(timed(connected).await?)))
    }

    /// The version of the schema, 0 where there is none, and the one that this program needs.
    pub async fn schema(&mut self) -> Result<(i64, i64), StoreError> {
        let found = match self.pairs(SCHEMA, None).await {
            Ok(rows) => rows.first().map_or(0, |(_, version)| *version),
            // No such table: nothing was ever here.
            Err(StoreError::Internal(_)) => 0,
            Err(error) => return Err(error),
        };
        Ok((found, migrate::CURRENT))
    }

    /// Keys that open something at `now`.
    pub async fn good_keys(&mut self, now: OffsetDateTime) -> Result<i64, StoreError> {
        let rows = self.pairs(KEYS, Some(millis(now))).await?;
        Ok(rows.first().map_or(0, |(_, keys)| *keys))
    }

    /// The blobs that rows refer to, and their sizes.
    pub async fn blobs(&mut self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows = self.pairs(BLOBS, None).await?;
        Ok(rows
            .into_iter()
            .map(|(digest, bytes)| (digest, bytes.cast_unsigned()))
            .collect())
    }

    /// The database's clock, milliseconds since 1970, where it has one of its own.
    pub async fn clock_millis(&mut self) -> Result<Option<i64>, StoreError> {
        if matches!(self.0, Connection::Sqlite(_)) {
            return Ok(None);
        }
        Ok(self.pairs(PG_CLOCK, None).await?.first().map(|(_, now)| *now))
    }

    /// What is broken inside the file; a PostgreSQL server looks after that itself.
    pub async fn damage(&mut self) -> Result<Vec<String>, StoreError> {
        let Connection::Sqlite(connection) = &mut self.0 else {
            return Ok(Vec::new());
        };
        let rows = sqlx::query("PRAGMA quick_check(5)").fetch_all(connection).await?;
        let lines: Result<Vec<String>, sqlx::Error> = rows.iter().map(|row| row.try_get(0)).collect();
        Ok(lines?.into_iter().filter(|line| line != "ok").collect())
    }

    async fn pairs(&mut self, sql: &'static str, arg: Option<i64>) -> Result<Vec<(String, i64)>, StoreError> {
        timed(async {
            match &mut self.0 {
                Connection::Sqlite(connection) => {
                    let query = arg.into_iter().fold(sqlx::query(sql), sqlx::query::Query::bind);
                    let rows = query.fetch_all(connection).await?;
                    rows.iter()
                        .map(|row| Ok((row.try_get("word")?, row.try_get("number")?)))
                        .collect()
                }
                Connection::Postgres(connection) => {
                    let query = arg.into_iter().fold(sqlx::query(sql), sqlx::query::Query::bind);
                    let rows = query.fetch_all(connection).await?;
                    rows.iter()
                        .map(|row| Ok((row.try_get("word")?, row.try_get("number")?)))
                        .collect()
                }
            }
        })
        .await
    }
}
