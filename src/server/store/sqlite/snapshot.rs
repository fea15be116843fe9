//! A copy of the file as it is at one moment, while a server goes on writing.
//!
//! Owns: making the copy.
//! Must not know: what is in it.
//! Invariant: the copy is whole, and no commit is half in it.

use std::path::Path;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::domain::ports::StoreError;

/// Writes a copy of the database at `from` to `to`, which must not exist.
pub async fn snapshot(from: &Path, to: &Path) -> Result<(), StoreError> {
    let options = SqliteConnectOptions::new().filename(from).read_only(true);
    let mut database = SqliteConnection::connect_with(&options).await?;
    let target = to.display().to_string();
    sqlx::query("VACUUM INTO $1")
        .bind(target)
        .execute(&mut database)
        .await?;
    Ok(database.close().await?)
}
