//! Rows: the `Store` and `Queue` ports on SQLite and on PostgreSQL.
//!
//! Owns: statements (one `.sql` file each), transactions, the mapping of rows, migrations.
//! Must not know: HTTP, blobs, the engine; what a plan or a report says.
//! Invariant: whatever is promised together is written in one transaction, and nothing but the database is awaited
//! inside it.
//!
//! The Rust is the same for both databases; what differs is SQL. `sql/` holds statements that both understand,
//! `sqlite/` and `postgres/` those that exist twice under one name. `statement.rs` lists them all.

mod artifacts;
mod audit;
mod bell;
mod checkpoints;
mod claims;
mod datasets;
mod db;
mod endings;
mod events;
mod gather;
mod jobs;
mod keys;
mod live;
pub mod look;
mod migrate;
mod models;
mod outbox;
mod overview;
mod ports;
pub mod postgres;
mod pulls;
mod retention;
mod rows;
mod searches;
pub mod sqlite;
mod statement;
mod uploads;
mod webhooks;

pub use rows::Rows;

/// The schema that this program needs and makes.
pub fn schema_version() -> i64 {
    migrate::CURRENT
}

#[cfg(test)]
pub(crate) mod conformance;
