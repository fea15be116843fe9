//! The ports, call by call.
//!
//! Owns: which function answers which call, and that each has a time limit.
//! Must not know: how any of them does it.
//! Invariant: no call waits longer than the limit of `db::timed`.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use time::OffsetDateTime;
use tokio_util::sync::DropGuard;

use super::bell::Bell;
use super::db::{Arg, Db, text, timed};
use super::gather::Gather;
use super::live::Live;
use super::statement as sql;
use super::{endings, migrate};
use crate::domain::job::Progress;
use crate::domain::model::TensorRow;
use crate::domain::ports::{
    Commit, Counts, Enqueued, JobFilter, Reply, Room, Sought, Store, StoreError, Stores,
};
use crate::domain::pull::NewPull;
use crate::domain::queue::{
    Beat, Claim, Ending, Fenced, Lease, NewEvent, Node, Pruned, Pulse, Queue, Reaped, Retention, Ring, Silent,
};
use crate::domain::search::NewSearch;
use crate::domain::{
    ApiKey, Artifact, ArtifactFilter, ArtifactId, Clock, Dataset, DatasetId, Document, Entry, EntryId, Event,
    FileRef, Hooks, Job, JobId, JobState, KeyId, Model, ModelId, NewJob, NodeLoad, Overview, Search,
    SearchId, Tenant, Upload, UploadId,
};

/// A database that is open. As a [`Store`] it is that of one tenant, at first the default one; as [`Stores`] and
/// [`Queue`] that of all.
#[derive(Debug, Clone)]
pub struct Rows {
    pub(super) db: Arc<Db>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) live: Arc<Live>,
    pub(super) gather: Arc<Gather>,
    pub(super) tenant: Tenant,
    /// A random number in [0, 1), for jitter.
    pub(super) chance: fn() -> f64,
    /// None where this process is alone on its database.
    neighbours: Option<Arc<Neighbours>>,
}

/// The way to other processes on the same database.
pub(super) struct Neighbours {
    pub(super) words: Arc<Bell>,
    pub(super) listen: Arc<dyn Fn() -> BoxStream<'static, Ring> + Send + Sync>,
    /// Ends whoever says the words.
    pub(super) _end: DropGuard,
}

impl std::fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.words.fmt(f)
    }
}

impl Rows {
    pub(super) fn new(db: Db, clock: Arc<dyn Clock>) -> Self {
        Self {
            db: Arc::new(db),
            clock,
            live: Arc::default(),
            gather: Arc::default(),
            tenant: Tenant::default(),
            chance: rand::random,
            neighbours: None,
        }
    }

    /// The same, beside other processes.
    pub(super) fn with_neighbours(mut self, neighbours: Neighbours) -> Self {
        self.neighbours = Some(Arc::new(neighbours));
        self
    }

    /// Tells other processes, if what was done changed anything.
    fn ring(&self, ring: Ring, changed: bool) {
        if let Some(neighbours) = self.neighbours.as_ref().filter(|_| changed) {
            neighbours.words.ring(ring);
        }
    }

    /// The tenant, as an argument.
    pub(super) fn owner(&self) -> Arg<'static> {
        text(&self.tenant)
    }

    async fn is_current(&self) -> Result<(), StoreError> {
        let row = self.db.read().await?.one(&sql::SCHEMA_VERSION, &[]).await?;
        let version = row.map_or(Ok(0), |row| row.int("version"))?;
        if version == migrate::CURRENT {
            return Ok(());
        }
        Err(StoreError::Unavailable(format!(
            "the schema is at version {version}, this program needs {}",
            migrate::CURRENT
        )))
    }
}

impl Stores for Rows {
    fn ready(&self) -> Reply<'_, ()> {
        timed(self.is_current()).boxed()
    }

    fn counts(&self) -> Reply<'_, Counts> {
        timed(self.count_jobs()).boxed()
    }

    fn loads(&self) -> Reply<'_, Vec<NodeLoad>> {
        timed(self.sum_up_nodes()).boxed()
    }

    fn of(&self, tenant: &Tenant) -> Arc<dyn Store> {
        Arc::new(Self {
            tenant: tenant.clone(),
            ..self.clone()
        })
    }

    fn hooks_of(&self, tenant: &Tenant) -> Arc<dyn Hooks> {
        Arc::new(Self {
            tenant: tenant.clone(),
            ..self.clone()
        })
    }

    fn key_of_any(&self, id: KeyId) -> Reply<'_, ApiKey> {
        timed(self.find_any_key(id)).boxed()
    }

    fn touch_key(&self, id: KeyId, at: OffsetDateTime) -> Reply<'_, ()> {
        timed(self.note_use(id, at)).boxed()
    }

    fn has_good_key(&self, now: OffsetDateTime) -> Reply<'_, bool> {
        timed(self.any_good_key(now)).boxed()
    }

    fn expired_uploads(&self, now: OffsetDateTime, limit: u32) -> Reply<'_, Vec<UploadId>> {
        timed(self.uploads_before(now, limit)).boxed()
    }

    fn drop_upload(&self, id: UploadId) -> Reply<'_, ()> {
        timed(self.remove_any_upload(id)).boxed()
    }

    fn unreferenced<'a>(&'a self, digests: &'a [String]) -> Reply<'a, Vec<String>> {
        timed(self.orphans(digests)).boxed()
    }
}

