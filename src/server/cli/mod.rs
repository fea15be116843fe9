//! The command line.
//!
//! Owns: commands, their help, exit codes.
//! Must not know: how commands do their work.
//! Invariant: stdout carries results, stderr everything else; the exit code says what happened.

mod analyze;
mod backup;
mod check_config;
mod compress;
mod datasets;
mod doctor;
mod healthcheck;
mod keys;
mod migrate;
mod openapi;
mod plan;
mod progress;
mod recipe;
mod serve;
mod summary;
mod unpack;
mod verify;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Settings};
use crate::telemetry::allocator::keep_freed_blocks;

/// Something broke while working.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub const USAGE: u8 = 2;
/// The recipe cannot work on this model.
pub const REFUSED: u8 = 3;
/// The model or a dataset cannot be read.
pub const BAD_MODEL: u8 = 4;
/// Stopped by a signal.
pub const INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  modelpress serve
      a server on http://127.0.0.1:8080 with its data in ./modelpress-data
  modelpress compress ./SmolLM2 --recipe Q4_K_M --out ./small
      the same job without a server
  modelpress plan ./SmolLM2 --recipe W4A16
      what a recipe would do, without doing it
  modelpress analyze ./SmolLM2
      what its weights are
  modelpress verify ./small/gguf
      whether an artifact is what was made, and who signed it

Exit codes:
  0 done   1 failed   2 wrong usage or configuration   3 recipe refused   4 model or dataset unreadable   130 interrupted";

/// Compress models: upload a model, post a recipe, get back an artifact that engines load.
#[derive(Debug, Parser)]
#[command(name = "modelpress", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: API, pages and, unless told otherwise, workers
    Serve(ConfigArgs),
    /// Run workers only, beside servers on the same PostgreSQL database and folder or bucket
    Worker(ConfigArgs),
    /// Compress a model here and now, without a server
    Compress(compress::CompressArgs),
    /// Print what a recipe would do to a model
    Plan(plan::PlanArgs),
    /// Say what a model's weights are, and what each preset would make of them
    #[command(after_help = analyze::COLUMNS)]
    Analyze(analyze::AnalyzeArgs),
    /// Make a checkpoint of an artifact of the format packed
    Unpack(unpack::UnpackArgs),
    /// Check that an artifact is what was made, and who signed it
    Verify(verify::VerifyArgs),
    /// Make, list and revoke API keys
    Keys(keys::KeysArgs),
    /// Back up database and blobs of an SQLite server, also while it runs
    Backup(backup::BackupArgs),
    /// Bring a backup back into a new data folder
    Restore(backup::RestoreArgs),
    /// Look whether disk, database, files, clock, limits and keys are well, and say how to mend what is not
    Doctor(ConfigArgs),
    /// Bring the database schema up to date
    Migrate(ConfigArgs),
    /// Check the configuration and print what is in effect, secrets hidden
    CheckConfig(ConfigArgs),
    /// Ask a running server whether it is ready (for containers)
    Healthcheck(ConfigArgs),
    /// Print the OpenAPI document
    Openapi(openapi::OpenapiArgs),
    /// Read files or execute a plan for a server, which talks to it through pipes
    #[command(hide = true)]
    Engine {
        /// Memory that it may write to
        #[arg(long, value_name = "BYTES")]
        memory_bytes: Option<u64>,
    },
}

/// Where the configuration comes from. Flags win over variables, variables over the file.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file (TOML); see config/modelpress.example.toml
    #[arg(long, env = "MODELPRESS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl ConfigArgs {
    fn load(self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), self.settings)
    }
}

/// How a command ends when it does not end well: a sentence for stderr and an exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl std::fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(USAGE, error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(FAILED, error)
    }
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let command = Cli::parse().command;
    if let Command::Compress(_) | Command::Engine { .. } = &command {
        keep_freed_blocks();
    }
    crate::app::choose_tls();
    let result = match command {
        Command::Serve(args) => serve::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Compress(args) => compress::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Analyze(args) => analyze::run(&args),
        Command::Unpack(args) => unpack::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Keys(args) => keys::run(args),
        Command::Backup(args) => backup::back_up(args),
        Command::Restore(args) => backup::restore(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::CheckConfig(args) => check_config::run(args),
        Command::Healthcheck(args) => healthcheck::run(args),
        Command::Openapi(args) => openapi::run(&args),
        Command::Engine { memory_bytes } => return crate::child::run(memory_bytes),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Writes a line to stdout; a closed pipe ends the output, not the program.
fn say(line: impl std::fmt::Display) {
    use std::io::Write as _;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        tracing::debug!("stdout is closed");
    }
}

fn complain(line: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stderr(), "modelpress: {line}").is_err() {
        tracing::debug!("stderr is closed");
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
