//! Webhooks on their way: what is due is signed, posted, and what came of it is written down.
//!
//! Owns: the signature, the loop that sends.
//! Must not know: SQL, which addresses may be reached (`outbound`), when a message is tried again (`domain::webhook`).
//! Invariant: a message is in one sender's hands at a time; one whose sender died is sent again, with the same id.

mod send;
pub mod sign;

pub use send::Sender;
