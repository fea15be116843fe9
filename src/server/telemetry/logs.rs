//! Log lines on stderr: JSON for machines, pretty for people.
//!
//! Owns: the formats; the choice of format and filter.
//! Must not know: what is logged.
//! Invariant: installed at most once a process; later calls change nothing.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// The filter directives cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("config: log_filter: {0}")]
pub struct LogError(#[from] tracing_subscriber::filter::ParseError);

/// Installs the subscriber; a process that already has one keeps it.
pub fn start(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let installed = if json {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init()
    } else {
        lines
            .with_target(false)
            .compact()
            .with_ansi(std::io::stderr().is_terminal())
            .try_init()
    };
    if installed.is_err() {
        tracing::debug!("a subscriber is already installed");
    }
    Ok(())
}
