//! What the process says about itself: log lines, metrics, resource usage.
//!
//! Owns: the tracing set-up, every metric's name, reading /proc.
//! Must not know: rooms that report through it.
//! Invariant: labels are bounded sets, never ids; nothing here can fail a request.

mod logs;
pub mod metrics;
pub mod usage;

pub use logs::{LogError, LogFormat, start};
pub use metrics::Metrics;
