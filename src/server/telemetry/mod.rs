//! What the process says about itself and what it uses: log lines, traces, metrics, resource usage, memory that is kept.
//!
//! Owns: the tracing set-up, the way to a collector, every metric's name, reading /proc, the allocator's settings.
//! Must not know: rooms that report through it.
//! Invariant: labels are bounded sets, never ids; nothing here can fail a request.

pub mod allocator;
mod logs;
pub mod metrics;
mod otlp;
pub mod traces;
pub mod usage;

pub use logs::{LogFormat, Running, TelemetryError, start};
pub use metrics::Metrics;
pub use otlp::Collector;

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
