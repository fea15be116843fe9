//! Looking whether a server is well, or could be.
//!
//! Owns: the list of examinations, what each finding means and how to mend it.
//! Must not know: how to repair anything.
//! Invariant: nothing is changed, and every finding that is not fine names a fix.

use std::net::TcpListener;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use time::OffsetDateTime;

use crate::blobs::carry::missing;
use crate::config::{Config, Database};
use crate::domain::ports::StoreError;
use crate::store::look::Look;
use crate::telemetry::usage::machine_memory_bytes;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// Well.
    Fine,
    /// It works, and may not for long or not for all.
    Warning,
    /// It does not work.
    Broken,
}

/// What an examination found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it is.
    pub grade: Grade,
    /// What was seen.
    pub detail: String,
    /// How to mend it.
    pub fix: String,
}

impl Finding {
    pub(super) fn fine(subject: &'static str, detail: impl Into<String>) -> Self {
        Self::new(subject, Grade::Fine, detail, "")
    }

    pub(super) fn new(
        subject: &'static str,
        grade: Grade,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            subject,
            grade,
            detail: detail.into(),
            fix: fix.into(),
        }
    }
}

/// Clocks may differ by this much.
pub(super) const SKEW_MILLIS: i64 = 2_000;
/// Files a process needs besides its connections.
const FILES: u64 = 256;
/// Lost blobs that are named.
pub(super) const NAMED: usize = 3;

/// Examines everything that a configuration names.
pub async fn examine(config: &Config, now: OffsetDateTime) -> Vec<Finding> {
    let mut findings = vec![disk(config), limits(config), memory(config), address(config)];
    // What the database refers to, if it can be asked.
    let mut wanted = None;
    match look(config).await {
        Ok(Some(mut look)) => match database(config, &mut look, now).await {
            Ok((more, referred)) => {
                findings.extend(more);
                wanted = referred;
            }
            Err(error) => findings.push(unreachable(config, &error)),
        },
        Ok(None) => {
            findings.push(Finding::fine(
                "database",
                "not made yet; the first start makes it",
            ));
            findings.extend(keys(config, 0));
        }
        Err(error) => findings.push(unreachable(config, &error)),
    }
    match (&config.bucket, wanted) {
        (Some(bucket), wanted) => {
            findings.extend(super::bucket::examine(bucket, wanted.as_deref(), now).await);
        }
        (None, Some(wanted)) => findings.push(blobs(config, &wanted)),
        (None, None) => {}
    }
    findings
}

