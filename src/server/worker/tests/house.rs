//! A store, a blob folder and workers in a temporary folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use super::away::Distant;
use super::script::{Act, Script};
use crate::blobs::LocalBlobs;
use crate::domain::model::set_digest;
use crate::domain::ports::{Blobs as _, Bounds, Commit, Room, Store as _, SystemClock};
use crate::domain::queue::Retention;
use crate::domain::{
    Clock as _, Dataset, DatasetId, Document, FileRef, Job, JobId, Model, ModelId, ModelState, NewJob,
};
use crate::queue::reap::Neighbours;
use crate::queue::wake::POLL;
use crate::signing::Signer;
use crate::store::{Rows, sqlite};
use crate::telemetry::Metrics;
use crate::worker::probe::{self, Probe};
use crate::worker::{Kit, Pool, Settings};

/// What every made artifact holds.
pub(super) const OUTPUT: &[u8] = b"quantized";
/// After this long something is stuck.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) struct House {
    pub(super) folder: tempfile::TempDir,
    pub(super) rows: Arc<Rows>,
    pub(super) blobs: Arc<LocalBlobs>,
    /// Calls that workers make of the blob store before it answers.
    pub(super) away: Arc<AtomicUsize>,
    pub(super) wake: Arc<Notify>,
    pub(super) script: Arc<Script>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) probe: Arc<dyn Probe>,
    pub(super) model: ModelId,
    workers: usize,
    checkpoint: Option<Duration>,
    poll: Duration,
    pool: Option<Pool>,
}

