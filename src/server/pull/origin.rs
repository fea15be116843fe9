//! One face for every kind of source.
//!
//! Owns: which kind a source is, where a body begins.
//! Must not know: where bytes go.
//! Invariant: a body begins at the byte that was asked for, also where the source only sends whole files.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::bucket::Bucket;
use super::choose::{Listed, choose};
use super::fetch::{Found, Way};
use super::hub::{self, Hub};
use super::web::Web;
use super::{Sources, Stop};
use crate::domain::pull::{Place, PullFile, Source};
use crate::outbound::{Outbound, Url};

/// A source that can be asked.
#[derive(Debug)]
pub(super) enum Origin {
    Hub(Hub, String),
    Web(Web),
    Bucket(Bucket),
}

/// A body on its way, and what the source says is in the whole file.
pub(super) struct Opened {
    pub(super) body: BoxStream<'static, io::Result<Bytes>>,
    pub(super) sha256: Option<String>,
}

impl Origin {
    /// The source, with the token of the request or else the server's own.
    pub(super) fn of(
        source: &Source,
        sources: &Sources,
        outbound: &Outbound,
        token: Option<String>,
    ) -> Result<Self, Stop> {
        let way = |url: &str, token| {
            let home =
                Url::parse(url).map_err(|_e| Stop::over("source_broken", format!("{url} is no URL")))?;
            let outbound = outbound.clone();
            Ok(Way {
                outbound,
                home,
                token,
            })
        };
        Ok(match source {
            Source::Hub { repository, revision } => {
                let hub = Hub {
                    way: way(&sources.hub, token.or_else(|| sources.hub_token.clone()))?,
                    repository: repository.clone(),
                };
                Self::Hub(hub, revision.clone())
            }
            Source::Web { url } => Self::Web(Web {
                way: way(url, token)?,
            }),
            Source::Bucket { prefix, .. } => {
                let address = sources.allowed.iter().find_map(|place| match place {
                    Place::Bucket(address) if place.holds(source) => Some(address),
                    _ => None,
                });
                let refused = || {
                    Stop::over(
                        "source_not_allowed",
                        format!("{source} is no longer allowed here"),
                    )
                };
                Self::Bucket(Bucket::at(address.ok_or_else(refused)?, prefix)?)
            }
        })
    }

    /// What the source is exactly, and the files of it that are the model.
    pub(super) async fn list(&self, include: &[String], most: usize) -> Result<(String, Vec<Listed>), Stop> {
        let (revision, listed) = match self {
            Self::Hub(hub, revision) => hub.list(revision).await?,
            Self::Web(web) => (String::new(), web.list(most).await?),
            Self::Bucket(bucket) => (String::new(), bucket.list().await?),
        };
        let chosen = choose(listed, include).map_err(Stop::Over)?;
        if chosen.len() > most {
            return Err(Stop::over(
                "too_many_files",
                format!("a model has at most {most} files"),
            ));
        }
        Ok((revision, chosen))
    }

    /// A file from a byte on.
    pub(super) async fn open(&self, revision: &str, file: &PullFile, from: u64) -> Result<Opened, Stop> {
        let found = match self {
            Self::Hub(hub, _) => hub.open(revision, &file.origin, from).await?,
            Self::Web(web) => web.open(&file.origin, from).await?,
            Self::Bucket(bucket) => {
                let part = bucket.open(&file.origin, from).await?;
                if part.bytes != file.bytes {
                    return Err(changed(file, part.bytes));
                }
                return Ok(Opened {
                    body: part.body,
                    sha256: None,
                });
            }
        };
        let sha256 = found.linked_etag.as_deref().and_then(hub::sha256);
        let begins = begins(file, &found, from)?;
        Ok(Opened {
            body: skipped(found.incoming.body(), from - begins),
            sha256,
        })
    }
}

fn changed(file: &PullFile, bytes: u64) -> Stop {
    let message = format!(
        "{} had {} bytes and now has {bytes}; begin again",
        file.name, file.bytes
    );
    Stop::over("source_changed", message)
}

/// Where a body begins; another size than before is another file.
fn begins(file: &PullFile, found: &Found, from: u64) -> Result<u64, Stop> {
    if found.incoming.status() != 206 {
        let length = found
            .incoming
            .header("content-length")
            .and_then(|text| text.parse().ok());
        return match length {
            Some(bytes) if bytes != file.bytes => Err(changed(file, bytes)),
            _ => Ok(0),
        };
    }
    let range = found
        .incoming
        .header("content-range")
        .and_then(|text| text.strip_prefix("bytes "));
    let parts = range.and_then(|range| range.split_once('/'));
    let first = parts.and_then(|(range, _)| range.split_once('-')?.0.parse().ok());
    match (first, parts.and_then(|(_, total)| total.parse().ok())) {
        (_, Some(total)) if total != file.bytes => Err(changed(file, total)),
        (Some(first), _) if first <= from => Ok(first),
        _ => Err(Stop::later(format!(
            "{}: the source sent another part than was asked for",
            file.name
        ))),
    }
}

/// The body without its first bytes.
fn skipped(body: BoxStream<'static, io::Result<Bytes>>, skip: u64) -> BoxStream<'static, io::Result<Bytes>> {
    if skip == 0 {
        return body;
    }
    let step = |(mut body, mut skip): (BoxStream<'static, io::Result<Bytes>>, u64)| async move {
        loop {
            match body.next().await? {
                Ok(mut chunk) => {
                    let drop = skip.min(chunk.len() as u64);
                    skip -= drop;
                    let rest = chunk.split_off(drop as usize);
                    if !rest.is_empty() {
                        return Some((Ok(rest), (body, skip)));
                    }
                }
                Err(error) => return Some((Err(error), (body, skip))),
            }
        }
    };
    stream::unfold((body, skip), step).boxed()
}
