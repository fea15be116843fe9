//! Tenants: whose things they are.
//!
//! Owns: the form of a tenant's name.
//! Must not know: keys, rows.
//! Invariant: a name is a short lower-case word, so it may stand in a log, a path and a metric's text as it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Whose models, datasets, uploads and jobs they are. Nobody sees another tenant's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Arc<str>);

/// Longest name.
const MAX_BYTES: usize = 63;

/// The text is no tenant's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tenant's name has 1 to 63 of a-z, 0-9 and -, and begins with a letter or digit")]
pub struct TenantError;

impl Default for Tenant {
    /// Whose things are where no key says otherwise.
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tenant {
    type Err = TenantError;

    fn from_str(text: &str) -> Result<Self, TenantError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(plain);
        if fits && !text.starts_with('-') {
            Ok(Self(Arc::from(text)))
        } else {
            Err(TenantError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words() {
        for name in ["default", "a", "team-2", "0x"] {
            assert_eq!(name.parse::<Tenant>().map(|t| t.to_string()), Ok(name.to_owned()));
        }
        let long = "x".repeat(64);
        for name in ["", "-a", "A", "a b", "a/b", "a:b", "a_b", "ä", &long] {
            assert_eq!(name.parse::<Tenant>(), Err(TenantError), "{name:?}");
        }
    }
}
