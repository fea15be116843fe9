//! Where an object store is: `s3://bucket/prefix?endpoint=…&allow_http=true`.
//!
//! Owns: reading the address, and showing it without its secrets.
//! Must not know: how the store is talked to; environment variables.
//! Invariant: printing an address never shows a secret, and what prints reads back the same but for secrets.

use std::fmt;
use std::str::FromStr;

/// A bucket of an S3-compatible object store, and how it is reached. What is not said here comes from the usual
/// `AWS_…` variables.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What the key of every object begins with; no slash at either end.
    pub prefix: String,
    /// Another service than Amazon's.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// Who asks.
    pub access_key_id: Option<String>,
    /// The secret of who asks.
    pub secret_access_key: Option<String>,
    /// The bucket's name stands in the host name instead of the path.
    pub virtual_host: Option<bool>,
    /// The service may be asked without TLS.
    pub allow_http: Option<bool>,
}

impl FromStr for Bucket {
    type Err = String;

    fn from_str(address: &str) -> Result<Self, String> {
        let rest = address
            .strip_prefix("s3://")
            .ok_or("must start with s3://, for example s3://bucket/prefix")?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        if name.is_empty() || name.contains(['@', ':']) {
            return Err(
                "names no bucket; write s3://bucket/prefix, and a server as ?endpoint=https://host:port"
                    .into(),
            );
        }
        let mut bucket = Self {
            name: name.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            ..Self::default()
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            bucket.set(key, decoded(value).ok_or("holds a broken %-sequence")?)?;
        }
        bucket.checked()
    }
}

impl Bucket {
    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        match key {
            "endpoint" => self.endpoint = Some(value),
            "region" => self.region = Some(value),
            "access_key_id" => self.access_key_id = Some(value),
            "secret_access_key" => self.secret_access_key = Some(value),
            "virtual_host" => self.virtual_host = Some(truth(key, &value)?),
            "allow_http" => self.allow_http = Some(truth(key, &value)?),
            _ => {
                return Err(format!(
                    "does not know {key:?}; there are endpoint, region, access_key_id, secret_access_key, virtual_host \
                     and allow_http"
                ));
            }
        }
        Ok(())
    }

    fn checked(self) -> Result<Self, String> {
        let endpoint = self.endpoint.as_deref().unwrap_or("https://");
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(format!(
                "endpoint {endpoint:?} must start with https:// or http://"
            ));
        }
        if endpoint.starts_with("http://") && self.allow_http != Some(true) {
            return Err("endpoint is without TLS; add allow_http=true if that is meant".into());
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            return Err("access_key_id and secret_access_key go together".into());
        }
        Ok(self)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "s3://{}{slash}{}", self.name, self.prefix)?;
        let word = |truth: Option<bool>| truth.map(|truth| truth.to_string());
        let pairs = [
            ("endpoint", self.endpoint.clone()),
            ("region", self.region.clone()),
            (
                "access_key_id",
                self.access_key_id.as_ref().map(|_| "***".to_owned()),
            ),
            (
                "secret_access_key",
                self.secret_access_key.as_ref().map(|_| "***".to_owned()),
            ),
            ("virtual_host", word(self.virtual_host)),
            ("allow_http", word(self.allow_http)),
        ];
        let said = pairs.into_iter().filter_map(|(key, value)| Some((key, value?)));
        for (number, (key, value)) in said.enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            write!(f, "{mark}{key}={}", value.replace('%', "%25").replace('&', "%26"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn truth(key: &str, value: &str) -> Result<bool, String> {
    value
        .parse()
        .map_err(|_e| format!("{key}={value}: must be true or false"))
}

/// Text with its %-sequences replaced by what they stand for.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_shown_without_secrets() {
        let text = "s3://models/team/a/?endpoint=http://127.0.0.1:9000&access_key_id=AK&secret_access_key=a%2Fb%26c&allow_http=true";
        let bucket: Bucket = text.parse().expect("an address");
        assert_eq!(
            (bucket.name.as_str(), bucket.prefix.as_str()),
            ("models", "team/a")
        );
        assert_eq!(bucket.secret_access_key.as_deref(), Some("a/b&c"));
        let shown = format!("{bucket:?}");
        assert_eq!(
            shown,
            "s3://models/team/a?endpoint=http://127.0.0.1:9000&access_key_id=***&secret_access_key=***&allow_http=true"
        );
        assert_eq!(shown.parse::<Bucket>().expect("reads back").to_string(), shown);
        assert_eq!(
            "s3://models".parse::<Bucket>().expect("enough").to_string(),
            "s3://models"
        );
    }

    #[test]
    fn what_would_not_work_is_refused_with_the_fix() {
        for (address, fix) in [
            ("gs://b", "s3://"),
            ("s3://", "s3://bucket/prefix"),
            ("s3://key:secret@host/b", "endpoint="),
            ("s3://b?endpoint=http://h", "allow_http=true"),
            ("s3://b?endpoint=h:9000", "https://"),
            ("s3://b?access_key_id=a", "secret_access_key"),
            ("s3://b?allow_http=yes", "true or false"),
            ("s3://b?endpont=x", "endpoint"),
            ("s3://b?region=%4", "%-sequence"),
        ] {
            let error = address.parse::<Bucket>().expect_err(address);
            assert!(error.contains(fix), "{address}: {error}");
        }
    }
}
