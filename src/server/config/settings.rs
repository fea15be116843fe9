//! The settings as they are written: every one optional, the same names in file, variable and flag.
//!
//! Owns: the list of settings with help text.
//! Must not know: what they mean together (`effective`), how the server uses them.
//! Invariant: a setting that is not written is `None`, never a default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::telemetry::LogFormat;

use super::{ByteSize, ConfigError, Ratio};

/// Whether the API asks for keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Unless only this machine can reach it.
    #[default]
    Auto,
    /// Always.
    Required,
    /// Never.
    Off,
}

impl Auth {
    pub(super) fn asks(self, listen: SocketAddr) -> bool {
        match self {
            Self::Auto => !listen.ip().is_loopback(),
            Self::Required => true,
            Self::Off => false,
        }
    }
}

/// What a file or a command line may say. Each setting is also the variable `MODELPRESS_<NAME>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Folder for the database file, blobs and scratch space [default: ./modelpress-data]
    #[arg(
        long,
        env = "MODELPRESS_DATA_DIR",
        value_name = "DIR",
        help_heading = "Storage"
    )]
    pub data_dir: Option<PathBuf>,
    /// postgres://… to use a PostgreSQL server [default: an SQLite file in the data folder]
    #[arg(
        long,
        env = "MODELPRESS_DATABASE_URL",
        value_name = "URL",
        help_heading = "Storage",
        hide_env_values = true
    )]
    pub database_url: Option<String>,
    /// `s3://bucket/prefix` to keep files in an S3-compatible object store; `?endpoint=…&region=…&access_key_id=…&…` or the
    /// usual `AWS_…` variables say the rest [default: a folder in the data folder]
    #[arg(
        long,
        env = "MODELPRESS_BLOB_URL",
        value_name = "URL",
        help_heading = "Storage",
        hide_env_values = true
    )]
    pub blob_url: Option<String>,
    /// Disk space in the data folder for files of the object store that were needed lately [default: 64GiB]
    #[arg(
        long,
        env = "MODELPRESS_BLOB_CACHE_BYTES",
        value_name = "SIZE",
        help_heading = "Storage"
    )]
    pub blob_cache_bytes: Option<ByteSize>,
    /// Folders on this machine that `source_path` may register models from [default: none]
    #[arg(
        long,
        env = "MODELPRESS_ALLOWED_MODEL_PATHS",
        value_name = "DIR",
        value_delimiter = ',',
        help_heading = "Storage"
    )]
    pub allowed_model_paths: Option<Vec<PathBuf>>,
    /// Free disk space that uploads must leave [default: 1GiB]
    #[arg(
        long,
        env = "MODELPRESS_RESERVE_BYTES",
        value_name = "SIZE",
        help_heading = "Storage"
    )]
    pub reserve_bytes: Option<ByteSize>,

    /// Hosts, addresses and ranges (10.0.0.0/8) inside your own network that webhooks and pulls may reach; others must be on the
    /// public internet [default: none]
    #[arg(
        long,
        env = "MODELPRESS_OUTBOUND_ALLOWED",
        value_name = "HOST",
        value_delimiter = ',',
        help_heading = "Outbound"
    )]
    pub outbound_allowed: Option<Vec<String>>,
    /// Days that messages to webhooks are kept after their end; 0 = for ever [default: 30]
    #[arg(
        long,
        env = "MODELPRESS_KEEP_DELIVERIES_DAYS",
        value_name = "N",
        help_heading = "Outbound"
    )]
    pub keep_deliveries_days: Option<u64>,
    /// The hub that hf:// sources are brought from [default: `https://huggingface.co`]
    #[arg(
        long,
        env = "MODELPRESS_HUB_ENDPOINT",
        value_name = "URL",
        help_heading = "Outbound"
    )]
    pub hub_endpoint: Option<String>,
    /// Token for the hub where a request brings none of its own [default: none]
    #[arg(
        long,
        env = "MODELPRESS_HUB_TOKEN",
        value_name = "TOKEN",
        help_heading = "Outbound",
        hide_env_values = true
    )]
    pub hub_token: Option<String>,
    /// What else models may be brought from: URLs that sources begin with (`https://files.example.com/models`), and buckets
    /// (`s3://bucket/prefix`, with `?endpoint=…` and so on as for `blob_url`) [default: none]
    #[arg(
        long,
        env = "MODELPRESS_PULL_ALLOWED",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Outbound",
        hide_env_values = true
    )]
    pub pull_allowed: Option<Vec<String>>,
    /// Files of one model that are fetched at once [default: 4]
    #[arg(
        long,
        env = "MODELPRESS_PULL_CONNECTIONS",
        value_name = "N",
        help_heading = "Outbound"
    )]
    pub pull_connections: Option<usize>,

    /// Address of the API [default: 127.0.0.1:8080]
    #[arg(long, env = "MODELPRESS_LISTEN", value_name = "ADDR", help_heading = "HTTP")]
    pub listen: Option<String>,
    /// Who may use the API: required = who has a key (`modelpress keys create`), off = everybody; auto asks for keys
    /// unless `listen` is a loopback address [default: auto]
    #[arg(long, env = "MODELPRESS_AUTH", value_enum, help_heading = "HTTP")]
    pub auth: Option<Auth>,
    /// Serve /metrics on this address instead of the API's [default: the API's]
    #[arg(
        long,
        env = "MODELPRESS_METRICS_LISTEN",
        value_name = "ADDR",
        help_heading = "HTTP"
    )]
    pub metrics_listen: Option<String>,
    /// Key that signs page cursors; set the same one on every node [default: made and kept in the data folder]
    #[arg(
        long,
        env = "MODELPRESS_CURSOR_SECRET",
        value_name = "TEXT",
        help_heading = "HTTP",
        hide_env_values = true
    )]
    pub cursor_secret: Option<String>,
    /// Ed25519 key in OpenSSH's form that artifacts are signed with; the same on every node [default: made and kept in
    /// the data folder]
    #[arg(
        long,
        env = "MODELPRESS_SIGNING_KEY",
        value_name = "FILE",
        help_heading = "Storage"
    )]
    pub signing_key: Option<PathBuf>,
    /// Seconds an ordinary request may take [default: 30]
    #[arg(
        long,
        env = "MODELPRESS_REQUEST_TIMEOUT_SECONDS",
        value_name = "N",
        help_heading = "HTTP"
    )]
    pub request_timeout_seconds: Option<u64>,
    /// Seconds an upload may stay silent [default: 60]
    #[arg(
        long,
        env = "MODELPRESS_IDLE_TIMEOUT_SECONDS",
        value_name = "N",
        help_heading = "HTTP"
    )]
    pub idle_timeout_seconds: Option<u64>,
    /// Bytes a second that an upload must reach over that time; 0 = any [default: 500]
    #[arg(
        long,
        env = "MODELPRESS_MIN_UPLOAD_BYTES_PER_SECOND",
        value_name = "N",
        help_heading = "HTTP"
    )]
    pub min_upload_bytes_per_second: Option<u64>,
    /// Seconds a client may take to send its request head [default: 15]
    #[arg(
        long,
        env = "MODELPRESS_HEADER_TIMEOUT_SECONDS",
        value_name = "N",
        help_heading = "HTTP"
    )]
    pub header_timeout_seconds: Option<u64>,
    /// Seconds that running requests get at shutdown [default: 20]
    #[arg(
        long,
        env = "MODELPRESS_DRAIN_SECONDS",
        value_name = "N",
        help_heading = "HTTP"
    )]
    pub drain_seconds: Option<u64>,
    /// Open connections at once [default: 1024]
    #[arg(
        long,
        env = "MODELPRESS_MAX_CONNECTIONS",
        value_name = "N",
        help_heading = "HTTP"
    )]
    pub max_connections: Option<usize>,
    /// Open event streams at once [default: 256]
    #[arg(
        long,
        env = "MODELPRESS_MAX_EVENT_STREAMS",
        value_name = "N",
        help_heading = "HTTP"
    )]
    pub max_event_streams: Option<usize>,

    /// Largest JSON request body [default: 1MiB]
    #[arg(
        long,
        env = "MODELPRESS_MAX_BODY_BYTES",
        value_name = "SIZE",
        help_heading = "Limits"
    )]
    pub max_body_bytes: Option<ByteSize>,
    /// Largest single uploaded file [default: 1TiB]
    #[arg(
        long,
        env = "MODELPRESS_MAX_FILE_BYTES",
        value_name = "SIZE",
        help_heading = "Limits"
    )]
    pub max_file_bytes: Option<ByteSize>,
    /// Most files in one model [default: 2000]
    #[arg(
        long,
        env = "MODELPRESS_MAX_MODEL_FILES",
        value_name = "N",
        help_heading = "Limits"
    )]
    pub max_model_files: Option<usize>,
    /// Jobs that may wait before new ones are turned away with 503 [default: 10000]
    #[arg(
        long,
        env = "MODELPRESS_MAX_QUEUED_JOBS",
        value_name = "N",
        help_heading = "Limits"
    )]
    pub max_queued_jobs: Option<u64>,
    /// Hours after which an unfinished upload is deleted [default: 24]
    #[arg(
        long,
        env = "MODELPRESS_UPLOAD_EXPIRY_HOURS",
        value_name = "N",
        help_heading = "Limits"
    )]
    pub upload_expiry_hours: Option<u64>,

    /// Bytes that one tenant may store; 0 = no bound [default: 0]
    #[arg(
        long,
        env = "MODELPRESS_TENANT_MAX_BYTES",
        value_name = "SIZE",
        help_heading = "Tenants"
    )]
    pub tenant_max_bytes: Option<ByteSize>,
    /// Jobs of one tenant that may wait; 0 = no bound [default: 0]
    #[arg(
        long,
        env = "MODELPRESS_TENANT_MAX_QUEUED_JOBS",
        value_name = "N",
        help_heading = "Tenants"
    )]
    pub tenant_max_queued_jobs: Option<u64>,
    /// Jobs of one tenant that may run at a time, on all nodes; 0 = no bound [default: 0]
    #[arg(
        long,
        env = "MODELPRESS_TENANT_MAX_RUNNING_JOBS",
        value_name = "N",
        help_heading = "Tenants"
    )]
    pub tenant_max_running_jobs: Option<u64>,
    /// Requests a minute that one key may make; 0 = no bound [default: 0]
    #[arg(
        long,
        env = "MODELPRESS_KEY_REQUESTS_PER_MINUTE",
        value_name = "N",
        help_heading = "Tenants"
    )]
    pub key_requests_per_minute: Option<u32>,
    /// New jobs an hour that one key may ask for; 0 = no bound [default: 0]
    #[arg(
        long,
        env = "MODELPRESS_KEY_JOBS_PER_HOUR",
        value_name = "N",
        help_heading = "Tenants"
    )]
    pub key_jobs_per_hour: Option<u32>,

    /// Jobs this process runs at once; 0 = none, use `modelpress worker` [default: 1]
    #[arg(long, env = "MODELPRESS_WORKERS", value_name = "N", help_heading = "Workers")]
    pub workers: Option<usize>,
    /// Compute threads a job may use; 0 = all cores [default: 0]
    #[arg(
        long,
        env = "MODELPRESS_WORKER_THREADS",
        value_name = "N",
        help_heading = "Workers"
    )]
    pub worker_threads: Option<usize>,
    /// What models run on: cpu, cuda, cuda:N or metal; the others need a binary with that feature [default: cpu]
    #[arg(
        long,
        env = "MODELPRESS_WORKER_DEVICE",
        value_name = "DEVICE",
        help_heading = "Workers"
    )]
    pub worker_device: Option<String>,
    /// Program that times how fast artifacts decode: it is given a format and a folder, and writes
    /// `{"decode_tokens_per_second": N, "runtime": "…"}`, or exits with 3 where it knows no engine [default: none]
    #[arg(
        long,
        env = "MODELPRESS_DECODE_COMMAND",
        value_name = "PROGRAM",
        help_heading = "Workers"
    )]
    pub decode_command: Option<PathBuf>,
    /// Memory that the plans of all jobs at once may ask for; what asks for more alone is refused. 0 = three quarters of
    /// the machine's; on a server with `workers` 0, no refusal, so set it to that of the largest worker there [default: 0]
    #[arg(
        long,
        env = "MODELPRESS_WORKER_MEMORY_BYTES",
        value_name = "SIZE",
        help_heading = "Workers"
    )]
    pub worker_memory_bytes: Option<ByteSize>,
    /// Seconds after which a silent worker loses its job, at least 3 [default: 60]
    #[arg(
        long,
        env = "MODELPRESS_LEASE_SECONDS",
        value_name = "N",
        help_heading = "Workers"
    )]
    pub lease_seconds: Option<u64>,
    /// With PostgreSQL: seconds between two checkpoints of a job in the blob store, from which another machine goes on;
    /// 0 = none, it begins again there [default: 60]
    #[arg(
        long,
        env = "MODELPRESS_CHECKPOINT_SECONDS",
        value_name = "N",
        help_heading = "Workers"
    )]
    pub checkpoint_seconds: Option<u64>,

    /// Days that succeeded jobs, with their artifacts, are kept; 0 = for ever [default: 30]
    #[arg(
        long,
        env = "MODELPRESS_KEEP_SUCCEEDED_DAYS",
        value_name = "N",
        help_heading = "Workers"
    )]
    pub keep_succeeded_days: Option<u64>,
    /// Days that failed and cancelled jobs are kept; 0 = for ever [default: 90]
    #[arg(
        long,
        env = "MODELPRESS_KEEP_UNSUCCESSFUL_DAYS",
        value_name = "N",
        help_heading = "Workers"
    )]
    pub keep_unsuccessful_days: Option<u64>,

    /// Days that a model which was never committed is kept; 0 = for ever [default: 7]
    #[arg(
        long,
        env = "MODELPRESS_KEEP_DRAFT_DAYS",
        value_name = "N",
        help_heading = "Limits"
    )]
    pub keep_draft_days: Option<u64>,
    /// Days that entries of the audit log are kept; 0 = for ever [default: 365]
    #[arg(
        long,
        env = "MODELPRESS_KEEP_AUDIT_DAYS",
        value_name = "N",
        help_heading = "Tenants"
    )]
    pub keep_audit_days: Option<u64>,

    /// How log lines look [default: auto]
    #[arg(long, env = "MODELPRESS_LOG_FORMAT", value_enum, help_heading = "Logging")]
    pub log_format: Option<LogFormat>,
    /// What is logged, as tracing directives such as `info` or `modelpress_server=debug` [default: info]
    #[arg(
        long,
        env = "MODELPRESS_LOG_FILTER",
        value_name = "FILTER",
        help_heading = "Logging"
    )]
    pub log_filter: Option<String>,
    /// Send traces by OTLP/HTTP to the collector at this URL, such as `http://127.0.0.1:4318` [default: none, or that
    /// of `OTEL_EXPORTER_OTLP_ENDPOINT`]
    #[arg(
        long,
        env = "MODELPRESS_OTLP_ENDPOINT",
        value_name = "URL",
        help_heading = "Traces"
    )]
    pub otlp_endpoint: Option<String>,
    /// Headers for the collector: name=value, several separated by commas [default: none]
    #[arg(
        long,
        env = "MODELPRESS_OTLP_HEADERS",
        value_name = "TEXT",
        help_heading = "Traces",
        hide_env_values = true
    )]
    pub otlp_headers: Option<String>,
    /// Share of the traces begun here that are sent, 0 to 1 [default: 1]
    #[arg(
        long,
        env = "MODELPRESS_OTLP_SAMPLE_RATIO",
        value_name = "N",
        help_heading = "Traces"
    )]
    pub otlp_sample_ratio: Option<Ratio>,
}

impl Settings {
    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError::new(&name, e))?;
        toml::from_str(&text).map_err(|e| ConfigError::new(&name, e.to_string().trim_end()))
    }
}
