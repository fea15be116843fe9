//! The client that holds to the policy.
//!
//! Owns: its settings; what of an answer is read.
//! Must not know: what is sent.
//! Invariant: names are resolved by the policy alone, proxies and redirects are nobody's business but ours, and no more
//! of an answer is read than was asked for.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, redirect};

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
        let mut all = HeaderMap::new();
        all.insert(
            reqwest::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|error| Failed::Broken(error.to_string()))?;
            all.insert(HeaderName::from_static(name), value);
        }
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
