//! The program as a supervisor and a person at a terminal see it: signals, exit codes, kill -9.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/mod.rs"]
mod support;

#[path = "process/commands.rs"]
mod commands;
#[path = "process/crash.rs"]
mod crash;
#[path = "process/serve.rs"]
mod serve;
#[path = "process/server.rs"]
mod server;
