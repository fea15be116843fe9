//! One attempt at one job: keep the lease, run the engine, publish, end it.
//!
//! Owns: the order of these steps and what each failure comes to.
//! Must not know: how jobs are chosen; SQL.
//! Invariant: exactly one fenced ending, or none when the lease is lost; the attempt's scratch folder goes either way,
//! what the job keeps for its next attempt when there will be none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use modelpress_engine::SourceFile;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::checkpoint::{Saver, restore};
use super::decode;
use super::engine::{Fault, FaultKind, Made, OUT_OF_MEMORY, Work, crashed, source};
use super::kit::Kit;
use super::probe::{Mishap, Point};
use super::publish::{Obstacle, Press, patiently};
use super::scratch::{self, Scratch};
use super::watch::Watch;
use crate::domain::ports::LocalFile;
use crate::domain::queue::{Claim, End, Ending, Lease, Publication, Queue, QueueError};
use crate::domain::{Failure, FileRef, JobState};
use crate::queue::keep::{Kept as _, Stop, keep};
use crate::queue::retry::{self, Hope};
use crate::telemetry::panic_text;

/// How often progress and lines reach the queue.
const SHOW: Duration = Duration::from_millis(500);
/// Pause between two tries to write an ending.
const AGAIN: Duration = Duration::from_secs(1);

/// What one worker works with.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) kit: &'a Kit,
    pub(super) scratch: &'a Scratch,
}

/// Tells the engine to stop when the attempt itself is dropped or panics.
struct Leash(Arc<Watch>);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.stop(Stop::Lost);
    }
}

