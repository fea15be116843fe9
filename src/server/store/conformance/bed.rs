//! A fresh store for one scenario, and short words for what scenarios do.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::ports::{Commit, Enqueued, Room, Store as _, StoreError};
use crate::domain::queue::{Beat, Claim, End, Ending, Lease, Node, Publication, Queue as _, QueueError};
use crate::domain::*;
use crate::store::{Rows, postgres, sqlite};

pub(super) const HOUR: Duration = Duration::from_hours(1);
const START_MS: i64 = 1_750_000_000_000;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(super) struct StillClock(AtomicI64);

impl Clock for StillClock {
    fn now(&self) -> OffsetDateTime {
        let nanos = i128::from(self.0.load(Ordering::SeqCst)) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("in range")
    }
}

impl StillClock {
    pub(super) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

/// A store with one ready model in it.
#[derive(Clone)]
pub(super) struct Bed {
    pub(super) rows: Arc<Rows>,
    pub(super) clock: Arc<StillClock>,
    pub(super) model: ModelId,
}

pub(super) type Scenario = fn(Bed) -> BoxFuture<'static, ()>;

fn clock() -> Arc<StillClock> {
    Arc::new(StillClock(AtomicI64::new(START_MS)))
}

pub(super) async fn on_sqlite(scenario: Scenario) {
    let folder = tempfile::tempdir().expect("temp folder");
    let clock = clock();
    let rows = sqlite::open(&folder.path().join("test.db"), clock.clone()).await;
    scenario(Bed::new(rows.expect("opens"), clock).await).await;
}

/// Runs in a schema of its own, which goes afterwards whatever happened.
pub(super) async fn on_postgres(name: &str, scenario: Scenario) {
    let Some(url) = postgres_url(name) else { return };
    let schema = Schema::create(&url).await;
    let clock = clock();
    let rows = postgres::open(&schema.url, clock.clone()).await.expect("opens");
    let bed = Bed::new(rows, clock).await;
    let result = AssertUnwindSafe(scenario(bed)).catch_unwind().await;
    schema.drop().await;
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn postgres_url(name: &str) -> Option<String> {
    let url = std::env::var("MODELPRESS_TEST_POSTGRES_URL").ok();
    if url.is_none() {
        println!("SKIPPED on PostgreSQL: {name} (set MODELPRESS_TEST_POSTGRES_URL to run it)");
    }
    url
}

/// A schema in the test database.
pub(crate) struct Schema {
    admin: sqlx::PgPool,
    name: String,
    pub(crate) url: String,
}

impl Schema {
    pub(crate) async fn create(url: &str) -> Self {
        let name = format!("test_{}", Uuid::now_v7().simple());
        let admin = sqlx::PgPool::connect(url).await.expect("PostgreSQL answers");
        let made = Self {
            admin,
            name,
            url: String::new(),
        };
        made.run(&format!("CREATE SCHEMA {}", made.name)).await;
        let mark = if url.contains('?') { '&' } else { '?' };
        Self {
            url: format!("{url}{mark}options=-c%20search_path%3D{}", made.name),
            ..made
        }
    }

    pub(crate) async fn drop(self) {
        self.run(&format!("DROP SCHEMA {} CASCADE", self.name)).await;
    }

    /// Runs a statement beside the store.
    pub(crate) async fn run(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::query(sql)
            .execute(&self.admin)
            .await
            .expect("statement runs");
    }
}

pub(super) fn digest(letter: char) -> String {
    letter.to_string().repeat(64)
}

pub(super) fn node(ttl: Duration) -> Node {
    Node {
        worker: "worker-a".into(),
        ttl,
        memory_bytes: 1000,
        most_memory_bytes: 1000,
        patience: HOUR,
        techniques: vec!["affine".into(), "gguf".into()],
        most_of_tenant: None,
    }
}

pub(super) fn ending(end: End) -> Ending {
    Ending {
        end,
        events: Vec::new(),
        progress: Progress::default(),
        peak_memory_bytes: 7,
        next_memory_bytes: None,
    }
}

pub(super) fn failure(code: &str) -> Failure {
    Failure {
        code: code.into(),
        message: format!("{code} happened"),
    }
}

pub(super) fn beat(ttl: Duration) -> Beat {
    Beat {
        ttl,
        ..Beat::default()
    }
}

pub(super) fn is_lost<T>(result: &Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::Lost))
}

