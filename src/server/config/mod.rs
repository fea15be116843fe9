//! Configuration: a TOML file, `MODELPRESS_…` variables and flags become one validated struct.
//!
//! Owns: every setting's name, default and check. Flags win over variables, variables over the file.
//! Must not know: what the settings switch on; no I/O beyond reading the file.
//! Invariant: a [`Config`] that exists is usable, and printing it never shows a secret.

mod check;
mod effective;
mod layers;
mod ratio;
mod settings;
mod size;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use ratio::Ratio;
pub use settings::{Auth, Settings};
pub use size::ByteSize;

use crate::child::Host;
use crate::domain::bucket::Bucket;
use crate::domain::pull::Place;
use crate::domain::queue::Retention;
use crate::outbound::Allow;
use crate::telemetry::{Collector, LogFormat};

/// The key that artifacts are signed with, in a data folder.
pub const SIGNING_KEY: &str = "signing.key";

/// Where jobs, models and artifacts are recorded.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// One file under the data directory.
    Sqlite(PathBuf),
    /// A PostgreSQL server; the URL may hold a password.
    Postgres(String),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => write!(f, "{}", redact_url(url)),
        }
    }
}

/// Bounds on what a client may send.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest JSON request body.
    pub body_bytes: u64,
    /// Largest single file.
    pub file_bytes: u64,
    /// Most files in one model.
    pub model_files: usize,
    /// Free disk space that uploads must leave.
    pub reserve_bytes: u64,
    /// Total time of an ordinary request.
    pub request: Duration,
    /// Longest silence inside an upload.
    pub idle: Duration,
    /// Least speed of an upload over as long a time; 0 is none.
    pub upload_bytes_per_second: u64,
    /// Time to send the request head.
    pub header: Duration,
    /// Open connections at once.
    pub connections: usize,
    /// Open event streams at once.
    pub streams: usize,
    /// Jobs waiting before new ones are turned away.
    pub queued_jobs: u64,
    /// What one tenant may have.
    pub tenant: Quotas,
    /// What one key may ask for.
    pub key: Rates,
    /// Memory above which a plan is refused; none on a server whose workers are elsewhere and unknown.
    pub plan_memory_bytes: Option<u64>,
    /// Age at which an unfinished upload is deleted.
    pub upload_age: Duration,
}

/// What one tenant may have; no bound where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quotas {
    /// Bytes stored.
    pub bytes: Option<u64>,
    /// Jobs that wait.
    pub queued_jobs: Option<u64>,
    /// Jobs that run, on all nodes.
    pub running_jobs: Option<u64>,
}

/// How often one key may ask; no bound where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Requests a minute.
    pub requests: Option<NonZeroU32>,
    /// New jobs an hour.
    pub jobs: Option<NonZeroU32>,
}

/// Where models may be brought from.
#[derive(Clone)]
pub struct Pulls {
    /// The hub of `hf://`.
    pub hub: String,
    /// What opens it where a request brings no token.
    pub hub_token: Option<String>,
    /// What else.
    pub allowed: Vec<Place>,
    /// Files of one model that are fetched at once.
    pub connections: usize,
}

impl fmt::Debug for Pulls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulls")
            .field("hub", &self.hub)
            .field("hub_token", &self.hub_token.as_ref().map(|_| "***"))
            .field("allowed", &self.allowed)
            .field("connections", &self.connections)
            .finish()
    }
}

/// In-process compression workers.
#[derive(Debug, Clone)]
pub struct Workers {
    /// Jobs run at once; 0 leaves the work to `modelpress worker` processes.
    pub count: usize,
    /// Compute threads a job may use.
    pub threads: usize,
    /// What models run on, as the engine names it.
    pub device: String,
    /// Program that times how fast artifacts decode.
    pub decode_command: Option<PathBuf>,
    /// Memory that all jobs at once may plan for.
    pub memory_bytes: u64,
    /// Lease time: a worker silent for this long loses its job.
    pub lease: Duration,
    /// How often what a job has so far is made available to other machines; never where there are none.
    pub checkpoint: Option<Duration>,
}

/// The validated whole.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder for the database file, the blobs, scratch space.
    pub data_dir: PathBuf,
    /// The database.
    pub database: Database,
    /// Where files are kept, if not in the data folder.
    pub bucket: Option<Bucket>,
    /// Most bytes of the bucket's files that are kept on this machine.
    pub blob_cache_bytes: u64,
    /// Address of the API.
    pub listen: SocketAddr,
    /// Whether the API asks for a key.
    pub keys_required: bool,
    /// Separate address of `/metrics`, if any.
    pub metrics_listen: Option<SocketAddr>,
    /// Key that signs page cursors; one is made and kept in the data directory when unset.
    pub cursor_secret: Option<String>,
    /// File with the key that artifacts are signed with; one is made and kept in the data directory when unset.
    pub signing_key: Option<PathBuf>,
    /// Server-side folders that `source_path` may name, canonical.
    pub allowed_model_paths: Vec<PathBuf>,
    /// Places inside the operator's own network that requests of users may lead to.
    pub outbound_allowed: Vec<Allow>,
    /// Where models may be brought from.
    pub pulls: Pulls,
    /// Request bounds.
    pub limits: Limits,
    /// In-process workers.
    pub workers: Workers,
    /// Who starts the processes that read uploaded files and execute plans.
    pub children: Host,
    /// How long jobs are kept.
    pub retention: Retention,
    /// Time that running requests get at shutdown.
    pub drain: Duration,
    /// Log line format.
    pub log_format: LogFormat,
    /// `tracing` filter directives.
    pub log_filter: String,
    /// Where traces go.
    pub traces: Collector,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("config: {key}: {reason}")]
