//! The engine's observer inside a child: progress goes out as lines, the wish to stop comes in.
//!
//! Owns: how often progress is said.
//! Must not know: what is observed.
//! Invariant: lines are whole, whoever writes them; a parent that went away stops the work.

use std::io::{Stdout, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modelpress_engine::{Level, Observer, Usage};
use serde_json::Value;

use super::mishap::Mishap;
use super::pipe::Word;
use crate::telemetry::usage::Meter;

/// Progress is said at most so often.
const PAUSE: Duration = Duration::from_millis(100);

/// Standard output, and whether to go on.
#[derive(Debug)]
pub(super) struct Line {
    meter: Meter,
    stop: AtomicBool,
    mishap: Option<Mishap>,
    out: Mutex<Out>,
}

#[derive(Debug)]
struct Out {
    stdout: Stdout,
    advanced: Option<Instant>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self {
            meter: Meter::start(),
            stop: AtomicBool::new(false),
            mishap: Mishap::from_env(),
            out: Mutex::new(Out {
                stdout: std::io::stdout(),
                advanced: None,
            }),
        }
    }

    /// The work shall stop.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Says a word.
    pub(super) fn say(&self, word: &Word) {
        self.lock().say(word, &self.stop);
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Out {
    fn say(&mut self, word: &Word, stop: &AtomicBool) {
        let said = serde_json::to_vec(word)
            .map_err(std::io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                self.stdout.write_all(&line)?;
                self.stdout.flush()
            });
        if said.is_err() {
            // Nobody listens any more.
            stop.store(true, Ordering::SeqCst);
        }
    }
}

impl Observer for Line {
    fn stage(&self, name: &str, index: usize, of: usize) {
        let name = name.to_owned();
        self.say(&Word::Stage { name, index, of });
    }

    fn advanced(&self, done: u64, total: u64, _detail: &str) {
        let mut out = self.lock();
        let soon = out.advanced.is_some_and(|at| at.elapsed() < PAUSE);
        if soon && done < total {
            return;
        }
        out.advanced = Some(Instant::now());
        out.say(&Word::Advanced { done, total }, &self.stop);
        drop(out);
        if let Some(mishap) = self.mishap {
            mishap.happen();
        }
    }

    fn event(&self, level: Level, message: &str, data: Value) {
        self.say(&Word::Event {
            warning: level == Level::Warning,
            message: message.to_owned(),
            data,
        });
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
