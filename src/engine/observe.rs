//! The engine's only way out while it works.
//!
//! Owns: [`Observer`]. Must not know: who listens (a worker, a progress bar, a test).
//! Invariant: the engine asks `should_stop` at least once a tensor and every few megabytes inside one.

use serde::{Deserialize, Serialize};

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth a line in the job's history.
    Info,
    /// The result is valid but the user should know.
    Warning,
}

/// What the process has used since the job began, as the operating system counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Wall-clock seconds.
    pub elapsed_seconds: f64,
    /// User + system CPU seconds of the process.
    pub cpu_seconds: f64,
    /// Highest resident set size in bytes.
    pub peak_rss_bytes: u64,
}

/// Receives progress and answers whether to go on.
pub trait Observer: Sync {
    /// A stage begins (`index` counts from 0).
    fn stage(&self, name: &str, index: usize, of: usize);
    /// Work done so far over all stages, in bytes of source read and output checked.
    fn advanced(&self, bytes_done: u64, bytes_total: u64, detail: &str);
    /// Something worth keeping in the job's history.
    fn event(&self, level: Level, message: &str, data: serde_json::Value);
    /// True once the job is cancelled, lost or draining.
    fn should_stop(&self) -> bool;
    /// Resources used so far. The engine has no clock of its own.
    fn usage(&self) -> Usage;
}

/// An observer that listens to nothing: for tests and one-shot calls.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn stage(&self, _name: &str, _index: usize, _of: usize) {}
    fn advanced(&self, _bytes_done: u64, _bytes_total: u64, _detail: &str) {}
    fn event(&self, _level: Level, _message: &str, _data: serde_json::Value) {}
    fn should_stop(&self) -> bool {
        false
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// Remembers what events carry.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Listening(std::sync::Mutex<Vec<serde_json::Value>>);

#[cfg(test)]
impl Listening {
    /// What events with that field carried, in order.
    pub(crate) fn told(self, field: &str) -> Vec<serde_json::Value> {
        let mut all = self.0.into_inner().unwrap();
        all.retain(|data| data.get(field).is_some());
        all
    }
}

#[cfg(test)]
impl Observer for Listening {
    fn stage(&self, _name: &str, _index: usize, _of: usize) {}
    fn advanced(&self, _bytes_done: u64, _bytes_total: u64, _detail: &str) {}
    fn event(&self, _level: Level, _message: &str, data: serde_json::Value) {
        self.0.lock().unwrap().push(data);
    }
    fn should_stop(&self) -> bool {
        false
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// One of several sections of the work: as far as progress goes, each is as long as any other.
pub(crate) struct Section<'a> {
    /// Who hears of the whole.
    pub(crate) whole: &'a dyn Observer,
    /// Its place, from 0.
    pub(crate) at: usize,
    /// How many there are.
    pub(crate) of: usize,
}

impl Observer for Section<'_> {
    fn stage(&self, name: &str, _index: usize, _of: usize) {
        self.whole.stage(name, self.at, self.of);
    }

    fn advanced(&self, done: u64, total: u64, detail: &str) {
        let (at, of) = (self.at as u64, self.of as u64);
        self.whole
            .advanced(at * total + done.min(total), of * total, detail);
    }

    fn event(&self, level: Level, message: &str, data: serde_json::Value) {
        self.whole.event(level, message, data);
    }

    fn should_stop(&self) -> bool {
        self.whole.should_stop()
    }

    fn usage(&self) -> Usage {
        self.whole.usage()
    }
}
