//! Models that are brought from elsewhere: from a hub, from a web server, from a bucket.
//!
//! Owns: what a source is in words, how far a pull is and what it came to, the ports [`Pulls`] and [`Inspector`].
//! Must not know: sockets, rows, how a source is spoken to.
//! Invariant: a source's text holds no secret; a pull that is over never begins again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::bucket::Bucket;
use super::ports::{Commit, Reply};
use super::{Failure, FileRef, ModelId, Tenant, UploadId};

/// Longest text of a source.
const MAX_BYTES: usize = 1000;

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A repository of a hub: `hf://org/name@revision`.
    Hub {
        /// `org/name`.
        repository: String,
        /// A branch, a tag or a commit.
        revision: String,
    },
    /// A file, or a list of files with their digests, of a web server: `https://host/path`.
    Web {
        /// The URL.
        url: String,
    },
    /// What lies under a prefix in a bucket: `s3://bucket/prefix`.
    Bucket {
        /// Its name.
        name: String,
        /// What keys begin with; no slash at either end.
        prefix: String,
    },
}

/// The text is no source; says what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(&'static str);

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text.len() > MAX_BYTES || text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(SourceError(
                "has at most 1000 bytes and neither blanks nor control characters",
            ));
        }
        if let Some(rest) = text.strip_prefix("hf://") {
            return hub(rest);
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return bucket(rest);
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Self::Web { url: text.to_owned() });
        }
        Err(SourceError(
            "begins with hf:// (hf://org/name@revision), https:// (a file, or a list named SHA256SUMS) or s3:// \
             (s3://bucket/prefix)",
        ))
    }
}

fn hub(rest: &str) -> Result<Source, SourceError> {
    let wrong = SourceError("a repository is hf://org/name or hf://org/name@revision");
    let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_part = |part: &str| {
        (1..=96).contains(&part.len())
            && part.chars().all(plain)
            && !part.starts_with('.')
            && !part.contains("..")
    };
    let parts: Vec<&str> = repository.split('/').collect();
    let fits = |revision: &str| {
        (1..=200).contains(&revision.len())
            && revision.chars().all(|c| plain(c) || c == '/')
            && revision
                .split('/')
                .all(|part| !part.is_empty() && part != "." && part != "..")
    };
    if (1..=2).contains(&parts.len()) && parts.iter().all(|part| is_part(part)) && fits(revision) {
        return Ok(Source::Hub {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
        });
    }
    Err(wrong)
}

fn bucket(rest: &str) -> Result<Source, SourceError> {
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) || rest.contains('?') {
        return Err(SourceError(
            "a bucket is s3://bucket/prefix; how it is reached is the operator's to say",
        ));
    }
    Ok(Source::Bucket {
        name: name.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
    })
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repository, revision } => write!(f, "hf://{repository}@{revision}"),
            Self::Web { url } => f.write_str(url),
            Self::Bucket { name, prefix } if prefix.is_empty() => write!(f, "s3://{name}"),
            Self::Bucket { name, prefix } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

/// Where the operator lets models come from, beside the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// What lies below a URL of a web server.
    Web(String),
    /// What lies below a prefix in a bucket.
    Bucket(Bucket),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Self::Web(text.trim_end_matches('/').to_owned()));
        }
        if text.starts_with("s3://") {
            return text.parse().map(Self::Bucket);
        }
        Err(format!(
            "{text:?} is no place to bring models from; write for example https://files.example.com/models or \
             s3://bucket/models"
        ))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => f.write_str(url),
            Self::Bucket(bucket) => write!(f, "{bucket}"),
        }
    }
}

