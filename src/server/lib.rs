//! Everything in modelpress with a clock, a socket or a row.
//!
//! Owns: the rooms below. Must not know: how a weight is compressed, which is the engine's.
//! Invariant: arrows between rooms are those of `tests/architecture.rs`.
#![doc = ""]
#![doc = include_str!("../README.md")]

pub mod app;
pub mod blobs;
pub mod child;
pub mod cli;
pub mod config;
pub mod dashboard;
pub mod deliver;
pub mod domain;
pub mod http;
pub mod outbound;
pub mod pull;
pub mod queue;
pub mod signing;
pub mod store;
pub mod telemetry;
pub mod upkeep;
pub mod worker;
