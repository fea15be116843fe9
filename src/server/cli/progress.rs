//! Progress of a local run: a bar on a terminal, plain lines elsewhere.
//!
//! Owns: how often something is shown; the stop flag.
//! Must not know: what the engine does.
//! Invariant: showing progress never slows or fails the work.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use modelpress_engine::{Level, Observer, Usage};

use super::complain;
use crate::telemetry::usage::Meter;

/// Listens to the engine.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    quiet: bool,
    tenth: AtomicU64,
    stop: Arc<AtomicBool>,
    meter: Meter,
}

impl Progress {
    /// Shows on stderr, unless quiet.
    pub(super) fn new(quiet: bool, stop: Arc<AtomicBool>) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let hidden = quiet || plain;
        let target = if hidden {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(10)
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{prefix} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self {
            bar,
            plain: plain && !quiet,
            quiet,
            tenth: AtomicU64::new(0),
            stop,
            meter: Meter::start(),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn stage(&self, name: &str, index: usize, of: usize) {
        self.bar.set_prefix(format!("{}/{of} {name}", index + 1));
        if self.plain {
            complain(&format!("stage {} of {of}: {name}", index + 1));
        }
    }

    fn advanced(&self, bytes_done: u64, bytes_total: u64, detail: &str) {
        self.bar.set_length(bytes_total);
        self.bar.set_position(bytes_done);
        self.bar.set_message(detail.to_owned());
        let tenth = bytes_done
            .saturating_mul(10)
            .checked_div(bytes_total)
            .unwrap_or(0);
        if self.plain && self.tenth.fetch_max(tenth, Ordering::Relaxed) < tenth {
            complain(&format!("{} % {detail}", tenth * 10));
        }
    }

    fn event(&self, level: Level, message: &str, _data: serde_json::Value) {
        if self.quiet {
            return;
        }
        let line = match level {
            Level::Info => message.to_owned(),
            Level::Warning => format!("warning: {message}"),
        };
        self.bar.suspend(|| complain(&line));
    }

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn usage(&self) -> Usage {
        let spent = self.meter.read();
        Usage {
            elapsed_seconds: spent.elapsed.as_secs_f64(),
            cpu_seconds: spent.cpu_seconds,
            peak_rss_bytes: spent.peak_rss_bytes,
        }
    }
}
