//! Who asks, and whether they may.
//!
//! Owns: reading `Authorization`, finding the key, the permission in a handler's signature.
//! Must not know: what a handler does; how keys are kept.
//! Invariant: a handler reaches rows only through a [`Caller`], so only those of the caller's tenant.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, header};
use time::OffsetDateTime;

use super::audit::Actor;
use super::problem::{self, Problem};
use super::rates::{Policy, Told};
use super::state::{AppState, Parts};
use crate::domain::key::read_token;
use crate::domain::ports::{Bounds, Store, StoreError};
use crate::domain::{ApiKey, Hooks, KeyId, Scope, Tenant};

/// How long a key that was read counts as it was: a revocation reaches other nodes within this time.
const REMEMBER: Duration = Duration::from_secs(5);
/// Keys that are remembered at once.
const REMEMBERED: usize = 4096;
/// How exactly the last use of a key is known.
const LAST_USE: Duration = Duration::from_mins(1);

/// Who may enter, and the keys seen lately.
#[derive(Debug)]
pub struct Gate {
    required: bool,
    seen: Mutex<HashMap<KeyId, (OffsetDateTime, Arc<ApiKey>)>>,
}

impl Gate {
    /// A gate that asks everybody for a key, or only looks at those that are shown.
    pub fn new(required: bool) -> Self {
        Self {
            required,
            seen: Mutex::default(),
        }
    }

    /// Forgets a key: it has changed.
    pub fn forget(&self, id: KeyId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<KeyId, (OffsetDateTime, Arc<ApiKey>)>> {
        // Whole entries only: the map is sound whatever panicked.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, id: KeyId, now: OffsetDateTime) -> Option<Arc<ApiKey>> {
        let seen = self.lock();
        let (at, key) = seen.get(&id)?;
        (now - *at < REMEMBER && now >= *at).then(|| key.clone())
    }

    fn remember(&self, key: &Arc<ApiKey>, now: OffsetDateTime) {
        let mut seen = self.lock();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(key.id, (now, key.clone()));
    }
}

/// Who asks: the state, as far as it is theirs.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What belongs to nobody.
    pub app: AppState,
    /// Whose things they see.
    pub tenant: Tenant,
    /// The rows of this tenant.
    pub store: Arc<dyn Store>,
    /// The key that was shown, if one had to be or was.
    pub key: Option<Arc<ApiKey>>,
    told: Option<Told>,
}

impl Deref for Caller {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.app
    }
}

impl Caller {
    async fn of(head: &Head, app: &AppState) -> Result<Self, Problem> {
        let told = head.extensions.get::<Told>();
        let key = match token(&head.headers)? {
            Some(token) => Some(known(&token, app).await?),
            None if app.gate.required => return Err(stranger("send Authorization: Bearer <key>", "")),
            None => None,
        };
        app.rates.admit(Policy::Requests, key.as_deref(), told)?;
        let tenant = key
            .as_ref()
            .map_or_else(Tenant::default, |key| key.tenant.clone());
        Ok(Self {
            told: told.cloned(),
            store: app.stores.of(&tenant),
            app: app.clone(),
            tenant,
            key,
        })
    }

    /// The webhooks of this tenant.
    pub fn hooks(&self) -> Arc<dyn Hooks> {
        self.stores.hooks_of(&self.tenant)
    }

    /// Counts a new job; refuses one too many.
    pub fn ask_for_a_job(&self) -> Result<(), Problem> {
        self.app
            .rates
            .admit(Policy::Jobs, self.key.as_deref(), self.told.as_ref())
    }

    /// Bounds of a file that may reach `max_bytes`, within what the tenant may still store. What is on its way by other
    /// requests is not counted.
    pub async fn bounds(&self, max_bytes: u64, announced: Option<u64>) -> Result<Bounds, Problem> {
        let left = self.check_bytes(announced.unwrap_or(0)).await?;
        Ok(self.app.bounds(max_bytes.min(left), announced))
    }

    /// Refuses bytes for which the tenant has no room left; says how many it has.
    pub async fn check_bytes(&self, more: u64) -> Result<u64, Problem> {
        let Some(most) = self.limits.tenant.bytes else {
            return Ok(u64::MAX);
        };
        let stored = self.store.stored_bytes().await?;
        let left = most.saturating_sub(stored);
        if left == 0 || more > left {
            let detail = format!(
                "tenant {} stores {stored} of the {most} bytes it may; delete models, datasets or uploads to make room",
                self.tenant
            );
            return Err(Problem::new(problem::QUOTA_EXCEEDED, detail).with_code("stored_bytes_exceeded"));
        }
        Ok(left)
    }