impl House {
    /// With so many workers at work.
    pub(super) async fn new(workers: usize) -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let rows = sqlite::open(&folder.path().join("test.db"), Arc::new(SystemClock)).await;
        Self::over(
            folder,
            rows.expect("opens"),
            workers,
            None,
            Arc::new(probe::Silent),
        )
        .await
    }

    /// One worker that leaves checkpoints, and is watched.
    pub(super) async fn watched(rows: Option<Rows>, probe: Arc<dyn Probe>) -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let rows = if let Some(rows) = rows {
            rows
        } else {
            let rows = sqlite::open(&folder.path().join("test.db"), Arc::new(SystemClock)).await;
            rows.expect("opens")
        };
        Self::over(folder, rows, 1, Some(Duration::ZERO), probe).await
    }

    /// One worker that hardly looks by itself, over rows that other processes share.
    pub(super) async fn beside_others(rows: Rows) -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let mut house = Self::over(folder, rows, 0, None, Arc::new(probe::Silent)).await;
        house.poll = Duration::from_hours(1);
        house.with_workers(1)
    }

    async fn over(
        folder: tempfile::TempDir,
        rows: Rows,
        workers: usize,
        checkpoint: Option<Duration>,
        probe: Arc<dyn Probe>,
    ) -> Self {
        let mut house = Self {
            rows: Arc::new(rows),
            blobs: Arc::new(LocalBlobs::open(&folder.path().join("store")).expect("opens")),
            away: Arc::default(),
            wake: Arc::default(),
            script: Arc::default(),
            metrics: Arc::new(Metrics::new().expect("unique names")),
            probe,
            model: ModelId::from_uuid(Uuid::now_v7()),
            workers,
            checkpoint,
            poll: POLL,
            pool: None,
            folder,
        };
        house.add_model().await;
        house.hire();
        house
    }

    pub(super) fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self.hire();
        self
    }

    /// Starts the workers.
    pub(super) fn hire(&mut self) {
        let kit = Kit {
            queue: self.rows.clone(),
            blobs: Arc::new(Distant {
                blobs: self.blobs.clone(),
                away: self.away.clone(),
            }),
            clock: Arc::new(SystemClock),
            metrics: self.metrics.clone(),
            engine: self.script.clone(),
            signer: Arc::new(Signer::open_or_make(&self.folder.path().join("key"), [7; 32]).expect("makes")),
            wake: self.wake.clone(),
            news: self.wake.clone(),
            probe: self.probe.clone(),
            chance: || 0.0,
            settings: Settings {
                workers: self.workers,
                threads: 1,
                memory_bytes: 1 << 30,
                poll: self.poll,
                most_of_tenant: None,
                ttl: Duration::from_hours(1),
                checkpoint: self.checkpoint,
                decode_command: None,
                scratch: self.scratch(),
                neighbours: Neighbours::None,
                retention: Retention::default(),
            },
        };
        self.pool = Some(Pool::start(kit).expect("starts"));
    }

    pub(super) async fn release(&mut self, grace: Duration) {
        if let Some(pool) = self.pool.take() {
            pool.release(grace).await;
        }
    }

    /// Ends the workers and checks that they left nothing.
    pub(super) async fn close(mut self) {
        self.release(PATIENCE).await;
        let left: Vec<PathBuf> = std::fs::read_dir(self.scratch())
            .expect("lists")
            .map(|entry| entry.expect("reads").path())
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "left in scratch space");
    }

    /// Folders of attempts that are there now.
    pub(super) fn attempts_in_scratch(&self) -> usize {
        let processes = std::fs::read_dir(self.scratch()).expect("lists");
        let processes = processes.map(|process| process.expect("reads").path());
        let processes = processes.filter(|path| !path.ends_with("kept"));
        let entries = processes.flat_map(std::fs::read_dir);
        entries
            .flatten()
            .filter(|entry| entry.as_ref().is_ok_and(|e| e.path().is_dir()))
            .count()
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    async fn file(&self, name: &str, bytes: &'static [u8]) -> FileRef {
        let bounds = Bounds {
            max_bytes: 100,
            idle: PATIENCE,
            least_bytes_per_second: 0,
            reserve_bytes: 0,
            announced: None,
        };
        let body = futures_util::stream::iter([Ok(bytes::Bytes::from_static(bytes))]).boxed();
        let stored = self.blobs.put(body, bounds, None).await.expect("stores");
        FileRef {
            name: name.into(),
            digest: stored.digest,
            bytes: stored.bytes,
        }
    }

    async fn add_model(&self) {
        let file = self.file("model.safetensors", b"weights").await;
        let now = SystemClock.now();
        let model = Model {
            id: self.model,
            name: None,
            metadata: BTreeMap::new(),
            state: ModelState::Draft,
            files: vec![file.clone()],
            digest: None,
            summary: None,
            pull: None,
            created_at: now,
            committed_at: None,
        };
        self.rows.insert_model(&model).await.expect("inserts");
        let commit = Commit {
            digest: set_digest(std::slice::from_ref(&file)),
            files: vec![file],
            summary: json!({}),
            tensors: Vec::new(),
            at: now,
        };
        self.rows
            .commit_model(self.model, &commit)
            .await
            .expect("commits");
    }

    /// Removes the model's bytes behind the store's back.
    pub(super) fn lose_the_model(&self) {
        std::fs::remove_dir_all(self.folder.path().join("store").join("blobs")).expect("removes");
    }

    /// A dataset of one text file.
    pub(super) async fn add_dataset(&self, text: &'static str) -> DatasetId {
        let file = self.file("a.txt", text.as_bytes()).await;
        let dataset = Dataset {
            id: DatasetId::from_uuid(Uuid::now_v7()),
            name: None,
            metadata: BTreeMap::new(),
            digest: set_digest(std::slice::from_ref(&file)),
            files: vec![file],
            summary: json!({}),
            created_at: SystemClock.now(),
        };
        self.rows.insert_dataset(&dataset).await.expect("inserts");
        dataset.id
    }

    /// A job whose attempts follow the script.
    pub(super) async fn enqueue(&self, acts: &[Act]) -> JobId {
        self.enqueue_with(acts, Vec::new()).await
    }

    /// The same, with datasets.
    pub(super) async fn enqueue_with(&self, acts: &[Act], datasets: Vec<DatasetId>) -> JobId {
        let job = self.new_job(acts, datasets);
        self.send(&self.rows, &job).await;
        self.wake.notify_waiters();
        job.id
    }

    /// Adds a job through a store, and wakes nobody.
    pub(super) async fn send(&self, rows: &Rows, job: &NewJob) {
        rows.enqueue(job, Room::of(100)).await.expect("enqueues");
    }

    /// A job whose attempts will follow the script.
    pub(super) fn new_job(&self, acts: &[Act], datasets: Vec<DatasetId>) -> NewJob {
        let id = JobId::from_uuid(Uuid::now_v7());
        self.script.write(id, acts);
        NewJob {
            id,
            model: self.model,
            recipe: json!("a recipe"),
            plan: Document::of(&json!({"job": id.to_string()})).expect("JSON"),
            need_memory_bytes: 1,
            techniques: vec!["affine".into()],
            datasets,
            metadata: BTreeMap::new(),
            priority: 0,
            dedupe_key: None,
            traceparent: None,
            idempotency: None,
            created_at: SystemClock.now(),
        }
    }

    /// The job once it is over.
    pub(super) async fn ended(&self, id: JobId) -> Job {
        let wait = async {
            loop {
                let job = self.rows.job(id).await.expect("known");
                if job.state.is_terminal() {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the job is stuck")
    }

    pub(super) async fn messages(&self, id: JobId) -> Vec<String> {
        let events = self.rows.list_events(id, 0, 1000).await.expect("lists");
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
        events.into_iter().map(|event| event.message).collect()
    }
}
