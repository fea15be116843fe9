//! Bringing a backup back: into a new data folder, every blob checked against its digest.
//!
//! Owns: the order, so that a restore that breaks off can be tried again.
//! Must not know: migrations; the store runs them when it is opened.
//! Invariant: nothing that is there is overwritten, and the database comes last.

use std::fs;
use std::path::Path;

use super::backup::carry;
use super::{BLOBS, DATABASE, Done, KEYS, MANIFEST, Manifest, Progress, UpkeepError, copy};
use crate::blobs::carry::Carrier;
use crate::config::{Config, Database};
use crate::store::look::Look;

/// Restores a backup into the data folder of a configuration.
pub async fn restore(
    config: &Config,
    from: &Path,
    progress: Progress<'_>,
) -> Result<(Manifest, Done), UpkeepError> {
    let manifest = manifest(from)?;
    let Database::Sqlite(database) = &config.database else {
        return Err(UpkeepError::Refused(
            "a backup holds an SQLite database and cannot be restored into PostgreSQL; leave database_url unset".to_owned(),
        ));
    };
    if config.bucket.is_some() {
        return Err(UpkeepError::Refused(
            "a backup holds its files and restores them into a folder; leave blob_url unset".to_owned(),
        ));
    }
    if database.exists() {
        return Err(UpkeepError::Refused(format!(
            "{} exists and is not overwritten; name a new folder with --data-dir",
            database.display()
        )));
    }
    let wanted = Look::sqlite(&from.join(DATABASE)).await?.blobs().await?;
    let carrier = Carrier::open(&from.join(BLOBS), &config.blob_dir()).map_err(UpkeepError::at(from))?;
    let done = carry(&carrier, &wanted, progress)?;
    for name in KEYS {
        let key = from.join(name);
        if key.is_file() {
            copy(&key, &config.data_dir.join(name))?;
        }
    }
    let new = database.with_extension("restored");
    copy(&from.join(DATABASE), &new)?;
    fs::rename(&new, database).map_err(UpkeepError::at(database))?;
    Ok((manifest, done))
}

fn manifest(from: &Path) -> Result<Manifest, UpkeepError> {
    let path = from.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| {
        let detail = "is no complete backup: it has no manifest; back up again";
        UpkeepError::Refused(format!(
            "{} {detail} ({}: {error})",
            from.display(),
            path.display()
        ))
    })?;
    let damaged = |error| UpkeepError::Refused(format!("{}: {error}", path.display()));
    let manifest: Manifest = serde_json::from_slice(&text).map_err(damaged)?;
    if manifest.version != 1 {
        return Err(UpkeepError::Refused(format!(
            "{} has layout {}, this version reads 1",
            path.display(),
            manifest.version
        )));
    }
    Ok(manifest)
}