pub struct ConfigError {
    /// The setting, or the file's name.
    pub key: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl ConfigError {
    fn new(key: &str, reason: impl fmt::Display) -> Self {
        Self {
            key: key.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl Config {
    /// Reads the file (if any), lays variables and flags over it, fills defaults and checks the result.
    pub fn load(file: Option<&Path>, flags: Settings) -> Result<Self, ConfigError> {
        let from_file = match file {
            Some(path) => Settings::from_file(path)?,
            None => Settings::default(),
        };
        flags.or(from_file).validate()
    }

    /// The key that artifacts are signed with.
    pub fn signing_key(&self) -> PathBuf {
        let own = || self.data_dir.join(SIGNING_KEY);
        self.signing_key.clone().unwrap_or_else(own)
    }

    /// Where blobs live.
    pub fn blob_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// Where files of the object store are brought.
    pub fn cache_dir(&self) -> PathBuf {
        self.data_dir.join("cache")
    }

    /// Written whenever a backup of the data folder has ended well: its age is the backup's.
    pub fn backup_stamp(&self) -> PathBuf {
        self.data_dir.join("last-backup")
    }

    /// Where running stages keep their files.
    pub fn scratch_dir(&self) -> PathBuf {
        self.data_dir.join("scratch")
    }
}

/// Hides the password of a URL, and everything when the text is no URL.
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(a, _)| (a, "?***"));
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user, |(name, _)| name);
            format!("{scheme}://{user}:***@{host}{query}")
        }
        None => format!("{scheme}://{rest}{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_need_nothing() {
        let config = Config::load(None, Settings::default()).expect("defaults are valid");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(
            config.database,
            Database::Sqlite("./modelpress-data/modelpress.db".into())
        );
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("m.toml");
        std::fs::write(&file, "listen = \"0.0.0.0:1\"\nlog_filter = \"debug\"\n").expect("write");
        let flags = Settings {
            listen: Some("127.0.0.1:2".into()),
            ..Settings::default()
        };
        let config = Config::load(Some(&file), flags).expect("valid");
        assert_eq!(config.listen.to_string(), "127.0.0.1:2");
        assert_eq!(config.log_filter, "debug");
    }

    #[test]
    fn unknown_and_wrong_settings_are_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("m.toml");
        std::fs::write(&file, "listn = \"0.0.0.0:1\"\n").expect("write");
        let error = Config::load(Some(&file), Settings::default()).expect_err("unknown key");
        assert!(error.to_string().contains("listn"), "{error}");
        let flags = Settings {
            lease_seconds: Some(1),
            ..Settings::default()
        };
        assert_eq!(
            Config::load(None, flags).expect_err("too short").key,
            "lease_seconds"
        );
    }

    #[test]
    fn plans_are_held_to_the_memory_of_workers_that_are_known() {
        let limit = |workers, memory: Option<u64>| {
            let settings = Settings {
                workers: Some(workers),
                worker_memory_bytes: memory.map(ByteSize),
                ..Settings::default()
            };
            let config = Config::load(None, settings).expect("valid");
            (config.limits.plan_memory_bytes, config.workers.memory_bytes)
        };
        let (here, machine) = limit(1, None);
        assert_eq!(here, Some(machine));
        assert_eq!(limit(1, Some(5)), (Some(5), 5));
        assert_eq!(limit(0, Some(5)), (Some(5), 5));
        assert_eq!(limit(0, None), (None, machine));
        assert_eq!(limit(0, Some(0)), (None, machine));
    }

    #[test]
    fn the_example_file_states_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/modelpress.example.toml");
        let example = Config::load(Some(&path), Settings::default()).expect("example is valid");
        let defaults = Config::load(None, Settings::default()).expect("defaults are valid");
        assert_eq!(format!("{example:?}"), format!("{defaults:?}"));
    }

    #[test]
    fn what_prints_reads_back_the_same() {
        for workers in [0, 1] {
            let settings = Settings {
                workers: Some(workers),
                ..Settings::default()
            };
            let config = Config::load(None, settings).expect("valid");
            let text = toml::to_string(&Settings::of(&config)).expect("prints");
            let again = toml::from_str::<Settings>(&text)
                .expect("reads")
                .validate()
                .expect("valid");
            assert_eq!(format!("{again:?}"), format!("{config:?}"));
        }
    }

    #[test]
    fn passwords_do_not_print() {
        assert_eq!(
            redact_url("postgres://me:s3c@ret@db:5432/x"),
            "postgres://me:***@db:5432/x"
        );
        assert_eq!(redact_url("postgres://db/x?password=p"), "postgres://db/x?***");
        assert_eq!(redact_url("garbage"), "***");
    }
}
