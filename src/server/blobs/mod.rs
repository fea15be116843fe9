//! Content-addressed bytes: what goes in is found again by its SHA-256.
//!
//! Owns: two stores, on a local folder and in an object store (`s3/`): resumable intake, durable publication, reading ranges.
//! Must not know: models, jobs, HTTP, SQL.
//! Invariant: what is found under a digest is complete, durable and has that digest.

pub mod carry;
mod checksum;
mod direct;
mod intake;
mod layout;
pub mod local;
mod pace;
mod partial;
mod promised;
pub mod s3;
mod shelf;
pub mod sweep;
mod turns;
mod uploads;

pub use local::LocalBlobs;
pub use s3::S3Blobs;

#[cfg(test)]
mod tests;