impl Bed {
    async fn new(mut rows: Rows, clock: Arc<StillClock>) -> Self {
        rows.chance = || 0.0;
        let bed = Self {
            rows: Arc::new(rows),
            clock,
            model: ModelId::from_uuid(Uuid::now_v7()),
        };
        bed.ready_model(bed.model).await;
        bed
    }

    pub(super) fn draft(&self, id: ModelId) -> Model {
        Model {
            id,
            name: Some("tiny".into()),
            metadata: BTreeMap::from([("team".into(), "blue".into())]),
            state: ModelState::Draft,
            files: Vec::new(),
            digest: None,
            summary: None,
            pull: None,
            created_at: self.clock.now(),
            committed_at: None,
        }
    }

    pub(super) fn commit(&self, files: Vec<FileRef>) -> Commit {
        let tensor = |n: u64| TensorRow {
            name: format!("layer.{n}.weight"),
            dtype: "F16".into(),
            shape: vec![4, n],
            bytes: 8 * n,
        };
        Commit {
            digest: crate::domain::model::set_digest(&files),
            files,
            summary: json!({"format": "safetensors", "z": 1, "a": 2}),
            tensors: (0..5).map(tensor).collect(),
            at: self.clock.now(),
        }
    }

    pub(super) async fn ready_model(&self, id: ModelId) {
        let file = FileRef {
            name: "model.safetensors".into(),
            digest: digest('a'),
            bytes: 10,
        };
        self.rows.insert_model(&self.draft(id)).await.expect("new");
        self.rows.put_model_file(id, &file).await.expect("draft");
        self.rows
            .commit_model(id, &self.commit(vec![file]))
            .await
            .expect("same files");
    }

    pub(super) fn new_job(&self) -> NewJob {
        NewJob {
            id: JobId::from_uuid(Uuid::now_v7()),
            model: self.model,
            recipe: json!("Q4_K_M"),
            plan: Document::from_store(r#"{"z":"the plan","a":1}"#.into()),
            need_memory_bytes: 100,
            techniques: vec!["affine".into()],
            datasets: Vec::new(),
            metadata: BTreeMap::new(),
            priority: 0,
            dedupe_key: None,
            traceparent: None,
            idempotency: None,
            created_at: self.clock.now(),
        }
    }

    pub(super) async fn send(&self, job: &NewJob) -> Result<Enqueued, StoreError> {
        self.rows.enqueue(job, Room::of(1_000_000)).await
    }

    /// Enqueues a job like [`Bed::new_job`].
    pub(super) async fn enqueue(&self) -> JobId {
        let job = self.new_job();
        self.send(&job).await.expect("enqueues");
        job.id
    }

    pub(super) async fn claim(&self, ttl: Duration) -> Option<Claim> {
        self.rows.claim(&node(ttl)).await.expect("claims")
    }

    /// Enqueues a job and claims it.
    pub(super) async fn claimed(&self, ttl: Duration) -> Lease {
        let id = self.enqueue().await;
        let claim = self.claim(ttl).await.expect("there is one");
        assert_eq!(claim.lease.job, id);
        claim.lease
    }

    pub(super) async fn finish(&self, lease: Lease, end: End) -> Result<JobState, QueueError> {
        self.rows.finish(lease, &ending(end)).await
    }

    pub(super) async fn job(&self, id: JobId) -> Job {
        self.rows.job(id).await.expect("known")
    }

    pub(super) async fn state(&self, id: JobId) -> JobState {
        self.job(id).await.state
    }

    pub(super) async fn events(&self, id: JobId) -> Vec<Event> {
        self.rows.list_events(id, 0, 1000).await.expect("lists")
    }

    pub(super) async fn messages(&self, id: JobId) -> Vec<String> {
        self.events(id)
            .await
            .into_iter()
            .map(|event| event.message)
            .collect()
    }

    pub(super) fn publication(&self, job: JobId, letter: char) -> Publication {
        let artifact = Artifact {
            id: ArtifactId::from_uuid(Uuid::now_v7()),
            job,
            model: self.model,
            format: "gguf".into(),
            digest: digest(letter),
            files: vec![FileRef {
                name: "model.gguf".into(),
                digest: digest(letter),
                bytes: 5,
            }],
            created_at: self.clock.now(),
        };
        Publication {
            artifacts: vec![artifact],
            report: Document::from_store(r#"{"z":1,"ratio":3.5}"#.into()),
        }
    }
}
