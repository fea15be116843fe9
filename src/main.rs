//! The `modelpress` binary: everything is in the `modelpress-server` library.

use std::process::ExitCode;

fn main() -> ExitCode {
    modelpress_server::cli::run()
}