impl Store for Rows {
    fn stored_bytes(&self) -> Reply<'_, u64> {
        timed(self.count_bytes()).boxed()
    }

    fn add_entry<'a>(&'a self, entry: &'a Entry) -> Reply<'a, ()> {
        timed(self.write_entry(entry)).boxed()
    }

    fn list_entries(&self, after: Option<EntryId>, limit: u32) -> Reply<'_, Vec<Entry>> {
        timed(self.page_of_entries(after, limit)).boxed()
    }

    fn insert_key<'a>(&'a self, key: &'a ApiKey) -> Reply<'a, ()> {
        timed(self.add_key(key)).boxed()
    }

    fn key(&self, id: KeyId) -> Reply<'_, ApiKey> {
        timed(self.find_key(id)).boxed()
    }

    fn list_keys(&self, after: Option<KeyId>, limit: u32) -> Reply<'_, Vec<ApiKey>> {
        timed(self.page_of_keys(after, limit)).boxed()
    }

    fn revoke_key(&self, id: KeyId, at: OffsetDateTime) -> Reply<'_, ApiKey> {
        timed(self.end_key(id, at)).boxed()
    }

    fn replace_key<'a>(&'a self, old: KeyId, new: &'a ApiKey, until: OffsetDateTime) -> Reply<'a, ()> {
        timed(self.rotate_key(old, new, until)).boxed()
    }

    fn insert_model<'a>(&'a self, model: &'a Model) -> Reply<'a, ()> {
        timed(self.add_model(model)).boxed()
    }

    fn begin_pull<'a>(&'a self, model: &'a Model, pull: &'a NewPull) -> Reply<'a, ()> {
        timed(self.add_pull(model, pull)).boxed()
    }

    fn model(&self, id: ModelId) -> Reply<'_, Model> {
        timed(self.find_model(id)).boxed()
    }

    fn list_models(&self, after: Option<ModelId>, limit: u32) -> Reply<'_, Vec<Model>> {
        timed(self.page_of_models(after, limit)).boxed()
    }

    fn put_model_file<'a>(&'a self, id: ModelId, file: &'a FileRef) -> Reply<'a, Option<FileRef>> {
        timed(self.put_file(id, file)).boxed()
    }

    fn commit_model<'a>(&'a self, id: ModelId, commit: &'a Commit) -> Reply<'a, Model> {
        timed(self.make_ready(id, commit)).boxed()
    }

    fn list_tensors(&self, id: ModelId, offset: u64, limit: u32) -> Reply<'_, Vec<TensorRow>> {
        timed(self.page_of_tensors(id, offset, limit)).boxed()
    }

    fn delete_model(&self, id: ModelId) -> Reply<'_, Vec<FileRef>> {
        timed(self.remove_model(id)).boxed()
    }

    fn insert_dataset<'a>(&'a self, dataset: &'a Dataset) -> Reply<'a, ()> {
        timed(self.add_dataset(dataset)).boxed()
    }

    fn dataset(&self, id: DatasetId) -> Reply<'_, Dataset> {
        timed(self.find_dataset(id)).boxed()
    }

    fn list_datasets(&self, after: Option<DatasetId>, limit: u32) -> Reply<'_, Vec<Dataset>> {
        timed(self.page_of_datasets(after, limit)).boxed()
    }

    fn delete_dataset(&self, id: DatasetId) -> Reply<'_, Vec<FileRef>> {
        timed(self.remove_dataset(id)).boxed()
    }

    fn insert_upload<'a>(&'a self, upload: &'a Upload) -> Reply<'a, ()> {
        timed(self.add_upload(upload)).boxed()
    }

    fn upload(&self, id: UploadId) -> Reply<'_, Upload> {
        timed(self.find_upload(id)).boxed()
    }

    fn announce_upload(&self, id: UploadId, length: u64) -> Reply<'_, ()> {
        timed(self.set_upload_length(id, length)).boxed()
    }

    fn complete_upload<'a>(&'a self, id: UploadId, digest: &'a str, bytes: u64) -> Reply<'a, ()> {
        timed(self.end_upload(id, digest, bytes)).boxed()
    }

    fn delete_upload(&self, id: UploadId) -> Reply<'_, ()> {
        timed(self.remove_upload(id)).boxed()
    }

    fn enqueue<'a>(&'a self, job: &'a NewJob, room: Room) -> Reply<'a, Enqueued> {
        async move {
            let enqueued = timed(self.add_job(job, room)).await;
            self.ring(Ring::Work, matches!(enqueued, Ok(Enqueued::New(_))));
            enqueued
        }
        .boxed()
    }

    fn add_search<'a>(&'a self, search: &'a NewSearch, room: Room) -> Reply<'a, Sought> {
        async move {
            let added = timed(self.insert_search(search, room)).await;
            self.ring(Ring::Work, matches!(added, Ok(Sought::New(_))));
            added
        }
        .boxed()
    }

    fn search(&self, id: SearchId) -> Reply<'_, Search> {
        timed(self.find_search(id)).boxed()
    }

    fn list_searches(&self, after: Option<SearchId>, limit: u32) -> Reply<'_, Vec<Search>> {
        timed(self.page_of_searches(after, limit)).boxed()
    }

    fn cancel_search(&self, id: SearchId) -> Reply<'_, Search> {
        timed(self.end_search(id)).boxed()
    }

    fn job(&self, id: JobId) -> Reply<'_, Job> {
        timed(self.find_job(id)).boxed()
    }

    fn list_jobs<'a>(&'a self, filter: &'a JobFilter) -> Reply<'a, Vec<Job>> {
        timed(self.page_of_jobs(filter)).boxed()
    }

    fn list_events(&self, id: JobId, after: u64, limit: u32) -> Reply<'_, Vec<Event>> {
        timed(self.events_after(id, after, limit)).boxed()
    }

    fn cancel_job<'a>(&'a self, id: JobId, reason: &'a str) -> Reply<'a, Job> {
        async move {
            let cancelled = timed(self.cancel(id, reason)).await;
            self.ring(Ring::News, cancelled.is_ok());
            cancelled
        }
        .boxed()
    }

    fn report(&self, id: JobId) -> Reply<'_, Document> {
        timed(self.find_report(id)).boxed()
    }

    fn artifact(&self, id: ArtifactId) -> Reply<'_, Artifact> {
        timed(self.find_artifact(id)).boxed()
    }

    fn list_artifacts<'a>(&'a self, filter: &'a ArtifactFilter) -> Reply<'a, Vec<Artifact>> {
        timed(self.page_of_artifacts(filter)).boxed()
    }

    fn overview(&self, since: OffsetDateTime) -> Reply<'_, Overview> {
        timed(self.sum_up(since)).boxed()
    }
}

