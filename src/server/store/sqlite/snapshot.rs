//! A copy of the file as it is at one moment, while a server goes on writing.
//!
//! Owns: making the copy; which blobs its rows refer to.
//! Must not know: where blobs are.
//! Invariant: the copy is whole, and no commit is half in it.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

use crate::domain::ports::StoreError;

/// Writes a copy of the database at `from` to `to`, which must not exist.
pub async fn snapshot(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut database = open(from).await?;
    let target = to.display().to_string();
    sqlx::query("VACUUM INTO $1")
        .bind(target)
        .execute(&mut database)
        .await?;
    Ok(database.close().await?)
}

/// The blobs that rows of a database refer to, and their sizes.
pub async fn blobs(path: &Path) -> Result<Vec<(String, u64)>, StoreError> {
    const BLOBS: &str = include_str!("blobs.sql");
    let mut database = open(path).await?;
    let rows = sqlx::query(BLOBS).fetch_all(&mut database).await?;
    database.close().await?;
    rows.iter()
        .map(|row| {
            let (digest, bytes): (String, i64) = (row.try_get("digest")?, row.try_get("bytes")?);
            Ok((digest, bytes.cast_unsigned()))
        })
        .collect()
}

async fn open(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    Ok(SqliteConnection::connect_with(&options).await?)
}
