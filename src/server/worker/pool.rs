//! The workers of this process and the loops that go with them.
//!
//! Owns: starting them in order, claiming, giving everything back at the end.
//! Must not know: what an attempt does.
//! Invariant: never more attempts at once than workers; after `release` no job of this process is running.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use super::attempt::Bench;
use super::kit::Kit;
use super::scratch::Scratch;
use super::tidy::Tidier;
use super::watch::Watch;
use crate::domain::queue::{Claim, Node};
use crate::queue::keep::{Kept as _, Stop};
use crate::queue::prune::Pruner;
use crate::queue::reap::{Neighbours, Reaper};
use crate::queue::supervise::supervise;
use crate::queue::ticked;
use crate::queue::wake::{Ear, relay};
use crate::telemetry::metrics::Counted;
use crate::telemetry::traces::{self, Attempted};

/// How long small jobs may go before one whose memory is not free.
const PATIENCE: Duration = Duration::from_mins(5);

/// Why the workers did not start.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Scratch space cannot be used.
    #[error("scratch folder {0}: {1}")]
    Scratch(PathBuf, io::Error),
}

/// Workers at work.
#[derive(Debug)]
pub struct Pool {
    workers: TaskTracker,
    loops: TaskTracker,
    /// Ends claiming.
    closing: CancellationToken,
    /// Ends the loops, which go on while attempts do.
    ending: CancellationToken,
    running: Arc<Running>,
}

/// The attempts under way, to stop them.
#[derive(Debug, Default)]
struct Running(Mutex<(bool, Vec<Arc<Watch>>)>);

impl Running {
    /// Adds an attempt; one that begins too late is stopped at once.
    fn add(&self, watch: &Arc<Watch>) {
        let mut inner = self.lock();
        inner.1.push(watch.clone());
        if inner.0 {
            watch.stop(Stop::Drain);
        }
    }

    fn remove(&self, watch: &Arc<Watch>) {
        self.lock().1.retain(|other| !Arc::ptr_eq(other, watch));
    }

    fn drain(&self) {
        let mut inner = self.lock();
        inner.0 = true;
        for watch in &inner.1 {
            watch.stop(Stop::Drain);
        }
    }

    fn lock(&self) -> MutexGuard<'_, (bool, Vec<Arc<Watch>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Starts the workers and loops. Alone on its store, it first takes back what a former process left running.
    pub fn start(kit: Kit) -> Result<Self, PoolError> {
        let settings = kit.settings.clone();
        let scratch = Scratch::open(&settings.scratch)
            .map_err(|error| PoolError::Scratch(settings.scratch.clone(), error))?;
        let crew = Crew {
            kit,
            scratch,
            process: Uuid::now_v7().simple().to_string(),
            closing: CancellationToken::new(),
            running: Arc::default(),
            planned: AtomicU64::new(0),
            claiming: tokio::sync::Mutex::default(),
        };
        let pool = Self {
            workers: TaskTracker::new(),
            loops: TaskTracker::new(),
            closing: crew.closing.clone(),
            ending: CancellationToken::new(),
            running: crew.running.clone(),
        };
        crew.kit.metrics.workers.set(settings.workers as i64);
        pool.spawn_loops(&crew.kit, crew.scratch.all_kept());
        let workers = pool.workers.clone();
        pool.workers.spawn(crew.begin(workers));
        Ok(pool)
    }

    /// Stops claiming, gives attempts the grace to end by themselves, then stops them and gives their jobs back.
    pub async fn release(self, grace: Duration) {
        self.closing.cancel();
        self.workers.close();
        if tokio::time::timeout(grace, self.workers.wait()).await.is_err() {
            self.running.drain();
            self.workers.wait().await;
        }
        self.ending.cancel();
        self.loops.close();
        self.loops.wait().await;
    }

    fn spawn_loops(&self, kit: &Kit, kept: PathBuf) {
        let reaper = reaper(kit);
        let tidier = Tidier {
            queue: kit.queue.clone(),
            kept,
            every: kit.settings.ttl,
        };
        let pruner = Pruner {
            queue: kit.queue.clone(),
            metrics: kit.metrics.clone(),
            clock: kit.clock.clone(),
            retention: kit.settings.retention,
        };
        let (stop, end) = (self.ending.clone(), self.ending.clone());
        let (kit, over, clean) = (kit.clone(), self.ending.clone(), self.ending.clone());
        self.loops.spawn(async move {
            supervise("listen", || relay(kit.queue.rings(), &kit.wake, &kit.news, &over)).await;
        });
        self.loops
            .spawn(async move { supervise("tidy", || tidier.run(&clean)).await });
        self.loops
            .spawn(async move { supervise("reap", || reaper.run(&stop)).await });
        self.loops
            .spawn(async move { supervise("prune", || pruner.run(&end)).await });
    }
}

fn reaper(kit: &Kit) -> Reaper {
    Reaper {
        queue: kit.queue.clone(),
        wake: kit.wake.clone(),
        metrics: kit.metrics.clone(),
        clock: kit.clock.clone(),
        ttl: kit.settings.ttl,
    }
}

/// What the workers of one process share.
#[derive(Debug)]
struct Crew {
    kit: Kit,
    scratch: Scratch,
    process: String,
    closing: CancellationToken,
    running: Arc<Running>,
    /// Memory that the attempts under way plan for.
    planned: AtomicU64,
    claiming: tokio::sync::Mutex<()>,
}

