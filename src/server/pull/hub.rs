//! Repositories of a hub.
//!
//! Owns: the hub's paths and the form of its answers.
//! Must not know: which files are wanted, where bytes go.
//! Invariant: a revision is made a commit once, and every file is asked for at that commit.

use std::time::Duration;

use serde::Deserialize;

use super::Stop;
use super::choose::Listed;
use super::fetch::{Found, Way, place};
use crate::outbound::Url;

/// Most bytes of a listing, and how long it may take.
const LISTING: (usize, Duration) = (32 << 20, Duration::from_mins(1));

/// A repository.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) way: Way,
    pub(super) repository: String,
}

#[derive(Debug, Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    oid: Option<String>,
    size: Option<u64>,
}

impl Hub {
    /// The commit of a revision, and its files.
    pub(super) async fn list(&self, revision: &str) -> Result<(String, Vec<Listed>), Stop> {
        let path = ["api", "models"].into_iter().chain(self.repository.split('/'));
        let mut url = self.url(path.chain(["revision", revision]))?;
        url.set_query(Some("blobs=true"));
        let found = self.way.get(&url, 0).await?;
        let text = found.incoming.text(LISTING.0, LISTING.1).await;
        let text = text.map_err(|failed| Stop::later(format!("{}: {failed}", place(&url))))?;
        let broken = |why: String| Stop::over("source_broken", format!("{}: {why}", place(&url)));
        let info: Info = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        if !(40..=64).contains(&info.sha.len()) || !info.sha.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(broken("the revision has no commit".to_owned()));
        }
        let files = info.siblings.into_iter().map(|file| {
            let lfs = file.lfs.as_ref();
            let bytes = lfs.and_then(|lfs| lfs.size).or(file.size);
            Ok(Listed {
                bytes: bytes.ok_or_else(|| broken(format!("{} has no size", file.rfilename)))?,
                sha256: lfs
                    .and_then(|lfs| lfs.sha256.as_deref().or(lfs.oid.as_deref()))
                    .and_then(sha256),
                origin: file.rfilename.clone(),
                name: file.rfilename,
            })
        });
        Ok((info.sha, files.collect::<Result<_, Stop>>()?))
    }

    /// A file at a commit, from a byte on.
    pub(super) async fn open(&self, commit: &str, name: &str, from: u64) -> Result<Found, Stop> {
        let path = self.repository.split('/').chain(["resolve", commit]);
        self.way.get(&self.url(path.chain(name.split('/')))?, from).await
    }

    /// A path of the hub; each part is escaped, so that a revision with a slash stays one.
    fn url<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Result<Url, Stop> {
        let mut url = self.way.home.clone();
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(parts),
            Err(()) => return Err(Stop::over("source_broken", "hub_endpoint is no URL with a path")),
        };
        Ok(url)
    }
}

/// A SHA-256 in the forms that hubs write it: bare, quoted, or with its name before it.
pub(super) fn sha256(text: &str) -> Option<String> {
    let bare = text
        .trim()
        .trim_start_matches("W/")
        .trim_matches('"')
        .trim_start_matches("sha256:");
    let fits = bare.len() == 64 && bare.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| bare.to_ascii_lowercase())
}
