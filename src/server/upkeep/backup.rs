//! Backing up: the database at one moment, and every blob that it refers to.
//!
//! Owns: the order, so that what a backup refers to is in it.
//! Must not know: how a snapshot is made.
//! Invariant: without its manifest a folder is no backup, and the manifest comes last. Backing up into the same folder
//! again copies what is new.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{BLOBS, DATABASE, Done, KEYS, MANIFEST, Manifest, Progress, UpkeepError, copy};
use crate::blobs::carry::{Carried, Carrier};
use crate::config::{Config, Database};
use crate::domain::ports::BlobError;
use crate::store::look::Look;
use crate::store::sqlite;

/// Snapshots that are tried: what one refers to may be deleted before it is copied.
const TRIES: u32 = 3;

/// Backs a data folder up, also while a server runs on it.
pub async fn backup(
    config: &Config,
    out: &Path,
    now: OffsetDateTime,
    progress: Progress<'_>,
) -> Result<Done, UpkeepError> {
    let database = database(config)?;
    prepare(out)?;
    let carrier = Carrier::open(&config.blob_dir(), &out.join(BLOBS)).map_err(UpkeepError::at(out))?;
    let new = out.join("modelpress.db.new");
    let mut tries = 0;
    loop {
        remove(&new)?;
        sqlite::snapshot(database, &new).await?;
        let wanted = Look::sqlite(&new).await?.blobs().await?;
        match carry(&carrier, &wanted, progress) {
            Ok(done) => {
                finish(config, out, &new, &carrier, &wanted, done, now)?;
                return Ok(done);
            }
            Err(UpkeepError::Blob(_, BlobError::NotFound)) if tries + 1 < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn database(config: &Config) -> Result<&Path, UpkeepError> {
    if let Some(bucket) = &config.bucket {
        return Err(UpkeepError::Refused(format!(
            "files are in {bucket}: back up the rows (pg_dump, or a copy of the SQLite file made with sqlite3's .backup) \
             first, and let the bucket keep old versions, or replicate it, for as long as those copies are kept"
        )));
    }
    match &config.database {
        Database::Sqlite(path) if path.is_file() => Ok(path),
        Database::Sqlite(path) => Err(UpkeepError::Refused(format!(
            "there is no database at {}; name the data folder of the server with --data-dir",
            path.display()
        ))),
        Database::Postgres(_) => Err(UpkeepError::Refused(format!(
            "rows are in PostgreSQL: back them up with pg_dump first, then copy the folder {} (blobs never change, \
             and a copy made later holds all that the dump refers to, but for what was deleted in between)",
            config.blob_dir().display()
        ))),
    }
}

/// A new or empty folder, or one that was a backup before.
fn prepare(out: &Path) -> Result<(), UpkeepError> {
    let fail = || UpkeepError::at(out);
    if !out.exists() {
        let mut builder = fs::DirBuilder::new();
        return builder.recursive(true).mode(0o700).create(out).map_err(fail());
    }
    let names: Vec<_> = fs::read_dir(out).map_err(fail())?.flatten().collect();
    let known =
        |name: &str| [MANIFEST, DATABASE, "modelpress.db.new", BLOBS].contains(&name) || KEYS.contains(&name);
    match names
        .iter()
        .find(|entry| !entry.file_name().to_str().is_some_and(known))
    {
        None => Ok(()),
        Some(strange) => Err(UpkeepError::Refused(format!(
            "{} holds {}, so it is no backup; name a new folder, an empty one, or an earlier backup",
            out.display(),
            strange.file_name().display()
        ))),
    }
}

/// Brings every blob over.
pub(super) fn carry(
    carrier: &Carrier,
    wanted: &[(String, u64)],
    progress: Progress<'_>,
) -> Result<Done, UpkeepError> {
    let all = wanted.iter().map(|(_, bytes)| bytes).sum();
    let mut done = Done {
        blobs: wanted.len() as u64,
        bytes: all,
        ..Done::default()
    };
    let mut so_far = 0;
    for (digest, bytes) in wanted {
        let carried = carrier.carry(digest);
        match carried.map_err(|error| UpkeepError::Blob(digest.clone(), error))? {
            Carried::Copied(bytes) => done.copied += bytes,
            Carried::Known => {}
            Carried::Outside => done.outside += 1,
        }
        so_far += bytes;
        progress(so_far, all);
    }
    Ok(done)
}

fn finish(
    config: &Config,
    out: &Path,
    new: &Path,
    carrier: &Carrier,
    wanted: &[(String, u64)],
    done: Done,
    now: OffsetDateTime,
) -> Result<(), UpkeepError> {
    let fail = || UpkeepError::at(out);
    for name in KEYS {
        let key = config.data_dir.join(name);
        if key.is_file() {
            copy(&key, &out.join(name))?;
        }
    }
    let manifest = Manifest {
        version: 1,
        modelpress: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: now.format(&Rfc3339).unwrap_or_default(),
        blobs: done.blobs,
        bytes: done.bytes,
    };
    // From here until the new one is written the folder is no backup: database and manifest belong together.
    remove(&out.join(MANIFEST))?;
    fs::rename(new, out.join(DATABASE)).map_err(fail())?;
    let wanted: HashSet<&str> = wanted.iter().map(|(digest, _)| digest.as_str()).collect();
    carrier.drop_others(&wanted).map_err(fail())?;
    let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    let path = out.join(MANIFEST);
    fs::write(&path, text).map_err(fail())?;
    let sync = |path: &Path| fs::File::open(path)?.sync_all();
    sync(&path).and_then(|()| sync(out)).map_err(fail())?;
    // Monitoring looks at its age. A data folder that cannot be written can be backed up all the same.
    if let Err(error) = fs::write(config.backup_stamp(), manifest.created_at) {
        tracing::warn!(%error, "the server will not know that there is a backup");
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), UpkeepError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(UpkeepError::at(path)(error)),
        _ => Ok(()),
    }
}
