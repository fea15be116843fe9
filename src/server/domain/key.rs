//! API keys: who may do what, for which tenant.
//!
//! Owns: the key's text, what of it is kept, scopes, when a key is good.
//! Must not know: headers, rows.
//! Invariant: only a digest of a secret is kept; a key that is revoked or has run out is never good again.
//!
//! The text is `mp_<id>_<secret><checksum>`: the prefix lets scanners find lost keys, the checksum tells a typing
//! mistake from a stranger without asking the database.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::hex;
use super::{KeyId, Tenant};

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident $word:literal;)*) => {
        /// What a key may do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Scope { $($(#[$doc])* $name,)* }

        impl Scope {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word used everywhere.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }

        impl FromStr for Scope {
            type Err = ScopeError;

            fn from_str(text: &str) -> Result<Self, ScopeError> {
                match text { $($word => Ok(Self::$name),)* _ => Err(ScopeError) }
            }
        }
    };
}

scopes! {
    /// Everything of the tenant, keys included.
    Admin "admin";
    /// See and download artifacts.
    ReadArtifacts "artifacts:read";
    /// See datasets.
    ReadDatasets "datasets:read";
    /// Make and delete datasets.
    WriteDatasets "datasets:write";
    /// See jobs, their events and reports.
    ReadJobs "jobs:read";
    /// Make and cancel jobs.
    WriteJobs "jobs:write";
    /// See models, plan recipes on them.
    ReadModels "models:read";
    /// Make and delete models.
    WriteModels "models:write";
    /// Bring files.
    WriteUploads "uploads:write";
    /// See webhooks and what was sent to them.
    ReadWebhooks "webhooks:read";
    /// Make, change, test and delete webhooks.
    WriteWebhooks "webhooks:write";
}

/// The text is no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a scope")]
pub struct ScopeError;

impl Scope {
    /// Several, in words.
    pub fn words(scopes: &[Self], between: &str) -> String {
        let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        words.join(between)
    }

    /// Who has this may also do that: writing includes reading, admin everything.
    pub fn covers(self, other: Self) -> bool {
        let noun = |scope: Self| scope.as_str().split_once(':');
        match (noun(self), noun(other)) {
            (None, _) => true,
            (Some((mine, verb)), Some((asked, _))) if mine == asked => self == other || verb == "write",
            _ => false,
        }
    }
}

/// A key as it is kept: without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// Whose things it opens.
    pub tenant: Tenant,
    /// What the user calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// SHA-256 of its secret, lower-case hexadecimal.
    pub secret_digest: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it runs out.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

impl ApiKey {
    /// Whether the key opens anything at `now`.
    pub fn is_good(&self, now: OffsetDateTime) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether the key may do this.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|own| own.covers(scope))
    }

    /// Whether this is its secret; takes the same time whatever the answer.
    pub fn is_opened_by(&self, secret: &Secret) -> bool {
        let digest = secret.digest();
        bool::from(digest.as_bytes().ct_eq(self.secret_digest.as_bytes()))
    }
}

/// What a new key is for.
#[derive(Debug)]
pub struct Asked {
    /// Whose things it opens.
    pub tenant: Tenant,
    /// What the user calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it runs out.
    pub expires_at: Option<OffsetDateTime>,
}

/// A new key, and its text, which is kept nowhere.
pub fn issue(asked: Asked, id: Uuid, secret: [u8; 32], now: OffsetDateTime) -> (ApiKey, String) {
    let (id, secret) = (KeyId::from_uuid(id), Secret(secret));
    let key = ApiKey {
        id,
        tenant: asked.tenant,
        name: asked.name,
        scopes: asked.scopes,
        secret_digest: secret.digest(),
        created_at: now,
        expires_at: asked.expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    (key, secret.token(id))
}

/// A secret: 256 random bits. High entropy, so that one round of SHA-256 is enough to keep it by.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    /// Of random bytes.
    pub fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What is kept of it.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.0))
    }

    /// The key's text, shown once.
    pub fn token(&self, id: KeyId) -> String {
        let id = id.to_string();
        let bare = id.strip_prefix(KeyId::PREFIX).unwrap_or(&id);
        let text = format!("{PREFIX}{bare}_{}", hex(&self.0));
        let checksum = checksum(&text);
        text + &checksum
    }
}

const PREFIX: &str = "mp_";

/// The text is no key: a typing mistake, or something else altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is mp_<id>_<secret>, as it was shown when it was made")]
pub struct TokenError;

/// Reads a key's text.
pub fn read_token(text: &str) -> Result<(KeyId, Secret), TokenError> {
    let read = || {
        let (start, sum) = text.split_at_checked(text.len().checked_sub(8)?)?;
        let (id, secret) = start.strip_prefix(PREFIX)?.split_once('_')?;
        if sum != checksum(start) {
            return None;
        }
        let id = format!("{}{id}", KeyId::PREFIX).parse().ok()?;
        Some((id, Secret(unhex(secret)?)))
    };
    read().ok_or(TokenError)
}

fn checksum(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

/// 32 bytes of lower-case hexadecimal.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let lower = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if digits.len() != 64 || !digits.iter().all(lower) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::Duration;

    fn key(secret: &Secret) -> ApiKey {
        let asked = Asked {
            tenant: Tenant::default(),
            name: "test".into(),
            scopes: vec![Scope::WriteJobs, Scope::ReadModels],
            expires_at: None,
        };
        issue(asked, Uuid::now_v7(), secret.0, OffsetDateTime::UNIX_EPOCH).0
    }

    #[test]
    fn only_the_secret_opens_it() {
        let secret = Secret::of([7; 32]);
        let key = key(&secret);
        let (id, read) = read_token(&secret.token(key.id)).expect("its own text");
        assert_eq!(id, key.id);
        assert!(key.is_opened_by(&read) && !key.is_opened_by(&Secret::of([8; 32])));
        assert!(
            !format!("{secret:?} {key:?}").contains("0707"),
            "a secret is never shown"
        );
    }

    #[test]
    fn writing_includes_reading_and_admin_everything() {
        let key = key(&Secret::of([1; 32]));
        for (scope, may) in [
            (Scope::WriteJobs, true),
            (Scope::ReadJobs, true),
            (Scope::ReadModels, true),
            (Scope::WriteModels, false),
            (Scope::ReadArtifacts, false),
            (Scope::Admin, false),
        ] {
            assert_eq!(key.may(scope), may, "{}", scope.as_str());
        }
        for scope in Scope::ALL {
            assert!(Scope::Admin.covers(*scope));
            assert_eq!(scope.as_str().parse(), Ok(*scope));
        }
    }

    #[test]
    fn a_key_ends() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(1);
        let plain = key(&Secret::of([1; 32]));
        let until = |at| ApiKey {
            expires_at: Some(at),
            ..plain.clone()
        };
        assert!(plain.is_good(now) && until(now + Duration::SECOND).is_good(now) && !until(now).is_good(now));
        let revoked = ApiKey {
            revoked_at: Some(now),
            ..plain
        };
        assert!(!revoked.is_good(now));
    }

    proptest! {
        /// One wrong character anywhere is noticed without asking anybody.
        #[test]
        fn a_mistyped_key_is_no_key(at in 0usize..108, to in "[0-9a-z_]") {
            let token = Secret::of([0x5a; 32]).token(KeyId::from_uuid(Uuid::nil()));
            let mut wrong = token.clone();
            wrong.replace_range(at..=at, &to);
            prop_assert_eq!(read_token(&wrong).is_ok(), wrong == token);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,120}") {
            let _either = read_token(&text);
        }
    }
}
