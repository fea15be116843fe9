//! What an attempt shows and hears while the engine works.
//!
//! Owns: progress, speed, the lines of history not written yet, the wish to stop.
//! Must not know: who reads it; the database.
//! Invariant: the engine never waits here: everything is memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::probe::{Mishap, Point, Probe};
use crate::domain::queue::{Beat, NewEvent};
use crate::domain::{Clock, Progress};
use crate::queue::keep::{Kept, Stop};
use crate::telemetry::Metrics;
use crate::telemetry::traces::Place;
use crate::telemetry::usage::{Meter, Spent, Used};

/// Lines kept of one attempt: a technique that talks about each tensor must not fill the history.
const MOST_LINES: usize = 1_000;
/// Speed is that of about the last so many seconds.
const SPEED_SECONDS: f64 = 5.0;

/// The state of one attempt.
#[derive(Debug)]
pub struct Watch {
    meter: Meter,
    ttl: Duration,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    probe: Arc<dyn Probe>,
    place: Place,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    progress: Progress,
    stop: Option<Stop>,
    lines: VecDeque<NewEvent>,
    lines_seen: usize,
    stage_begun: Instant,
    measured: (Instant, u64),
    /// Of the process that works, when it is not this one.
    used: Option<Used>,
}

impl Watch {
    /// Begins to measure.
    pub(super) fn new(
        ttl: Duration,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        probe: Arc<dyn Probe>,
        place: Place,
    ) -> Self {
        let now = Instant::now();
        Self {
            meter: Meter::start(),
            ttl,
            metrics,
            clock,
            probe,
            place,
            inner: Mutex::new(Inner {
                progress: Progress::default(),
                stop: None,
                lines: VecDeque::new(),
                lines_seen: 0,
                stage_begun: now,
                measured: (now, 0),
                used: None,
            }),
        }
    }

    /// A stage begins.
    pub fn begin_stage(&self, name: &str, index: usize, of: usize) {
        let mut inner = self.lock();
        self.end_stage(&mut inner);
        inner.progress.stage = Some(name.to_owned());
        inner.progress.stage_index = index as u32;
        inner.progress.stages = of as u32;
        let data = json!({"stage": name, "index": index, "of": of});
        inner.push("info", &format!("stage {name} began"), data);
    }

    /// Work was done.
    pub fn advance(&self, bytes_done: u64, bytes_total: u64) {
        {
            let mut inner = self.lock();
            inner.measure(bytes_done);
            inner.progress.bytes_done = bytes_done;
            inner.progress.bytes_total = bytes_total;
        }
        if let Err(Mishap) = self.probe.reach(Point::Stage) {
            tracing::debug!("the engine's own errors are its own");
        }
    }

    /// A line for the history.
    pub fn note(&self, level: &'static str, message: &str, data: Value) {
        self.lock().push(level, message, data);
    }

    /// Why it should stop, if it should.
    pub fn stopped(&self) -> Option<Stop> {
        self.lock().stop
    }

    /// The process that works used so much so far.
    pub fn used(&self, used: Used) {
        self.lock().used = Some(used);
    }

    /// What was spent so far.
    pub fn spent(&self) -> Spent {
        let own = self.meter.read();
        match self.lock().used {
            None => own,
            Some(used) => Spent {
                elapsed: own.elapsed,
                cpu_seconds: used.cpu_seconds,
                peak_rss_bytes: used.peak_rss_bytes,
            },
        }
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        self.lock().progress.clone()
    }

    /// The lines that were not taken yet.
    pub(super) fn take_lines(&self) -> Vec<NewEvent> {
        self.lock().lines.drain(..).collect()
    }

    /// Puts lines back that could not be written, in front.
    pub(super) fn put_back(&self, lines: Vec<NewEvent>) {
        let mut inner = self.lock();
        for line in lines.into_iter().rev() {
            inner.lines.push_front(line);
        }
    }

    /// The last stage is over.
    pub(super) fn end(&self) {
        self.end_stage(&mut self.lock());
    }

    fn end_stage(&self, inner: &mut Inner) {
        let begun = std::mem::replace(&mut inner.stage_begun, Instant::now());
        if let Some(stage) = inner.progress.stage.as_deref() {
            let lasted = begun.elapsed();
            self.metrics
                .stage_duration
                .with_label_values(&[stage])
                .observe(lasted.as_secs_f64());
            self.place.stage(stage, lasted);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, level: &'static str, message: &str, data: Value) {
        self.lines_seen += 1;
        let (message, data) = match self.lines_seen {
            n if n < MOST_LINES => (message.to_owned(), data),
            MOST_LINES => ("more messages are not kept".to_owned(), json!({})),
            _ => return,
        };
        self.lines.push_back(NewEvent {
            kind: "message",
            level,
            message,
            data,
        });
    }

    /// An average that forgets: steady under uneven tensors, and it follows a change within seconds.
    fn measure(&mut self, bytes_done: u64) {
        let (at, before) = self.measured;
        let seconds = at.elapsed().as_secs_f64();
        if seconds < 0.2 {
            return;
        }
        let speed = bytes_done.saturating_sub(before) as f64 / seconds;
        let weight = 1.0 - (-seconds / SPEED_SECONDS).exp();
        let old = self.progress.bytes_per_second;
        self.progress.bytes_per_second = if old == 0.0 {
            speed
        } else {
            old + weight * (speed - old)
        };
        self.measured = (Instant::now(), bytes_done);
    }
}

impl Kept for Watch {
    fn beat(&self) -> Beat {
        Beat {
            ttl: self.ttl,
            progress: self.progress(),
            peak_memory_bytes: self.spent().peak_rss_bytes,
        }
    }

    /// The first reason stands, but a lost lease overrules all: then nothing may be written.
    fn stop(&self, why: Stop) {
        let mut inner = self.lock();
        if inner.stop.is_none() || why == Stop::Lost {
            inner.stop = Some(why);
        }
    }

    fn accepted(&self) {
        let now = self.clock.now().unix_timestamp() as f64;
        self.metrics.heartbeat_last_success_timestamp.set(now);
    }
}