impl Place {
    /// Whether a source lies there.
    pub fn holds(&self, source: &Source) -> bool {
        match (self, source) {
            (Self::Web(place), Source::Web { url }) => {
                let below = url.strip_prefix(place.as_str());
                // A path that climbs would leave the place after it was looked at.
                let climbs = url.to_ascii_lowercase().replace("%2e", ".").contains("/..");
                !climbs && !url.contains('\\') && below.is_some_and(|rest| rest.starts_with('/'))
            }
            (Self::Bucket(place), Source::Bucket { name, prefix }) => {
                let below = prefix.strip_prefix(place.prefix.as_str());
                let inside = |rest: &str| place.prefix.is_empty() || rest.is_empty() || rest.starts_with('/');
                *name == place.name && below.is_some_and(inside)
            }
            _ => false,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct NewPull {
    /// Where from.
    pub source: Source,
    /// Which of its files; the usual ones, if none is named. A `*` stands for anything.
    pub include: Vec<String>,
    /// What opens it, sealed.
    pub token: Option<String>,
}

/// Where a pull stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullState {
    /// Under way, or waiting to go on.
    Active,
    /// All is there.
    Done,
    /// It will not be tried again.
    Failed,
}

impl PullState {
    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for PullState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Active, Self::Done, Self::Failed];
        all.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// A pull as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Where from, as it was asked for.
    pub source: String,
    /// What the revision turned out to be.
    pub revision: Option<String>,
    /// Where it stands.
    pub state: PullState,
    /// Files and bytes that are brought; zero until they are known.
    pub files: u64,
    /// Those that are there.
    pub files_done: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Those that are there.
    pub bytes_done: u64,
    /// What it waits for, after something went wrong that may pass.
    pub note: Option<String>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// One claim of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PullTicket {
    /// The model.
    pub model: ModelId,
    /// The claim's number.
    pub fence: u64,
}

/// A pull in hand.
#[derive(Debug, Clone)]
pub struct PullClaim {
    /// The right to write about it.
    pub ticket: PullTicket,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where from.
    pub source: Source,
    /// Which files.
    pub include: Vec<String>,
    /// What opens it, sealed.
    pub token: Option<String>,
    /// What the revision turned out to be; the files are known then.
    pub revision: Option<String>,
    /// How often it broke off in a row.
    pub failures: u32,
    /// Bytes that were there when it was last looked at.
    pub bytes_done: u64,
}

/// A file that is brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullFile {
    /// Its name in the model.
    pub name: String,
    /// What the source calls it.
    pub origin: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, where the source says it.
    pub sha256: Option<String>,
    /// Where its bytes wait.
    pub upload: UploadId,
    /// It is among the model's files.
    pub done: bool,
}

/// What a failed pull leaves to be removed.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// Uploads whose rows are gone.
    pub uploads: Vec<UploadId>,
    /// Blobs that may have no row any more.
    pub digests: Vec<String>,
}

/// The pulls of all tenants, as those need them who bring files. A call with an old ticket changes nothing and says so.
pub trait Pulls: Send + Sync + std::fmt::Debug {
    /// Takes the next pull that is due and in nobody's hands.
    fn claim_pull(&self, ttl: Duration) -> Reply<'_, Option<PullClaim>>;
    /// Keeps it, and says how far it is.
    fn beat_pull(
        &self,
        ticket: PullTicket,
        ttl: Duration,
        files_done: u64,
        bytes_done: u64,
    ) -> Reply<'_, bool>;
    /// Records what is to be brought, with an upload for each file.
    fn plan_pull<'a>(
        &'a self,
        claim: &'a PullClaim,
        revision: &'a str,
        files: &'a [PullFile],
        expires_at: OffsetDateTime,
    ) -> Reply<'a, bool>;
    /// What is to be brought, by name.
    fn pull_files(&self, model: ModelId) -> Reply<'_, Vec<PullFile>>;
    /// Gives it back, to go on after a wait.
    fn release_pull<'a>(
        &'a self,
        ticket: PullTicket,
        wait: Duration,
        failures: u32,
        note: Option<&'a str>,
    ) -> Reply<'a, bool>;
    /// Ends it; the model keeps nothing but the reason.
    fn fail_pull<'a>(&'a self, claim: &'a PullClaim, failure: &'a Failure) -> Reply<'a, Option<Leftovers>>;
    /// Takes all pulls out of everybody's hands: nobody else works on this database.
    fn free_pulls(&self) -> Reply<'_, ()>;
}

