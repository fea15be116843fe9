//! Log lines on stderr, JSON for machines, pretty for people, and spans for a collector beside them.
//!
//! Owns: the formats; the choice of format and filter; the subscriber.
//! Must not know: what is logged.
//! Invariant: installed at most once a process; later calls change nothing.

use std::io::IsTerminal;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::otlp::{Collector, CollectorError};
use super::traces;

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

/// Logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter directives cannot be read.
    #[error("config: log_filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter of traces cannot be made.
    #[error(transparent)]
    Collector(#[from] CollectorError),
}

/// What runs until the process ends; dropped, it sends what was not sent yet.
#[derive(Debug)]
pub struct Running(Option<SdkTracerProvider>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Installs the subscriber; a process that already has one keeps it. Keep what it answers until the end.
pub fn start(format: LogFormat, filter: &str, collector: &Collector) -> Result<Running, TelemetryError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let provider = collector.is_on().then(|| collector.provider()).transpose()?;
    let registry = tracing_subscriber::registry();
    let installed = match &provider {
        None => registry.with(lines(format).and_then(filter)).try_init(),
        Some(provider) => {
            let filter = filter.and(filter_fn(|metadata| !traces::is_ours(metadata)));
            let lines = lines(format).with_filter(filter);
            registry.with(lines).with(traces::layer(provider)).try_init()
        }
    };
    if installed.is_err() {
        tracing::debug!("a subscriber is already installed");
    }
    Ok(Running(provider))
}

fn lines(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    if json {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed()
    } else {
        lines
            .with_target(false)
            .compact()
            .with_ansi(std::io::stderr().is_terminal())
            .boxed()
    }
}
