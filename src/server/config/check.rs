//! Checks of single settings.
//!
//! Owns: what each kind of value may be.
//! Must not know: which settings there are.
//! Invariant: an error names the setting and what would be right.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ByteSize, ConfigError, Database};
use crate::domain::bucket::Bucket;
use crate::domain::pull::Place;
use crate::outbound::policy::{Allow, AllowError};

pub(super) fn database(url: Option<&str>, data_dir: &Path) -> Result<Database, ConfigError> {
    match url {
        None | Some("") => Ok(Database::Sqlite(data_dir.join("modelpress.db"))),
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            Ok(Database::Postgres(url.to_owned()))
        }
        Some(url) => match url
            .strip_prefix("sqlite://")
            .or_else(|| url.strip_prefix("sqlite:"))
        {
            Some(path) if !path.is_empty() => Ok(Database::Sqlite(path.into())),
            _ => Err(ConfigError::new(
                "database_url",
                "must start with postgres:// or sqlite:",
            )),
        },
    }
}

pub(super) fn bucket(url: Option<&str>) -> Result<Option<Bucket>, ConfigError> {
    url.filter(|url| !url.is_empty())
        .map(|url| {
            url.parse()
                .map_err(|reason: String| ConfigError::new("blob_url", reason))
        })
        .transpose()
}

pub(super) fn address(key: &str, text: &str) -> Result<std::net::SocketAddr, ConfigError> {
    text.parse().map_err(|_e| {
        ConfigError::new(
            key,
            format!("{text:?} is not an address; write for example 0.0.0.0:8080"),
        )
    })
}

/// An address on the web; an empty one switches off what it is for.
pub(super) fn url(key: &str, text: Option<String>) -> Result<Option<String>, ConfigError> {
    let names_a_host = |text: &str| {
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        rest.is_some_and(|rest| !rest.is_empty())
    };
    match text {
        Some(text) if !text.is_empty() && !names_a_host(&text) => {
            Err(ConfigError::new(key, "must start with http:// or https://"))
        }
        text => Ok(text),
    }
}

/// Canonical roots, so that a later comparison cannot be fooled by a link.
pub(super) fn allowed(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ConfigError> {
    paths
        .iter()
        .map(|path| {
            std::fs::canonicalize(path)
                .map_err(|e| ConfigError::new("allowed_model_paths", format!("{}: {e}", path.display())))
        })
        .collect()
}

pub(super) fn reachable(texts: &[String]) -> Result<Vec<Allow>, ConfigError> {
    let wrong = |error: AllowError| ConfigError::new("outbound_allowed", error);
    texts
        .iter()
        .map(|text| text.trim().parse::<Allow>().map_err(wrong))
        .collect()
}

pub(super) fn places(texts: &[String]) -> Result<Vec<Place>, ConfigError> {
    let wrong = |error: String| ConfigError::new("pull_allowed", error);
    texts
        .iter()
        .map(|text| text.trim().parse::<Place>().map_err(wrong))
        .collect()
}

pub(super) fn hub(url: &str) -> Result<String, ConfigError> {
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    Err(ConfigError::new("hub_endpoint", "must begin with https://"))
}

pub(super) fn seconds(
    key: &str,
    value: Option<u64>,
    default: u64,
    least: u64,
) -> Result<Duration, ConfigError> {
    match value.unwrap_or(default) {
        n if n < least => Err(ConfigError::new(key, format!("must be at least {least}"))),
        n if n > 86_400 => Err(ConfigError::new(key, "must be at most 86400")),
        n => Ok(Duration::from_secs(n)),
    }
}

/// Zero days are for ever.
pub(super) fn days(value: Option<u64>, default: u64) -> Option<Duration> {
    match value.unwrap_or(default) {
        0 => None,
        n => Some(Duration::from_hours(24 * n.min(36_500))),
    }
}

pub(super) fn in_days(kept: Option<Duration>) -> u64 {
    kept.map_or(0, |kept| kept.as_secs() / 86_400)
}

pub(super) fn at_least_one(key: &str, value: Option<usize>, default: usize) -> Result<usize, ConfigError> {
    match value.unwrap_or(default) {
        0 => Err(ConfigError::new(key, "must be at least 1")),
        n => Ok(n),
    }
}

pub(super) fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    }
}

pub(super) fn memory(asked: Option<ByteSize>) -> u64 {
    match asked {
        Some(ByteSize(n)) if n > 0 => n,
        _ => crate::telemetry::usage::machine_memory_bytes() / 4 * 3,
    }
}