impl Crew {
    async fn begin(self, tasks: TaskTracker) {
        if self.kit.settings.neighbours == Neighbours::None {
            reaper(&self.kit).recover(&self.closing).await;
        }
        let crew = Arc::new(self);
        for number in 0..crew.kit.settings.workers {
            let crew = crew.clone();
            tasks.spawn(async move { supervise("claim", || crew.work(number)).await });
        }
    }

    /// One worker: claims and attempts, until the pool closes.
    async fn work(&self, number: usize) {
        let settings = &self.kit.settings;
        let mut node = Node {
            worker: format!("{}-{number}", self.process),
            ttl: settings.ttl,
            memory_bytes: settings.memory_bytes,
            most_memory_bytes: settings.memory_bytes,
            patience: PATIENCE,
            techniques: self.kit.engine.techniques(),
            most_of_tenant: settings.most_of_tenant,
        };
        while !self.closing.is_cancelled() {
            let ear = Ear::listen(&self.kit.wake);
            match self.claim_within(&mut node).await {
                Some((claim, planned)) => {
                    self.attempt(&claim, &node.worker).await;
                    // Whoever is woken finds its memory free.
                    drop(planned);
                    self.kit.wake.notify_waiters();
                }
                None => ear.wait_or_poll(&self.closing, settings.poll).await,
            }
        }
    }

    /// Claims what fits beside the attempts under way, and sets its memory aside. One worker at a time: two would each
    /// count on what is free for one of them.
    async fn claim_within(&self, node: &mut Node) -> Option<(Claim, Planned<'_>)> {
        let _alone = self.claiming.lock().await;
        node.memory_bytes = node
            .most_memory_bytes
            .saturating_sub(self.planned.load(Ordering::SeqCst));
        let claim = self.claim(node).await?;
        let planned = Planned::new(&self.planned, claim.need_memory_bytes);
        Some((claim, planned))
    }

    async fn claim(&self, node: &Node) -> Option<Claim> {
        let metrics = &self.kit.metrics;
        let begun = Instant::now();
        let claimed = self.kit.queue.claim(node).await;
        metrics.claim_duration.observe(begun.elapsed().as_secs_f64());
        match claimed {
            Ok(claim) => {
                ticked(metrics, self.kit.clock.as_ref(), "claim");
                claim
            }
            Err(error) => {
                tracing::warn!(%error, "nothing can be claimed now");
                None
            }
        }
    }

    async fn attempt(&self, claim: &Claim, worker: &str) {
        let kit = &self.kit;
        if claim.attempt == 1 {
            let waited = kit.clock.now() - claim.created_at;
            kit.metrics.job_wait.observe(waited.as_seconds_f64().max(0.0));
        }
        kit.metrics
            .memory_estimate_bytes
            .set(claim.need_memory_bytes.cast_signed());
        let traced = traces::attempt(&Attempted {
            job: &claim.lease.job.to_string(),
            attempt: claim.attempt,
            fence: claim.lease.fence,
            worker,
            cause: claim.traceparent.as_deref(),
        });
        let watch = Watch::new(
            kit.settings.ttl,
            kit.metrics.clone(),
            kit.clock.clone(),
            kit.probe.clone(),
            traced.in_scope(traces::Place::here),
        );
        let watch = Arc::new(watch);
        // A claim is as good as a beat: what is running must not look as if its worker were silent.
        watch.accepted();
        let _listed = Listed::new(&self.running, &watch);
        let _busy = Counted::new(&kit.metrics.workers_busy);
        let bench = Bench {
            kit,
            scratch: &self.scratch,
        };
        let lease = claim.lease;
        let span = tracing::info_span!("attempt", job = %lease.job, attempt = claim.attempt, fence = lease.fence,
            cause = claim.traceparent.as_deref(), trace_id = traced.in_scope(traces::trace_id));
        // The log's span is the inner one: tasks and threads of the attempt take it along.
        let attempt = bench.attempt(claim, watch.clone()).instrument(span);
        let word = attempt.instrument(traced.clone()).await;
        traces::ended(&traced, word);
        kit.metrics.attempts.with_label_values(&[word]).inc();
        if word == "lost" {
            kit.metrics.leases_lost.inc();
        }
        let peak = watch.spent().peak_rss_bytes;
        kit.metrics.memory_peak_bytes.set(peak.cast_signed());
        if peak > claim.need_memory_bytes {
            kit.metrics.memory_overruns.inc();
        }
    }
}

/// Memory that an attempt plans for, as long as this lives.
struct Planned<'a>(&'a AtomicU64, u64);

impl<'a> Planned<'a> {
    fn new(all: &'a AtomicU64, bytes: u64) -> Self {
        all.fetch_add(bytes, Ordering::SeqCst);
        Self(all, bytes)
    }
}

impl Drop for Planned<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::SeqCst);
    }
}

/// An attempt in the list of those under way, as long as this lives.
struct Listed<'a>(&'a Running, &'a Arc<Watch>);

impl<'a> Listed<'a> {
    fn new(running: &'a Running, watch: &'a Arc<Watch>) -> Self {
        running.add(watch);
        Self(running, watch)
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.remove(self.1);
    }
}