    /// Whether the key that let them in still does: for answers that take long.
    pub async fn is_still_let_in(&self) -> bool {
        let Some(key) = &self.key else {
            return true;
        };
        let now = self.app.clock.now();
        let key = of_late(key.id, &self.app, now).await;
        key.is_ok_and(|key| key.is_good(now))
    }

    /// Whether they may do this. Without a key, where none is asked for, everything.
    pub fn may(&self, scope: Scope) -> bool {
        self.key.as_ref().is_none_or(|key| key.may(scope))
    }
}

/// A scope, as a type.
pub trait Permission: Send + Sync + 'static {
    /// It.
    const SCOPE: Scope;
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;
        impl Permission for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )*};
}

permissions! {
    /// `admin`.
    Admin
    /// `artifacts:read`.
    ReadArtifacts
    /// `datasets:read`.
    ReadDatasets
    /// `datasets:write`.
    WriteDatasets
    /// `jobs:read`.
    ReadJobs
    /// `jobs:write`.
    WriteJobs
    /// `models:read`.
    ReadModels
    /// `models:write`.
    WriteModels
    /// `uploads:write`.
    WriteUploads
    /// `webhooks:read`.
    ReadWebhooks
    /// `webhooks:write`.
    WriteWebhooks
}

/// In a handler's signature: a caller who may do this.
#[derive(Debug)]
pub struct May<P>(pub Caller, pub PhantomData<P>);

impl<P: Permission> FromRequestParts<AppState> for May<P> {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, app: &AppState) -> Result<Self, Problem> {
        let caller = Caller::of(head, app).await?;
        if caller.may(P::SCOPE) {
            if let Some(actor) = head.extensions.get::<Actor>() {
                actor.is(&caller);
            }
            return Ok(Self(caller, PhantomData));
        }
        let scope = P::SCOPE.as_str();
        let detail = format!("the key has no scope that includes {scope}");
        let challenge =
            format!("Bearer realm=\"modelpress\", error=\"insufficient_scope\", scope=\"{scope}\"");
        Err(Problem::new(problem::INSUFFICIENT_SCOPE, detail)
            .with_header(header::WWW_AUTHENTICATE, &challenge))
    }
}

/// In a handler's signature: a caller who was let in, whatever they may do.
#[derive(Debug)]
pub struct LetIn(pub Caller);

impl FromRequestParts<AppState> for LetIn {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, app: &AppState) -> Result<Self, Problem> {
        Caller::of(head, app).await.map(Self)
    }
}

/// The token of `Authorization: Bearer`, if the header is there at all.
fn token(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && given.next().is_none() => {
            Ok(Some(token.trim().to_owned()))
        }
        _ => Err(stranger("Authorization is not one Bearer token", INVALID)),
    }
}

const INVALID: &str = ", error=\"invalid_token\"";

/// The key that this text opens.
async fn known(text: &str, app: &AppState) -> Result<Arc<ApiKey>, Problem> {
    let (id, secret) = read_token(text).map_err(|error| stranger(&error.to_string(), INVALID))?;
    let now = app.clock.now();
    let key = of_late(id, app, now).await?;
    // One answer for all: nobody learns which keys there are.
    if key.is_opened_by(&secret) && key.is_good(now) {
        Ok(key)
    } else {
        Err(unknown())
    }
}

/// A key as it was a few seconds ago at most.
async fn of_late(id: KeyId, app: &AppState, now: OffsetDateTime) -> Result<Arc<ApiKey>, Problem> {
    match app.gate.remembered(id, now) {
        Some(key) => Ok(key),
        None => read(id, app, now).await,
    }
}

async fn read(id: KeyId, app: &AppState, now: OffsetDateTime) -> Result<Arc<ApiKey>, Problem> {
    let key = match app.stores.key_of_any(id).await {
        Ok(key) => Arc::new(key),
        Err(StoreError::NotFound) => return Err(unknown()),
        Err(error) => return Err(error.into()),
    };
    app.gate.remember(&key, now);
    if key.is_good(now) && key.last_used_at.is_none_or(|last| now - last >= LAST_USE) {
        // A use that is not noted costs nobody anything.
        if let Err(error) = app.stores.touch_key(id, now).await {
            tracing::debug!(key = %id, %error, "last use of a key not noted");
        }
    }
    Ok(key)
}

fn unknown() -> Problem {
    stranger("the key is unknown, revoked or has run out", INVALID)
}

fn stranger(detail: &str, error: &str) -> Problem {
    let challenge = format!("Bearer realm=\"modelpress\"{error}");
    Problem::new(problem::UNAUTHENTICATED, detail).with_header(header::WWW_AUTHENTICATE, &challenge)
}
