//! Models brought from elsewhere: listed, chosen from, fetched into uploads that go on where they broke off.
//!
//! Owns: how each kind of source is spoken to, which files are a model's, the loop that brings them.
//! Must not know: SQL, routes, which addresses may be reached (`outbound`), where bytes are kept; of `blobs` only how a
//! bucket is reached.
//! Invariant: no byte is asked for before its size has found room; a token goes to the source's own host only; what
//! arrived is never fetched again, whatever broke.

mod bring;
mod bucket;
mod choose;
mod fetch;
mod hub;
mod origin;
mod run;
mod web;

pub use run::{Bounds, Puller};

use std::fmt;
use std::time::Duration;

use crate::domain::Failure;
use crate::domain::pull::Place;

/// What a pull needs to know of the world.
#[derive(Clone)]
pub struct Sources {
    /// The hub of `hf://`.
    pub hub: String,
    /// What opens it where a request brings no token of its own.
    pub hub_token: Option<String>,
    /// What else models may come from, and how buckets are reached.
    pub allowed: Vec<Place>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sources({})", self.hub)
    }
}

/// Why a pull does not go on.
#[derive(Debug)]
enum Stop {
    /// It never will.
    Over(Failure),
    /// It may, after a wait; the source may have said how long.
    Later(String, Option<Duration>),
    /// It is no longer ours: deleted, or in other hands, or this process ends.
    Ended,
}

impl Stop {
    fn over(code: &str, message: impl Into<String>) -> Self {
        Self::Over(Failure {
            code: code.to_owned(),
            message: message.into(),
        })
    }

    fn later(why: impl std::fmt::Display) -> Self {
        Self::Later(why.to_string(), None)
    }
}
