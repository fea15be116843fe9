//! The client that holds to the policy.
//!
//! Owns: its settings; what of an answer is read.
//! Must not know: what is sent.
//! Invariant: names are resolved by the policy alone, proxies and redirects are nobody's business but ours, and no more
//! of an answer is read than was asked for.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};

use super::policy::{Policy, Refused};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The policy does not allow it.
    #[error("the URL {0}")]
    Refused(#[from] Refused),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Slow(Duration),
    /// No connection, or it broke.
    #[error("{0}")]
    Broken(String),
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// How long the other side asks to wait.
    pub retry_after: Option<Duration>,
    /// The first bytes of its body, as text.
    pub body: String,
}

/// The way out.
#[derive(Debug, Clone)]
pub struct Outbound {
    policy: Arc<Policy>,
    client: Client,
}

#[derive(Debug)]
struct Names(Arc<Policy>);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let admitted = policy.resolve(name.as_str()).await?;
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

impl Outbound {
    /// A client under this policy.
    pub fn new(policy: Policy) -> Result<Self, Failed> {
        let policy = Arc::new(policy);
        let builder = || {
            Client::builder()
                .user_agent(concat!("modelpress/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .connect_timeout(CONNECT)
                .dns_resolver(Arc::new(Names(policy.clone())))
        };
        let client = builder().build().or_else(|error| {
            tracing::warn!(%error, "no root certificates on this machine: https:// will reach nobody");
            builder().tls_certs_only([]).build()
        });
        Ok(Self {
            client: client.map_err(|error| broken(&error))?,
            policy,
        })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Asks for something; answers when its head is there.
    pub async fn get(
        &self,
        url: &Url,
        headers: &[(&'static str, String)],
        limit: Duration,
    ) -> Result<Incoming, Failed> {
        self.policy.check_url(url)?;
        let request = self.client.get(url.clone()).headers(map_of(headers)?);
        match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(Incoming(response)),
            Ok(Err(error)) => Err(broken(&error)),
            Err(_elapsed) => Err(Failed::Slow(limit)),
        }
    }

    /// Posts JSON; reads at most `keep` bytes of what comes back.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: String,
        limit: Duration,
        keep: usize,
    ) -> Result<Answer, Failed> {
        let url = self.policy.check(url)?;
        let mut all = map_of(headers)?;
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let work = async {
            let request = self.client.post(url).headers(all).body(body);
            let response = request.send().await.map_err(|error| broken(&error))?;
            let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
            Ok(Answer {
                status,
                retry_after,
                body: first_bytes(response, keep).await,
            })
        };
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_elapsed) => Err(Failed::Slow(limit)),
        }
    }
}

/// What is coming back: its head is here, its body on the way.
#[derive(Debug)]
pub struct Incoming(Response);

impl Incoming {
    /// Its status.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// A header, if it is there and plain text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// How long the other side asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(self.0.headers())
    }

    /// The whole body, which must be small.
    pub async fn text(mut self, most: usize, limit: Duration) -> Result<String, Failed> {
        let work = async {
            let mut read = Vec::new();
            while let Some(chunk) = self.0.chunk().await.map_err(|error| broken(&error))? {
                if read.len() + chunk.len() > most {
                    return Err(Failed::Broken(format!("the answer has more than {most} bytes")));
                }
                read.extend_from_slice(&chunk);
            }
            String::from_utf8(read).map_err(|_e| Failed::Broken("the answer is not UTF-8".to_owned()))
        };
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_elapsed) => Err(Failed::Slow(limit)),
        }
    }

    /// The body, piece by piece.
    pub fn body(self) -> BoxStream<'static, io::Result<Bytes>> {
        let pieces = self.0.bytes_stream();
        pieces.map_err(|error| io::Error::other(broken(&error))).boxed()
    }
}

/// What was read of a body, also when the rest does not come.
async fn first_bytes(mut response: Response, keep: usize) -> String {
    let mut read = Vec::new();
    while read.len() < keep
        && let Ok(Some(chunk)) = response.chunk().await
    {
        read.extend_from_slice(&chunk[..chunk.len().min(keep - read.len())]);
    }
    // PostgreSQL keeps no NUL in text.
    String::from_utf8_lossy(&read).replace('\0', "\u{fffd}")
}

fn map_of(headers: &[(&'static str, String)]) -> Result<HeaderMap, Failed> {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        let mut value = HeaderValue::from_str(value).map_err(|error| Failed::Broken(error.to_string()))?;
        value.set_sensitive(*name == "authorization");
        all.insert(HeaderName::from_static(name), value);
    }
    Ok(all)
}

/// `Retry-After` in seconds; a date would need both clocks to agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The refusal inside an error, if that is what it is; else its causes in a line.
fn broken(error: &reqwest::Error) -> Failed {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return Failed::Refused(refused.clone());
        }
        let said = inner.to_string();
        if !text.contains(&said) {
            text = if text.is_empty() {
                said
            } else {
                format!("{text}: {said}")
            };
        }
        cause = inner.source();
    }
    if text.is_empty() {
        text = error.to_string();
    }
    Failed::Broken(text)
}