impl Bench<'_> {
    /// Runs the attempt to its end; answers what became of it, in the metric's words.
    pub(super) async fn attempt(&self, claim: &Claim, watch: Arc<Watch>) -> &'static str {
        let kit = self.kit;
        let lease = claim.lease;
        let _leash = Leash(watch.clone());
        let keeper = keep(
            kit.queue.clone(),
            lease,
            kit.settings.ttl,
            kit.news.clone(),
            watch.clone(),
        );
        let _keeper = AbortOnDropHandle::new(tokio::spawn(keeper.in_current_span()));
        let show = show(kit.queue.clone(), lease, watch.clone());
        let show = AbortOnDropHandle::new(tokio::spawn(show.in_current_span()));
        let end = self.save_while(claim, &watch, self.work(claim, &watch)).await;
        watch.end();
        show.abort();
        // Before the ending: it may be this scratch space that leaves the database no room for one.
        self.remove(lease, self.scratch.folder_of(lease)).await;
        let word = match end {
            None => "lost",
            Some(end) => {
                let (word, state) = self.finish(lease, &watch, end).await;
                if state.is_some_and(JobState::is_terminal) {
                    self.remove(lease, self.scratch.kept(lease)).await;
                }
                word
            }
        };
        if let Err(Mishap) = kit.probe.reach(Point::Finished) {
            tracing::debug!("a mishap after everything is written changes nothing");
        }
        word
    }

    /// Saves what the attempt has while it works, and once more when another one shall go on.
    async fn save_while(
        &self,
        claim: &Claim,
        watch: &Watch,
        work: impl Future<Output = Option<End>>,
    ) -> Option<End> {
        let Some(pause) = self.kit.settings.checkpoint else {
            return work.await;
        };
        let lease = claim.lease;
        let (kept, out) = (self.scratch.kept(lease), self.scratch.folder_of(lease));
        let mut saver = Saver::new(self.kit, lease, kept, &out);
        let mut work = std::pin::pin!(work);
        let end = tokio::select! {
            end = &mut work => end,
            Obstacle::Lost = saver.go_on(pause) => {
                watch.stop(Stop::Lost);
                work.await
            }
        };
        if let Some(End::Retry(..) | End::Released) = &end
            && let Err(obstacle) = saver.save().await
        {
            tracing::warn!(job = %lease.job, ?obstacle, "the last checkpoint is an earlier one");
        }
        end
    }

    /// From the claim to how it ended; `None` if the lease was lost.
    async fn work(&self, claim: &Claim, watch: &Arc<Watch>) -> Option<End> {
        let outcome = match self.make(claim, watch).await {
            Ok(mut made) => match self.complete(&mut made, watch).await {
                Ok(()) => {
                    let published = self.publish(claim, &made, watch).await;
                    published.map(|publication| result(made.gate, publication))
                }
                Err(fault) => Err(Obstacle::Fault(fault)),
            },
            Err(fault) => Err(Obstacle::Fault(fault)),
        };
        match (outcome, watch.stopped()) {
            (Err(Obstacle::Lost), _) | (_, Some(Stop::Lost)) => None,
            (Ok(end), _) => Some(end),
            (Err(Obstacle::Fault(_)), Some(Stop::Cancel)) => Some(End::Cancelled),
            (Err(Obstacle::Fault(_)), Some(Stop::Drain)) => Some(End::Released),
            (Err(Obstacle::Fault(fault)), None) => Some(ended(fault, claim.attempt, (self.kit.chance)())),
        }
    }

    /// Times every artifact where there is a program for it, and signs its manifest: the child that made it has no key.
    async fn complete(&self, made: &mut Made, watch: &Watch) -> Result<(), Fault> {
        if let Some(program) = &self.kit.settings.decode_command {
            decode::time(program, made, watch).await;
        }
        let signed = made
            .artifacts
            .iter_mut()
            .try_for_each(|artifact| self.kit.signer.sign(artifact));
        signed.map_err(|error| Fault {
            code: "io".to_owned(),
            message: error.to_string(),
            kind: FaultKind::Failed(Hope::Passing),
        })
    }

    /// Runs the engine, with a thread that waits for it and that the runtime need not wait for.
    async fn make(&self, claim: &Claim, watch: &Arc<Watch>) -> Result<Made, Fault> {
        self.kit.probe.reach(Point::Claimed)?;
        let work = self.prepare(claim, watch).await?;
        if let Some(told) = restore(self.kit, claim, &work.kept).await? {
            watch.note("info", &told, json!({}));
        }
        let (engine, watch) = (self.kit.engine.clone(), watch.clone());
        let (send, receive) = oneshot::channel();
        let span = tracing::Span::current();
        let run = move || {
            let _entered = span.enter();
            let made = catch_unwind(AssertUnwindSafe(|| engine.run(&work, &watch)));
            let _nobody_waits_any_more =
                send.send(made.unwrap_or_else(|panic| Err(crashed(panic_text(panic.as_ref())))));
        };
        std::thread::Builder::new()
            .name("attempt".to_owned())
            .spawn(run)
            .map_err(|error| crashed(&format!("no thread: {error}")))?;
        let made = receive
            .await
            .unwrap_or_else(|_closed| Err(crashed("its thread vanished")))?;
        self.kit.probe.reach(Point::Made)?;
        Ok(made)
    }

    async fn prepare(&self, claim: &Claim, watch: &Watch) -> Result<Work, Fault> {
        let mut held = Vec::new();
        let files = self.sources(&claim.files, &mut held, watch).await?;
        let mut datasets = Vec::with_capacity(claim.datasets.len());
        for (id, files) in &claim.datasets {
            datasets.push((id.to_string(), self.sources(files, &mut held, watch).await?));
        }
        Ok(Work {
            plan: claim.plan.clone(),
            files,
            datasets,
            held,
            threads: self.kit.settings.threads,
            need_memory_bytes: claim.need_memory_bytes,
            kept: self.scratch.kept(claim.lease),
            statistics: self.scratch.statistics(&claim.files),
            out: self.scratch.attempt(claim.lease).map_err(|error| Fault {
                code: "io".to_owned(),
                message: format!("scratch space: {error}"),
                kind: FaultKind::Failed(Hope::Passing),
            })?,
        })
    }

    async fn sources(
        &self,
        files: &[FileRef],
        held: &mut Vec<LocalFile>,
        watch: &Watch,
    ) -> Result<Vec<SourceFile>, Fault> {
        let mut sources = Vec::with_capacity(files.len());
        for file in files {
            let path = patiently(watch, || self.kit.blobs.path(&file.digest)).await?;
            sources.push(source(file, &path));
            held.push(path);
        }
        Ok(sources)
    }

    async fn publish(&self, claim: &Claim, made: &Made, watch: &Watch) -> Result<Publication, Obstacle> {
        if matches!(watch.stopped(), Some(Stop::Cancel | Stop::Lost)) {
            // The engine was quicker than the wish; the wish counts, since nothing is published yet.
            return Err(Obstacle::Fault(stopped()));
        }
        let press = Press {
            queue: self.kit.queue.as_ref(),
            blobs: self.kit.blobs.as_ref(),
            clock: self.kit.clock.as_ref(),
            probe: self.kit.probe.as_ref(),
            watch,
        };
        let publication = press.store(claim, made).await?;
        self.kit.metrics.saved_bytes.inc_by(made.saved_bytes);
        self.kit.probe.reach(Point::Stored)?;
        Ok(publication)
    }

    /// Writes the ending, as long as the lease holds: work of hours is not thrown away for a moment's outage. Answers
    /// what became of the attempt and, unless the lease was lost, of its job.
    async fn finish(&self, lease: Lease, watch: &Watch, end: End) -> (&'static str, Option<JobState>) {
        let word = word(&end);
        let next_memory_bytes = match &end {
            // Perhaps others took it: the next try has it all to itself.
            End::Retry(failure, _) if failure.code == OUT_OF_MEMORY => Some(self.kit.settings.memory_bytes),
            _ => None,
        };
        let ending = Ending {
            end,
            events: watch.take_lines(),
            progress: watch.progress(),
            peak_memory_bytes: watch.spent().peak_rss_bytes,
            next_memory_bytes,
        };
        loop {
            match self.kit.queue.finish(lease, &ending).await {
                Ok(state) => {
                    tell(lease, &ending.end, state.as_str());
                    return (word, Some(state));
                }
                Err(QueueError::Lost) => return ("lost", None),
                Err(QueueError::Store(error)) => {
                    tracing::warn!(job = %lease.job, %error, "ending not written yet");
                }
            }
            if watch.stopped() == Some(Stop::Lost) {
                return ("lost", None);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn remove(&self, lease: Lease, folder: PathBuf) {
        let removed = tokio::task::spawn_blocking(move || scratch::remove(&folder)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(job = %lease.job, %error, "scratch space not removed; the next start will");
        }
    }
}

/// Shows progress and writes lines, now and then, until it is dropped.
async fn show(queue: Arc<dyn Queue>, lease: Lease, watch: Arc<Watch>) {
    loop {
        tokio::time::sleep(SHOW).await;
        queue.tick(lease, &watch.progress());
        let lines = watch.take_lines();
        if lines.is_empty() {
            continue;
        }
        match queue.record(lease, &lines).await {
            Ok(()) => {}
            Err(QueueError::Lost) => return watch.stop(Stop::Lost),
            Err(QueueError::Store(error)) => {
                tracing::debug!(job = %lease.job, %error, "lines of the history not written yet");
                watch.put_back(lines);
            }
        }
    }
}

/// What came to a result and missed a gate fails, and nothing is gained by another attempt: it would make the same
/// bytes. What it published tells the user why.
fn result(gate: Option<String>, publication: Publication) -> End {
    match gate {
        None => End::Succeeded(publication),
        Some(message) => {
            let code = "quality_gate".to_owned();
            End::GateMissed(Failure { code, message }, publication)
        }
    }
}

fn ended(fault: Fault, attempt: u32, chance: f64) -> End {
    let hope = match fault.kind {
        FaultKind::Failed(hope) => hope,
        // Nobody asked it to stop.
        FaultKind::Stopped => Hope::Crash,
    };
    let failure = Failure {
        code: fault.code,
        message: fault.message,
    };
    retry::after(failure, hope, attempt, chance)
}

/// The one line about how an attempt ended.
fn tell(lease: Lease, end: &End, state: &str) {
    let word = word(end);
    match end {
        End::Failed(failure) | End::GateMissed(failure, _) | End::Retry(failure, ..) => {
            let (code, message) = (failure.code.as_str(), failure.message.as_str());
            tracing::warn!(job = %lease.job, state, code, error = message, "attempt {word}, job is {state}");
        }
        _ => tracing::info!(job = %lease.job, state, "attempt {word}, job is {state}"),
    }
}

fn word(end: &End) -> &'static str {
    match end {
        End::Succeeded(_) => "succeeded",
        End::Failed(_) | End::GateMissed(..) => "failed",
        End::Retry(..) => "retried",
        End::Cancelled => "cancelled",
        End::Released => "released",
    }
}

fn stopped() -> Fault {
    Fault {
        code: "cancelled".to_owned(),
        message: "stopped on request".to_owned(),
        kind: FaultKind::Stopped,
    }
}
