//! The `modelpress` binary: everything is in the `modelpress-server` library.

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: modelpress_server::telemetry::allocator::BySize =
    modelpress_server::telemetry::allocator::BySize;

fn main() -> ExitCode {
    modelpress_server::cli::run()
}