/// Why files are no model, or could not be looked at.
#[derive(Debug, Clone)]
pub enum NotAModel {
    /// Looking again will not help.
    Rejected(Failure),
    /// It may.
    NotNow(String),
}

/// Opens files as a model.
pub trait Inspector: Send + Sync + std::fmt::Debug {
    /// What makes a draft of these files ready.
    fn inspect<'a>(&'a self, files: &'a [FileRef]) -> BoxFuture<'a, Result<Commit, NotAModel>>;
}

/// Whether a name is one of these, in which a `*` stands for anything.
pub fn is_among(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(between) = last.replace(part) {
            let Some((_, behind)) = str::split_once::<&str>(rest, between) else {
                return false;
            };
            rest = behind;
        }
    }
    match last {
        Some(end) => rest.ends_with(end),
        None => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_read_back() {
        for text in [
            "hf://HuggingFaceTB/SmolLM2-135M@main",
            "hf://org/name@refs/pr/1",
            "hf://gpt2@v1.0",
            "https://example.com/model.gguf",
            "s3://bucket/a/b",
            "s3://bucket",
        ] {
            let source: Source = text.parse().expect(text);
            assert_eq!(source.to_string(), text);
        }
        assert_eq!(
            "hf://org/name".parse::<Source>().map(|s| s.to_string()),
            Ok("hf://org/name@main".into())
        );
        for wrong in [
            "",
            "org/name",
            "hf://",
            "hf://a/b/c",
            "hf://../x",
            "hf://a/..",
            "hf://a/b@",
            "hf://a/b@../c",
            "hf://a/b@x y",
            "hf://a/b?x",
            "s3://",
            "s3://b?endpoint=http://169.254.169.254",
            "file:///etc/passwd",
            "ftp://a/b",
        ] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_place_holds_what_lies_below_it() {
        let place: Place = "https://files.example.com/models/".parse().expect("a place");
        assert_eq!(place.to_string(), "https://files.example.com/models");
        for (url, inside) in [
            ("https://files.example.com/models/a.gguf", true),
            ("https://files.example.com/models", false),
            ("https://files.example.com/models-of-others/a", false),
            ("https://files.example.com.evil/models/a", false),
            ("https://files.example.com/models/../secret", false),
            ("https://files.example.com/models/%2E%2e/secret", false),
            ("https://files.example.com/models/..\\secret", false),
            ("http://files.example.com/models/a", false),
        ] {
            let source = url.parse().expect("a source");
            assert_eq!(place.holds(&source), inside, "{url}");
        }
        let whole: Place = "https://a.example".parse().expect("a place");
        assert!(!whole.holds(&"https://a.example@evil/x".parse().expect("a source")));
        assert!(!whole.holds(&"hf://a/b".parse().expect("a source")));
        let bucket: Place = "s3://b/models?region=eu".parse().expect("a place");
        for (url, inside) in [
            ("s3://b/models", true),
            ("s3://b/models/a/b", true),
            ("s3://b/models2", false),
            ("s3://b", false),
            ("s3://c/models", false),
        ] {
            assert_eq!(bucket.holds(&url.parse().expect("a source")), inside, "{url}");
        }
        let all: Place = "s3://b".parse().expect("a place");
        assert!(all.holds(&"s3://b/x".parse().expect("a source")));
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, fits) in [
            ("model.gguf", "model.gguf", true),
            ("model.gguf", "model.gguf2", false),
            ("*.gguf", "a/b.gguf", true),
            ("*Q4*.gguf", "model-Q4_K_M.gguf", true),
            ("*Q4*.gguf", "model-Q5_K_M.gguf", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*", "", true),
            ("**", "x", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(is_among(&[pattern.to_owned()], name), fits, "{pattern} {name}");
        }
    }
}
