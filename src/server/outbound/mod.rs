//! The way out: the one HTTP client that goes where a user says.
//!
//! Owns: which hosts and addresses may be reached, the client that holds to it.
//! Must not know: who is called and why.
//! Invariant: no connection is made to an address that the policy does not admit, whatever a URL, a name server or an
//! answer says: every address is looked at right before it is connected to, and no redirect is followed by itself.

mod address;
pub mod client;
pub mod policy;

pub use client::{Answer, Failed, Incoming, Outbound};
pub use policy::{Allow, Policy, Refused};
pub use reqwest::Url;