impl Queue for Rows {
    fn claim<'a>(&'a self, node: &'a Node) -> BoxFuture<'a, Result<Option<Claim>, StoreError>> {
        timed(self.take_next(node)).boxed()
    }

    fn beat<'a>(&'a self, lease: Lease, beat: &'a Beat) -> Fenced<'a, Pulse> {
        timed(self.extend(lease, beat)).boxed()
    }

    fn tick(&self, lease: Lease, progress: &Progress) {
        self.live.tick(lease, progress);
    }

    fn record<'a>(&'a self, lease: Lease, events: &'a [NewEvent]) -> Fenced<'a, ()> {
        timed(self.add_events(lease, events)).boxed()
    }

    fn announce<'a>(&'a self, lease: Lease, digests: &'a [String]) -> Fenced<'a, ()> {
        timed(self.hold_blobs(lease, digests)).boxed()
    }

    fn checkpoint<'a>(&'a self, lease: Lease, files: &'a [FileRef]) -> Fenced<'a, ()> {
        timed(self.keep_checkpoint(lease, files)).boxed()
    }

    fn finish<'a>(&'a self, lease: Lease, ending: &'a Ending) -> Fenced<'a, JobState> {
        async move {
            let state = timed(self.end_attempt(lease, ending)).await;
            if !matches!(state, Err(ref error) if endings::may_try_again(error)) {
                self.live.forget(lease);
            }
            self.ring(Ring::Work, state.is_ok());
            state
        }
        .boxed()
    }

    fn reap(&self, silent: Silent) -> BoxFuture<'_, Result<Vec<Reaped>, StoreError>> {
        async move {
            let reaped = timed(self.take_back(silent)).await;
            self.ring(Ring::Work, reaped.as_ref().is_ok_and(|jobs| !jobs.is_empty()));
            reaped
        }
        .boxed()
    }

    fn live<'a>(&'a self, jobs: &'a [JobId]) -> BoxFuture<'a, Result<Vec<JobId>, StoreError>> {
        timed(self.those_not_over(jobs)).boxed()
    }

    fn rings(&self) -> Option<BoxStream<'static, Ring>> {
        self.neighbours.as_ref().map(|neighbours| (neighbours.listen)())
    }

    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned, StoreError>> {
        timed(self.drop_old(retention)).boxed()
    }
}
