//! Everything in modelpress with a clock, a socket or a row.

pub mod blobs;
pub mod config;
pub mod domain;
pub mod http;
pub mod store;
pub mod telemetry;
