//! One answer of a source: redirects by hand, tokens at home, statuses in words.
//!
//! Owns: how a URL is asked for.
//! Must not know: what the answer is for.
//! Invariant: every hop is checked by the way out; the token is sent to the source's own scheme, host and port only.

use std::fmt;
use std::time::Duration;

use super::Stop;
use crate::outbound::{Failed, Incoming, Outbound, Url};

/// Redirects that are followed.
const HOPS: usize = 8;
/// How long the head of an answer may take.
const HEAD: Duration = Duration::from_secs(30);

/// A source's host, and how it is asked.
pub(super) struct Way {
    pub(super) outbound: Outbound,
    /// Where the token may go.
    pub(super) home: Url,
    pub(super) token: Option<String>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({})", place(&self.home))
    }
}

/// An answer, and what was said of the file on the way to it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) incoming: Incoming,
    /// `X-Linked-ETag` of a hub: the SHA-256 of a large file.
    pub(super) linked_etag: Option<String>,
}

impl Way {
    /// What a URL leads to, from a byte on.
    pub(super) async fn get(&self, url: &Url, from: u64) -> Result<Found, Stop> {
        let (mut url, mut linked_etag) = (url.clone(), None);
        for _ in 0..HOPS {
            let incoming = self.ask(&url, from).await?;
            let etag = incoming.header("x-linked-etag").map(str::to_owned);
            linked_etag = linked_etag.or(etag);
            let next = match incoming.status() {
                200 | 206 => {
                    return Ok(Found {
                        incoming,
                        linked_etag,
                    });
                }
                301 | 302 | 303 | 307 | 308 => incoming.header("location"),
                _ => return Err(self.refusal(&url, &incoming)),
            };
            let next = next.and_then(|next| url.join(next).ok());
            url = next.ok_or_else(|| {
                Stop::over("source_broken", format!("{} redirects to nowhere", place(&url)))
            })?;
        }
        Err(Stop::over(
            "source_broken",
            format!("more than {HOPS} redirects, the last to {}", place(&url)),
        ))
    }

    async fn ask(&self, url: &Url, from: u64) -> Result<Incoming, Stop> {
        let mut headers = vec![("accept-encoding", "identity".to_owned())];
        if from > 0 {
            headers.push(("range", format!("bytes={from}-")));
        }
        if let Some(token) = self.token.as_ref().filter(|_| is_same_origin(&self.home, url)) {
            headers.push(("authorization", format!("Bearer {token}")));
        }
        self.outbound
            .get(url, &headers, HEAD)
            .await
            .map_err(|failed| match failed {
                Failed::Refused(refused) => Stop::over(
                    "source_not_allowed",
                    format!("the source leads to {}, which {refused}", place(url)),
                ),
                other => Stop::later(format!("{}: {other}", place(url))),
            })
    }

    /// What a status means for a pull.
    fn refusal(&self, url: &Url, incoming: &Incoming) -> Stop {
        let (status, place) = (incoming.status(), place(url));
        let said = incoming.header("x-error-message").map_or(String::new(), |said| {
            format!(
                " ({})",
                said.chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect::<String>()
            )
        });
        match status {
            401 | 403 => {
                let way = if self.token.is_some() {
                    "the token does not open it, or its terms were not accepted there"
                } else {
                    "it is not there, or private, or asks that its terms are accepted: accept them there and send token"
                };
                Stop::over(
                    "source_forbidden",
                    format!("{place} answers {status}{said}: {way}"),
                )
            }
            404 | 410 => Stop::over("source_not_found", format!("{place} answers {status}{said}")),
            408 | 425 | 429 | 500..600 => {
                Stop::Later(format!("{place} answers {status}{said}"), incoming.retry_after())
            }
            _ => Stop::over("source_broken", format!("{place} answers {status}{said}")),
        }
    }
}

fn is_same_origin(a: &Url, b: &Url) -> bool {
    let parts = |url: &Url| {
        (
            url.scheme().to_owned(),
            url.host_str().map(str::to_owned),
            url.port_or_known_default(),
        )
    };
    parts(a) == parts(b)
}

/// A URL for people: without its query, which may be a signature.
pub(super) fn place(url: &Url) -> String {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    format!(
        "{}://{}{port}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.path()
    )
}