fn disk(config: &Config) -> Finding {
    const SUBJECT: &str = "data folder";
    let (folder, reserve) = (&config.data_dir, config.limits.reserve_bytes);
    let shown = folder.display();
    // What does not exist yet is made where its parent is.
    let mut there: &Path = folder;
    while !there.exists() {
        there = there
            .parent()
            .filter(|up| !up.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
    }
    let probe = there.join(format!(".modelpress-doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    if let Err(error) = written {
        let fix = format!("let the user that runs modelpress write to {}", there.display());
        return Finding::new(
            SUBJECT,
            Grade::Broken,
            format!("{shown} cannot be written: {error}"),
            fix,
        );
    }
    match fs4::available_space(there) {
        Ok(free) if free < reserve => Finding::new(
            SUBJECT,
            Grade::Broken,
            format!(
                "{shown} has {free} bytes free, fewer than reserve_bytes ({reserve}): uploads are refused with 507"
            ),
            "delete old jobs and models, or give the folder a larger disk",
        ),
        Ok(free) if free < 10 * reserve => Finding::new(
            SUBJECT,
            Grade::Warning,
            format!("{shown} has {free} bytes free; below reserve_bytes ({reserve}) uploads are refused"),
            "lower keep_succeeded_days, or give the folder a larger disk",
        ),
        Ok(free) => Finding::fine(
            SUBJECT,
            format!("{shown} can be written and has {free} bytes free"),
        ),
        Err(error) => Finding::new(
            SUBJECT,
            Grade::Warning,
            format!("{shown}: its free space cannot be read: {error}"),
            "put the folder on a local disk",
        ),
    }
}

fn limits(config: &Config) -> Finding {
    const SUBJECT: &str = "open files";
    let need = config.limits.connections as u64 + FILES;
    match getrlimit(Resource::Nofile).current {
        Some(most) if most < need => Finding::new(
            SUBJECT,
            Grade::Warning,
            format!(
                "{most} may be open, {need} may be needed for max_connections {}",
                config.limits.connections
            ),
            format!("ulimit -n {need} (systemd: LimitNOFILE={need}), or lower max_connections"),
        ),
        Some(most) => Finding::fine(SUBJECT, format!("{most} may be open, {need} may be needed")),
        None => Finding::fine(SUBJECT, "as many as it takes"),
    }
}

fn memory(config: &Config) -> Finding {
    const SUBJECT: &str = "memory";
    let (planned, machine) = (config.workers.memory_bytes, machine_memory_bytes());
    let detail = format!(
        "{} workers may plan for {planned} bytes together, of the machine's {machine}",
        config.workers.count
    );
    if config.workers.count > 0 && planned > machine {
        let fix = format!("set worker_memory_bytes to {} or less", machine / 4 * 3);
        return Finding::new(SUBJECT, Grade::Warning, detail, fix);
    }
    Finding::fine(SUBJECT, detail)
}

fn address(config: &Config) -> Finding {
    const SUBJECT: &str = "address";
    match TcpListener::bind(config.listen) {
        Ok(_) => Finding::fine(
            SUBJECT,
            format!("{} is free: no server runs on it", config.listen),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::fine(
            SUBJECT,
            format!(
                "{} is in use; whether by a server that is ready, `modelpress healthcheck` says",
                config.listen
            ),
        ),
        Err(error) => Finding::new(
            SUBJECT,
            Grade::Broken,
            format!("{}: {error}", config.listen),
            "set listen to an address of this machine and a port that its user may open",
        ),
    }
}

async fn look(config: &Config) -> Result<Option<Look>, StoreError> {
    match &config.database {
        Database::Sqlite(path) if !path.exists() => Ok(None),
        Database::Sqlite(path) => Look::sqlite(path).await.map(Some),
        Database::Postgres(url) => Look::postgres(url).await.map(Some),
    }
}

fn unreachable(config: &Config, error: &StoreError) -> Finding {
    let detail = format!("{:?}: {error}", config.database);
    let fix = match config.database {
        Database::Sqlite(_) => "if the file is damaged, restore a backup: modelpress restore",
        Database::Postgres(_) => {
            "check database_url, and that the server is up and lets this machine and user in"
        }
    };
    Finding::new("database", Grade::Broken, detail, fix)
}

/// Digests and sizes of blobs.
type Wanted = Vec<(String, u64)>;

/// What is to be said of the database, and what it refers to.
async fn database(
    config: &Config,
    look: &mut Look,
    now: OffsetDateTime,
) -> Result<(Vec<Finding>, Option<Wanted>), StoreError> {
    let only = |grade, detail, fix| {
        let finding = Finding::new("database", grade, detail, fix);
        Ok((vec![finding], None))
    };
    let damage = look.damage().await?;
    if let Some(first) = damage.first() {
        let detail = format!("{:?} is damaged: {first}", config.database);
        let fix = "stop the server and restore a backup: modelpress restore";
        return only(Grade::Broken, detail, fix);
    }
    let (found, needed) = look.schema().await?;
    let detail = format!(
        "{:?} has schema {found}, this program needs {needed}",
        config.database
    );
    if found > needed {
        let fix = "use the modelpress that wrote it, or a newer one";
        return only(Grade::Broken, detail, fix);
    }
    if found < needed {
        let fix = "the next start brings it up to date; or beforehand: modelpress migrate";
        return only(Grade::Warning, detail, fix);
    }
    let mut findings = vec![Finding::fine("database", detail)];
    findings.extend(clock(look.clock_millis().await?, now));
    findings.extend(keys(config, look.good_keys(now).await?));
    Ok((findings, Some(look.blobs().await?)))
}

fn clock(database: Option<i64>, now: OffsetDateTime) -> Option<Finding> {
    let here = (now.unix_timestamp_nanos() / 1_000_000) as i64;
    let apart = database? - here;
    let detail = format!("the database's clock is {apart} ms from this machine's");
    if apart.abs() > SKEW_MILLIS {
        let fix = "keep both by NTP: leases go by the database's clock, expiries by this one";
        return Some(Finding::new("clock", Grade::Warning, detail, fix));
    }
    Some(Finding::fine("clock", detail))
}

fn blobs(config: &Config, wanted: &[(String, u64)]) -> Finding {
    const SUBJECT: &str = "files";
    let folder = config.blob_dir();
    match missing(&folder, wanted) {
        Ok(lost) if lost.is_empty() => Finding::fine(SUBJECT, format!("all {} are there", wanted.len())),
        Ok(lost) => Finding::new(
            SUBJECT,
            Grade::Broken,
            format!(
                "{} of {} are missing or of another size in {}, first {}",
                lost.len(),
                wanted.len(),
                folder.display(),
                lost.iter()
                    .take(NAMED)
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            "copy them back from a backup's folder store/blobs, or delete the models and jobs that have them",
        ),
        Err(error) => Finding::new(
            SUBJECT,
            Grade::Broken,
            format!("{}: {error}", folder.display()),
            "let the user that runs modelpress read and write the folder",
        ),
    }
}

fn keys(config: &Config, good: i64) -> Option<Finding> {
    const SUBJECT: &str = "keys";
    if config.keys_required {
        if good == 0 {
            let detail = format!(
                "the API on {} asks for keys and there is none that is good",
                config.listen
            );
            return Some(Finding::new(
                SUBJECT,
                Grade::Broken,
                detail,
                "modelpress keys create --name admin",
            ));
        }
        return Some(Finding::fine(SUBJECT, format!("{good} are good")));
    }
    if config.listen.ip().is_loopback() {
        return None;
    }
    let detail = format!(
        "anybody who reaches {} may do everything: auth is off",
        config.listen
    );
    Some(Finding::new(
        SUBJECT,
        Grade::Warning,
        detail,
        "set auth = \"required\" and make keys",
    ))
}
