//! Everything in modelpress with a clock, a socket or a row.

pub mod app;
pub mod blobs;
pub mod cli;
pub mod config;
pub mod dashboard;
pub mod domain;
pub mod http;
pub mod queue;
pub mod store;
pub mod telemetry;
pub mod worker;
