//! The policy: where a request of a user may lead.
//!
//! Owns: what the operator allows beyond public addresses; the check of a URL and of what a name resolves to.
//! Must not know: HTTP beyond its URLs.
//! Invariant: a name is judged by the addresses it resolves to, all of them before the first is used.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;

use super::address::{contains, is_public};

/// Longest wait for a name server.
const LOOKUP: Duration = Duration::from_secs(10);

/// A place inside the operator's own network that may be reached even so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// A host by its name, whatever that resolves to.
    Host(String),
    /// Addresses that begin with the first `bits` of `base`.
    Net {
        /// First address.
        base: IpAddr,
        /// Bits that count.
        bits: u8,
    },
}

/// The text allows nothing that can be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host name, address or range; write for example receiver.internal, 10.0.0.7 or 10.0.0.0/8"
)]
pub struct AllowError(String);

impl FromStr for Allow {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, AllowError> {
        let wrong = || AllowError(text.to_owned());
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (text, None),
        };
        if let Ok(base) = unbracketed(base).parse::<IpAddr>() {
            let most = if base.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Ok(most), str::parse).map_err(|_e| wrong())?;
            return if bits <= most {
                Ok(Self::Net { base, bits })
            } else {
                Err(wrong())
            };
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if bits.is_some() || text.is_empty() || !text.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Self::Host(text.trim_end_matches('.').to_ascii_lowercase()))
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Net { base, bits } => write!(f, "{base}/{bits}"),
        }
    }
}

/// Why a URL leads nowhere we go. Says nothing about what lies inside the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a URL with a host.
    #[error("is not a URL with a host, such as https://example.com/hook")]
    NotAUrl,
    /// Neither https, nor http to a host that the operator allows.
    #[error(
        "must begin with https:// (http:// only for hosts that the server's setting outbound_allowed names)"
    )]
    Scheme,
    /// A password in a URL ends in logs.
    #[error("holds a user name or password; leave them out")]
    Credentials,
    /// Inside some network.
    #[error(
        "leads to {0}, which is not, or has no address that is, on the public internet; the server's operator can \
         allow it with the setting outbound_allowed"
    )]
    Inside(String),
    /// No address at all.
    #[error("the name {0} does not resolve")]
    Unresolved(String),
}

/// Where requests may lead.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    allowed: Vec<Allow>,
}

impl Policy {
    /// Public addresses, and these.
    pub fn new(allowed: Vec<Allow>) -> Self {
        Self { allowed }
    }

    /// Reads a URL and checks all of it that can be checked without asking a name server.
    pub fn check(&self, text: &str) -> Result<Url, Refused> {
        let url = Url::parse(text).map_err(|_e| Refused::NotAUrl)?;
        self.check_url(&url)?;
        Ok(url)
    }

    /// The same of a URL that was read.
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(Refused::NotAUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        let literal = unbracketed(host).parse::<IpAddr>().ok();
        let plain = match literal {
            Some(address) => self.names_address(address),
            None => self.names_host(host),
        };
        match url.scheme() {
            "https" => {}
            "http" if plain => {}
            _ => return Err(Refused::Scheme),
        }
        match literal {
            Some(address) if !self.admits(address) => Err(Refused::Inside(host.to_owned())),
            _ => Ok(()),
        }
    }

    /// The same, and what its name resolves to. A name that does not resolve now may do so later.
    pub async fn check_and_resolve(&self, text: &str) -> Result<Url, Refused> {
        let url = self.check(text)?;
        let host = url.host_str().unwrap_or_default();
        if unbracketed(host).parse::<IpAddr>().is_ok() {
            return Ok(url);
        }
        match self.resolve(host).await {
            Ok(_) | Err(Refused::Unresolved(_)) => Ok(url),
            Err(refused) => Err(refused),
        }
    }

    /// The addresses of a name that may be connected to; the port is left open.
    pub async fn resolve(&self, host: &str) -> Result<Vec<SocketAddr>, Refused> {
        let unresolved = || Refused::Unresolved(host.to_owned());
        let looked = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, 0))).await;
        let found: Vec<SocketAddr> = match looked {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) | Err(_) => return Err(unresolved()),
        };
        if found.is_empty() {
            return Err(unresolved());
        }
        let by_name = self.names_host(host);
        let admitted: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| by_name || self.admits(address.ip()))
            .collect();
        if admitted.is_empty() {
            return Err(Refused::Inside(host.to_owned()));
        }
        Ok(admitted)
    }

    fn admits(&self, address: IpAddr) -> bool {
        is_public(address) || self.names_address(address)
    }

    fn names_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|allow| match allow {
            Allow::Net { base, bits } => contains(*base, *bits, address),
            Allow::Host(_) => false,
        })
    }

    fn names_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.allowed.iter().any(|allow| match allow {
            Allow::Host(name) => name.eq_ignore_ascii_case(host),
            Allow::Net { .. } => false,
        })
    }
}

/// An address as it stands in a URL, without the brackets that IPv6 has there.
fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str]) -> Policy {
        Policy::new(allowed.iter().map(|text| text.parse().expect(text)).collect())
    }

    #[test]
    fn what_is_allowed_reads_back() {
        for text in ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8", "receiver.internal"] {
            assert_eq!(
                text.parse::<Allow>().map(|allow| allow.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!(
            "127.0.0.1".parse::<Allow>().map(|a| a.to_string()),
            Ok("127.0.0.1/32".into())
        );
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/x",
            "a/8",
            "http://a",
            "a b",
        ] {
            assert!(wrong.parse::<Allow>().is_err(), "{wrong}");
        }
    }

    /// Every spelling of an address that a URL may hold.
    #[test]
    fn literal_addresses_inside_are_refused_in_every_spelling() {
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://017700000001/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[fe80::1]/",
            "https://10.0.0.1:8443/",
            "https://0/",
        ] {
            let refused = policy(&[]).check(url);
            assert!(matches!(refused, Err(Refused::Inside(_))), "{url}: {refused:?}");
        }
        assert!(policy(&[]).check("https://1.1.1.1/").is_ok());
        assert!(policy(&["10.0.0.0/8"]).check("http://10.0.0.1:8443/").is_ok());
        assert!(policy(&["127.0.0.1"]).check("http://[::ffff:127.0.0.1]/").is_ok());
    }

    #[test]
    fn other_urls_are_refused_for_what_they_are() {
        for (url, refused) in [
            ("", Refused::NotAUrl),
            ("/hook", Refused::NotAUrl),
            ("https://", Refused::NotAUrl),
            ("data:text/plain,x", Refused::NotAUrl),
            ("http://example.com/", Refused::Scheme),
            ("ftp://example.com/", Refused::Scheme),
            ("https://me:secret@example.com/", Refused::Credentials),
        ] {
            assert_eq!(policy(&[]).check(url).map(|_| ()), Err(refused), "{url}");
        }
        assert!(policy(&["Example.com"]).check("http://example.com./").is_ok());
    }

    #[tokio::test]
    async fn a_name_is_judged_by_its_addresses() {
        let refused = policy(&[]).check_and_resolve("https://localhost/").await;
        assert_eq!(refused.map(|_| ()), Err(Refused::Inside("localhost".into())));
        for allowed in ["localhost", "127.0.0.0/8"] {
            let mut list = vec![allowed];
            list.push("::1");
            assert!(
                policy(&list)
                    .check_and_resolve("https://localhost/")
                    .await
                    .is_ok(),
                "{allowed}"
            );
        }
        let later = policy(&[]).check_and_resolve("https://nowhere.invalid/").await;
        assert!(later.is_ok(), "{later:?}");
    }
}
