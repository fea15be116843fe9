//! The program as a supervisor and a person at a terminal see it: signals, exit codes, kill -9.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/chaos.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/collector.rs"]
mod collector;
#[expect(dead_code, reason = "tokenizers are for tests that read text")]
#[path = "support/llama.rs"]
mod llama;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/schema.rs"]
mod schema;
#[path = "support/mod.rs"]
mod support;

#[path = "process/abuse.rs"]
mod abuse;
#[path = "process/backup.rs"]
mod backup;
#[path = "process/commands.rs"]
mod commands;
#[path = "process/crash.rs"]
mod crash;
#[path = "process/decoding.rs"]
mod decoding;
#[path = "process/doctor.rs"]
mod doctor;
#[path = "process/going_on.rs"]
mod going_on;
#[path = "process/isolation.rs"]
mod isolation;
#[path = "process/metrics.rs"]
mod metrics;
#[path = "process/serve.rs"]
mod serve;
#[path = "process/server.rs"]
mod server;
#[path = "process/several.rs"]
mod several;
#[path = "process/tls.rs"]
mod tls;
#[path = "process/traces.rs"]
mod traces;
