//! Content-addressed bytes: what goes in is found again by its SHA-256.
//!
//! Owns: the folder layout, resumable intake, durable publication, reading ranges.
//! Must not know: models, jobs, HTTP, SQL.
//! Invariant: a file under `blobs/` is complete, durable and has the digest that is its name.

pub mod carry;
mod checksum;
mod direct;
mod intake;
mod layout;
pub mod local;
mod partial;
mod shelf;
pub mod sweep;
mod turns;
mod uploads;

pub use local::LocalBlobs;

#[cfg(test)]
mod tests;
