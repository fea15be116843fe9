//! The engine as an attempt sees it.
//!
//! Owns: the [`Engine`] trait, the engine in child processes, what errors and deaths mean for a retry.
//! Must not know: queues, blobs.
//! Invariant: a plan is executed as it was stored, never made again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use modelpress_engine::{Artifact, Class, Compute, SourceFile, catalog};

use super::Watch;
use super::probe::Mishap;
use crate::child::{self, Answer, Cause, Death, Ear, Execution, Host, Order, Word, Wrong};
use crate::domain::job::ANALYZE;
use crate::domain::ports::LocalFile;
use crate::domain::{Document, FileRef};
use crate::queue::keep::Stop;
use crate::queue::retry::Hope;
use crate::telemetry::usage::Used;

/// The code of a failure that more memory might have helped.
pub(super) const OUT_OF_MEMORY: &str = "out_of_memory";

/// What is to be done.
#[derive(Debug)]
pub struct Work {
    /// The stored plan.
    pub plan: Document,
    /// The model's files.
    pub files: Vec<SourceFile>,
    /// The files of each dataset, under the name that the recipe uses.
    pub datasets: Vec<(String, Vec<SourceFile>)>,
    /// Keeps those files here as long as the work lasts.
    pub held: Vec<LocalFile>,
    /// Where the job's attempts leave what the next one goes on with; made when it is needed.
    pub kept: PathBuf,
    /// Where what calibration finds is kept for other jobs on this model.
    pub statistics: PathBuf,
    /// An empty folder for the outcome.
    pub out: PathBuf,
    /// Compute threads.
    pub threads: usize,
    /// Memory that the plan asks for.
    pub need_memory_bytes: u64,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// One for each format; none if a quality gate was missed and the recipe does not keep them.
    pub artifacts: Vec<Artifact>,
    /// The report as JSON.
    pub report: Document,
    /// Original minus compressed bytes, over all artifacts.
    pub saved_bytes: u64,
    /// Which quality gate was missed; none if there was none or all were kept.
    pub gate: Option<String>,
}

/// Why it was not made.
#[derive(Debug)]
pub struct Fault {
    /// Stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// What became of it.
    pub kind: FaultKind,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It stopped because it was asked to.
    Stopped,
    /// It failed.
    Failed(Hope),
}

/// Something that executes plans.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// The techniques it knows.
    fn techniques(&self) -> Vec<String>;
    /// Executes a plan; the calling thread waits.
    fn run(&self, work: &Work, watch: &Watch) -> Result<Made, Fault>;
}

/// The engine in a child process.
#[derive(Debug, Clone)]
pub struct Children {
    host: Host,
    device: String,
    most_memory_bytes: u64,
}

impl Children {
    /// Children of that host, which compute on the device of that name and never take much more memory than all workers
    /// may plan for; says in one sentence why the device cannot be used.
    pub fn of(host: Host, device: &str, most_memory_bytes: u64) -> Result<Self, String> {
        Compute::open(device.parse()?).map_err(|error| error.message)?;
        Ok(Self {
            host,
            device: device.to_owned(),
            most_memory_bytes,
        })
    }
}

impl Engine for Children {
    fn techniques(&self) -> Vec<String> {
        catalog::techniques()
            .into_iter()
            .map(|technique| technique.name.to_owned())
            .chain([ANALYZE.to_owned()])
            .collect()
    }

    fn run(&self, work: &Work, watch: &Watch) -> Result<Made, Fault> {
        let order = Order::Execute(Execution {
            plan: work.plan.as_str().to_owned(),
            files: work.files.clone(),
            datasets: work.datasets.clone(),
            kept: work.kept.clone(),
            statistics: Some(work.statistics.clone()),
            out: work.out.clone(),
            threads: work.threads,
            device: self.device.clone(),
        });
        let memory_bytes = limit(work.need_memory_bytes, self.most_memory_bytes);
        let job = child::Job {
            order: &order,
            memory_bytes,
        };
        match self.host.run(&job, &Listener(watch)) {
            child::End::Answer(Ok(Answer::Made(made))) => Ok(Made {
                artifacts: made.artifacts,
                report: Document::from_store(made.report),
                saved_bytes: made.saved_bytes,
                gate: made.gate,
            }),
            child::End::Answer(Ok(_)) => Err(crashed("a child answered what it was not asked")),
            child::End::Answer(Err(wrong)) => Err(wrong.into()),
            child::End::Panicked(text) => Err(crashed(&text)),
            child::End::Died(death) => Err(died(&death, work.need_memory_bytes, memory_bytes)),
            child::End::NotStarted(error) => Err(Fault {
                code: "io".to_owned(),
                message: format!("the process for the work cannot be started: {error}"),
                kind: FaultKind::Failed(Hope::Passing),
            }),
        }
    }
}

