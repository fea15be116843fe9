//! The audit log: who changed what.
//!
//! Owns: an entry.
//! Must not know: how changes are made.
//! Invariant: entries are only added, and dropped when they are old enough.

use time::OffsetDateTime;

use super::{EntryId, KeyId};

/// One change by one caller, or by the server itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// The key that was shown; none where none is asked for, and for what the server did by itself.
    pub key: Option<KeyId>,
    /// Method and route, as in the reference; a word such as `webhook.disabled` for what the server did by itself.
    pub action: String,
    /// What it was done to, or what it made.
    pub object: Option<String>,
    /// The request's id, as in the log; or what moved the server.
    pub request_id: String,
    /// The address that the request came from.
    pub client: Option<String>,
    /// When.
    pub at: OffsetDateTime,
}
