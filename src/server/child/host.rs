//! The parent's side: start a child, hear it, stop it, say how it ended.
//!
//! Owns: the process and its three pipes.
//! Must not know: what orders mean.
//! Invariant: when `run` returns the child is gone and waited for, also when it panics.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::death::Death;
use super::pipe::{Answer, Order, Word, Wrong};
use crate::telemetry::usage::{self, Used};

/// How often the parent looks after its child.
const LOOK: Duration = Duration::from_millis(50);
/// Longest line either side reads: a report of a million tensors fits.
pub(super) const LONGEST_LINE: u64 = 1 << 30;
/// What is kept of a child's last words.
const LAST_WORDS: usize = 4096;
/// What a child is told of the environment: where things are, not what they are opened with.
const TOLD: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LD_LIBRARY_PATH",
    "MALLOC_TRIM_THRESHOLD_",
];
const TOLD_FAMILIES: &[&str] = &["CUDA_", "NVIDIA_", "RUST_", "RAYON_"];

/// Who starts children.
#[derive(Debug, Clone)]
pub struct Host {
    program: PathBuf,
}

/// What a child is for.
#[derive(Debug)]
pub struct Job<'a> {
    /// What it shall do.
    pub order: &'a Order,
    /// Memory that it may write to.
    pub memory_bytes: u64,
}

/// Who listens to a child.
pub trait Ear {
    /// It said something.
    fn hear(&self, word: Word);
    /// It used so much so far.
    fn used(&self, used: Used);
    /// How long it may still take, once it shall stop.
    fn patience(&self) -> Option<Duration>;
}

/// How a child ended.
#[derive(Debug)]
pub enum End {
    /// With an answer.
    Answer(Result<Answer, Wrong>),
    /// With a panic; the text is for the log.
    Panicked(String),
    /// Without a word.
    Died(Death),
    /// It never was.
    NotStarted(std::io::Error),
}

impl Host {
    /// Children run this program, which is this very one, also after its file was replaced.
    pub fn this_program() -> Self {
        let own = Path::new("/proc/self/exe");
        let elsewhere = || std::env::current_exe().unwrap_or_else(|_unknown| "modelpress".into());
        Self {
            program: if own.exists() { own.to_owned() } else { elsewhere() },
        }
    }

    /// Children run another program.
    pub fn of(program: PathBuf) -> Self {
        Self { program }
    }

    /// Runs a child to its end.
    pub fn run(&self, job: &Job<'_>, ear: &dyn Ear) -> End {
        match self.start(job) {
            Ok(mut running) => running.attend(ear),
            Err(error) => End::NotStarted(error),
        }
    }

    fn start(&self, job: &Job<'_>) -> std::io::Result<Running> {
        let told = std::env::vars_os().filter(|(name, _)| is_told(&name.to_string_lossy()));
        let child = Command::new(&self.program)
            .arg("engine")
            .arg("--memory-bytes")
            .arg(job.memory_bytes.to_string())
            .env_clear()
            .envs(told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // From here on it is ended whatever happens.
        let mut running = Running {
            stdin: None,
            peak_rss_bytes: 0,
            asked_to_stop: None,
            ended_by_us: false,
            child,
        };
        let mut stdin = running.child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let mut order = serde_json::to_vec(job.order)?;
        order.push(b'\n');
        // A child that is gone already says so by its end.
        let _broken = stdin.write_all(&order);
        running.stdin = Some(stdin);
        Ok(running)
    }
}

fn is_told(name: &str) -> bool {
    TOLD.contains(&name)
        || TOLD_FAMILIES.iter().any(|family| name.starts_with(family))
        || cfg!(debug_assertions) && name == "MODELPRESS_PROBE"
}

/// A child at work.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    peak_rss_bytes: u64,
    asked_to_stop: Option<Instant>,
    ended_by_us: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that is gone.
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Running {
    fn attend(&mut self, ear: &dyn Ear) -> End {
        let words = words(self.child.stdout.take());
        let last_words = last_words(self.child.stderr.take());
        let mut end = None;
        loop {
            match words.recv_timeout(LOOK) {
                Ok(Word::Answer(answer)) => end = Some(End::Answer(answer)),
                Ok(Word::Panicked(text)) => end = Some(End::Panicked(text)),
                Ok(word) => ear.hear(word),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.look_after(ear);
        }
        // Its output ended: it ends, or hangs without a way to tell.
        while let Ok(None) = self.child.try_wait() {
            self.look_after(ear);
            if end.is_some() {
                let _gone = self.child.kill();
            }
            std::thread::sleep(LOOK / 10);
        }
        let status = self.child.wait();
        let said = last_words.recv().unwrap_or_default();
        match (end, status) {
            (Some(end), _) => end,
            (None, Ok(status)) => End::Died(Death::new(status, said, self.peak_rss_bytes, self.ended_by_us)),
            (None, Err(error)) => End::NotStarted(error),
        }
    }

    /// Measures it, asks it to stop, ends it.
    fn look_after(&mut self, ear: &dyn Ear) {
        if let Some(used) = usage::of_process(self.child.id()) {
            self.peak_rss_bytes = self.peak_rss_bytes.max(used.peak_rss_bytes);
            ear.used(used);
        }
        let Some(patience) = ear.patience() else { return };
        let asked = *self.asked_to_stop.get_or_insert_with(|| {
            if let Some(stdin) = &mut self.stdin {
                let _gone = stdin.write_all(b"stop\n");
            }
            Instant::now()
        });
        if asked.elapsed() >= patience && !self.ended_by_us {
            self.ended_by_us = self.child.kill().is_ok();
        }
    }
}

/// The lines of a child, until it closes its output or says something that is none.
fn words(stdout: Option<impl Read + Send + 'static>) -> Receiver<Word> {
    let (send, receive) = channel();
    let Some(stdout) = stdout else { return receive };
    let read = move || {
        let mut lines = BufReader::with_capacity(1 << 16, stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line);
            if !matches!(read, Ok(1..)) {
                return;
            }
            let Ok(word) = serde_json::from_slice(&line) else {
                return;
            };
            if send.send(word).is_err() {
                return;
            }
        }
    };
    // Without the thread the channel is closed, and the child counts as dead.
    let _thread = std::thread::Builder::new()
        .name("child-words".to_owned())
        .spawn(read);
    receive
}

/// The end of what a child says on standard error, once it is through.
fn last_words(stderr: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (send, receive) = channel();
    let Some(mut stderr) = stderr else { return receive };
    let read = move || {
        let (mut kept, mut piece) = (Vec::new(), [0; LAST_WORDS]);
        while let Ok(n @ 1..) = stderr.read(&mut piece) {
            kept.extend_from_slice(&piece[..n]);
            let over = kept.len().saturating_sub(LAST_WORDS);
            kept.drain(..over);
        }
        let _nobody_asks = send.send(String::from_utf8_lossy(&kept).into_owned());
    };
    let _thread = std::thread::Builder::new()
        .name("child-errors".to_owned())
        .spawn(read);
    receive
}