/// Memory that a child may write to. The plan's figure is what the work holds at its peak; the allocator keeps freed
/// blocks beside that, threads have stacks: twice as much and a gigabyte is never needed, and bounds what goes astray.
/// A second try after a lack of memory plans for all there is, and cannot have twice that.
fn limit(need_memory_bytes: u64, most_memory_bytes: u64) -> u64 {
    let most = most_memory_bytes.max(need_memory_bytes);
    need_memory_bytes
        .saturating_mul(2)
        .min(most)
        .saturating_add(1 << 30)
}

/// An attempt that listens to its child.
struct Listener<'a>(&'a Watch);

impl Ear for Listener<'_> {
    fn hear(&self, word: Word) {
        match word {
            Word::Stage { name, index, of } => self.0.begin_stage(&name, index, of),
            Word::Advanced { done, total } => self.0.advance(done, total),
            Word::Event {
                warning,
                message,
                data,
            } => self
                .0
                .note(if warning { "warning" } else { "info" }, &message, data),
            // `Host::run` answers with these.
            Word::Answer(_) | Word::Panicked(_) => {}
        }
    }

    fn used(&self, used: Used) {
        self.0.used(used);
    }

    fn patience(&self) -> Option<Duration> {
        self.0.stopped().map(|stop| match stop {
            // The next claimer may begin when the lease is over.
            Stop::Lost => Duration::from_secs(2),
            Stop::Cancel | Stop::Drain => Duration::from_secs(5),
        })
    }
}

fn died(death: &Death, planned: u64, limit: u64) -> Fault {
    tracing::error!(cause = ?death.cause, signal = death.signal, peak_rss_bytes = death.peak_rss_bytes,
        planned_bytes = planned, last_words = death.last_words, "the process that worked died");
    let peak = death.peak_rss_bytes;
    let (code, message, kind) = match death.cause {
        Cause::Ended => (
            "cancelled",
            "the work did not stop when it was asked to and was ended".to_owned(),
            FaultKind::Stopped,
        ),
        Cause::Memory => (
            OUT_OF_MEMORY,
            format!("the work asked for more than its limit of {limit} bytes; {planned} were planned"),
            FaultKind::Failed(Hope::Crash),
        ),
        Cause::Killed => (
            OUT_OF_MEMORY,
            format!(
                "the process that worked was killed when it used {peak} bytes of {planned} planned: unless somebody \
                 did that, the machine ran out of memory; give it more, or lower worker_memory_bytes or workers"
            ),
            FaultKind::Failed(Hope::Crash),
        ),
        Cause::Crashed => (
            "internal",
            "the engine crashed; the server's log has the details".to_owned(),
            FaultKind::Failed(Hope::Crash),
        ),
    };
    Fault {
        code: code.to_owned(),
        message,
        kind,
    }
}

/// A bug of ours; the log says which.
pub(super) fn crashed(panic: &str) -> Fault {
    tracing::error!(panic, "the engine panicked");
    Fault {
        code: "internal".to_owned(),
        message: "the engine crashed; the server's log has the details".to_owned(),
        kind: FaultKind::Failed(Hope::Crash),
    }
}

impl From<Mishap> for Fault {
    fn from(_on_purpose: Mishap) -> Self {
        Self {
            code: "io".to_owned(),
            message: "a mishap on purpose".to_owned(),
            kind: FaultKind::Failed(Hope::Passing),
        }
    }
}

impl From<Wrong> for Fault {
    fn from(wrong: Wrong) -> Self {
        Self {
            kind: kind(wrong.class),
            code: wrong.code,
            message: wrong.message,
        }
    }
}

fn kind(class: Class) -> FaultKind {
    match class {
        Class::Cancelled => FaultKind::Stopped,
        Class::Resources => FaultKind::Failed(Hope::Passing),
        Class::BadInput | Class::Unsupported | Class::Numeric | Class::Internal => {
            FaultKind::Failed(Hope::None)
        }
    }
}

/// A model's file under the name that the engine knows it by; the store named it by its digest.
pub(super) fn source(file: &FileRef, path: &Path) -> SourceFile {
    let mut source = SourceFile::new(file.name.clone(), path);
    source.sha256 = Some(file.digest.clone());
    source
}
