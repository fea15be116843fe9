//! A store in memory: the plainest possible reading of the `Store` port, with a switch that makes it fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt as _;
use modelpress_server::domain::job::Progress;
use modelpress_server::domain::ports::{
    Clock as _, Commit, Counts, Enqueued, JobFilter, Reply, Room, Sought, Store, StoreError, Stores,
    SystemClock,
};
use modelpress_server::domain::pull::{NewPull, PullState};
use modelpress_server::domain::search::NewSearch;
use modelpress_server::domain::{
    ApiKey, Artifact, ArtifactFilter, ArtifactId, Dataset, DatasetId, Document, Entry, EntryId, Event,
    FileRef, Hooks, Job, JobId, JobState, KeyId, Model, ModelId, ModelState, NewJob, NodeLoad, Overview,
    Pull, Search, SearchId, Tenant, TensorRow, Upload, UploadId, Webhook, WebhookId,
};

use super::advance::advance;
use super::sums::{artifacts, overview, unreferenced};

/// Everything, in maps.
#[derive(Debug, Default)]
pub struct Tables {
    pub models: BTreeMap<ModelId, (Model, Vec<TensorRow>)>,
    pub datasets: BTreeMap<DatasetId, Dataset>,
    pub uploads: BTreeMap<UploadId, Upload>,
    pub jobs: BTreeMap<JobId, Job>,
    pub searches: BTreeMap<SearchId, Search>,
    pub events: BTreeMap<JobId, Vec<Event>>,
    pub entries: BTreeMap<EntryId, Entry>,
    pub api_keys: BTreeMap<KeyId, ApiKey>,
    pub keys: BTreeMap<String, ([u8; 32], JobId)>,
    pub webhooks: BTreeMap<WebhookId, Webhook>,
    pub reports: BTreeMap<JobId, Document>,
    pub artifacts: BTreeMap<ArtifactId, Artifact>,
}

/// The store: of one tenant, whoever asks.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore(Arc<Shared>);

/// What every handle on the store shares.
#[derive(Debug, Default)]
pub struct Shared {
    pub tables: Mutex<Tables>,
    pub broken: AtomicBool,
}

impl std::ops::Deref for MemoryStore {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

type Done<T> = Result<T, StoreError>;

impl MemoryStore {
    fn run<'a, T: Send + 'a>(&self, work: impl FnOnce(&mut Tables) -> Done<T>) -> Reply<'a, T> {
        let result = if self.broken.load(Ordering::SeqCst) {
            Err(StoreError::Unavailable("secret host name".into()))
        } else {
            work(&mut self.lock())
        };
        std::future::ready(result).boxed()
    }

    pub fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("not poisoned")
    }

    /// What a worker would do: the next state of a job, with its event.
    pub fn advance(&self, id: JobId, state: JobState) {
        let mut tables = self.lock();
        advance(&mut tables, id, state);
    }
}

fn known<T: Clone>(found: Option<&T>) -> Done<T> {
    found.cloned().ok_or(StoreError::NotFound)
}

impl Stores for MemoryStore {
    fn ready(&self) -> Reply<'_, ()> {
        self.run(|_| Ok(()))
    }

    fn counts(&self) -> Reply<'_, Counts> {
        self.run(|t| {
            let jobs = JobState::ALL.map(|s| (s, t.jobs.values().filter(|j| j.state == s).count() as u64));
            let queued = t.jobs.values().filter(|j| j.state == JobState::Queued);
            Ok(Counts {
                jobs: jobs.to_vec(),
                oldest_queued_at: queued.map(|j| j.created_at).min(),
            })
        })
    }

    fn of(&self, _tenant: &Tenant) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }

    fn hooks_of(&self, _tenant: &Tenant) -> Arc<dyn Hooks> {
        Arc::new(self.clone())
    }

    fn key_of_any(&self, id: KeyId) -> Reply<'_, ApiKey> {
        self.key(id)
    }

    fn touch_key(&self, id: KeyId, at: time::OffsetDateTime) -> Reply<'_, ()> {
        self.run(|t| {
            t.api_keys.get_mut(&id).ok_or(StoreError::NotFound)?.last_used_at = Some(at);
            Ok(())
        })
    }

    fn has_good_key(&self, now: time::OffsetDateTime) -> Reply<'_, bool> {
        self.run(|t| Ok(t.api_keys.values().any(|key| key.is_good(now))))
    }

    fn expired_uploads(&self, now: time::OffsetDateTime, limit: u32) -> Reply<'_, Vec<UploadId>> {
        self.run(|t| {
            let old = t.uploads.values().filter(|u| u.expires_at < now);
            Ok(old.take(limit as usize).map(|u| u.id).collect())
        })
    }

    fn drop_upload(&self, id: UploadId) -> Reply<'_, ()> {
        self.delete_upload(id)
    }

    fn unreferenced<'a>(&'a self, digests: &'a [String]) -> Reply<'a, Vec<String>> {
        self.run(|t| Ok(unreferenced(t, digests)))
    }

    fn loads(&self) -> Reply<'_, Vec<NodeLoad>> {
        self.run(|_| Ok(Vec::new()))
    }
}

impl Store for MemoryStore {
    fn stored_bytes(&self) -> Reply<'_, u64> {
        self.run(|t| {
            let files = t.models.values().flat_map(|(model, _)| &model.files);
            Ok(files.map(|file| file.bytes).sum())
        })
    }

    fn add_entry<'a>(&'a self, entry: &'a Entry) -> Reply<'a, ()> {
        self.run(|t| {
            t.entries.insert(entry.id, entry.clone());
            Ok(())
        })
    }

    fn list_entries(&self, after: Option<EntryId>, limit: u32) -> Reply<'_, Vec<Entry>> {
        self.run(|t| {
            let rows = t.entries.values().rev();
            let rows = rows.filter(|entry| after.is_none_or(|after| entry.id < after));
            Ok(rows.take(limit as usize).cloned().collect())
        })
    }

    fn insert_key<'a>(&'a self, key: &'a ApiKey) -> Reply<'a, ()> {
        self.run(|t| {
            t.api_keys.insert(key.id, key.clone());
            Ok(())
        })
    }

    fn key(&self, id: KeyId) -> Reply<'_, ApiKey> {
        self.run(|t| known(t.api_keys.get(&id)))
    }

    fn list_keys(&self, after: Option<KeyId>, limit: u32) -> Reply<'_, Vec<ApiKey>> {
        self.run(|t| {
            let rows = t.api_keys.values().rev();
            let rows = rows.filter(|key| after.is_none_or(|after| key.id < after));
            Ok(rows.take(limit as usize).cloned().collect())
        })
    }

    fn revoke_key(&self, id: KeyId, at: time::OffsetDateTime) -> Reply<'_, ApiKey> {
        self.run(|t| {
            let key = t.api_keys.get_mut(&id).ok_or(StoreError::NotFound)?;
            key.revoked_at.get_or_insert(at);
            Ok(key.clone())
        })
    }

    fn replace_key<'a>(&'a self, old: KeyId, new: &'a ApiKey, until: time::OffsetDateTime) -> Reply<'a, ()> {
        self.run(|t| {
            t.api_keys.get_mut(&old).ok_or(StoreError::NotFound)?.expires_at = Some(until);
            t.api_keys.insert(new.id, new.clone());
            Ok(())
        })
    }

    fn insert_model<'a>(&'a self, model: &'a Model) -> Reply<'a, ()> {
        self.run(|t| {
            t.models.insert(model.id, (model.clone(), Vec::new()));
            Ok(())
        })
    }

    fn begin_pull<'a>(&'a self, model: &'a Model, pull: &'a NewPull) -> Reply<'a, ()> {
        let pull = Pull {
            source: pull.source.to_string(),
            revision: None,
            state: PullState::Active,
            files: 0,
            files_done: 0,
            bytes: 0,
            bytes_done: 0,
            note: None,
            failure: None,
        };
        let pull = Some(pull);
        self.run(|t| {
            t.models.insert(
                model.id,
                (
                    Model {
                        pull,
                        ..model.clone()
                    },
                    Vec::new(),
                ),
            );
            Ok(())
        })
    }

    fn model(&self, id: ModelId) -> Reply<'_, Model> {
        self.run(|t| Ok(known(t.models.get(&id))?.0))
    }

    fn list_models(&self, after: Option<ModelId>, limit: u32) -> Reply<'_, Vec<Model>> {
        self.run(|t| {
            let rows = t
                .models
                .values()
                .rev()
                .map(|(m, _)| m)
                .filter(|m| after.is_none_or(|a| m.id < a));
            Ok(rows.take(limit as usize).cloned().collect())
        })
    }

    fn put_model_file<'a>(&'a self, id: ModelId, file: &'a FileRef) -> Reply<'a, Option<FileRef>> {
        self.run(|t| {
            let (model, _) = t.models.get_mut(&id).ok_or(StoreError::NotFound)?;
            if model.state == ModelState::Ready {
                return Err(StoreError::Conflict("the model is ready".into()));
            }
            let at = model.files.iter().position(|f| f.name == file.name);
            let old = at.map(|at| model.files.remove(at));
            model.files.push(file.clone());
            model.files.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(old)
        })
    }

    fn commit_model<'a>(&'a self, id: ModelId, commit: &'a Commit) -> Reply<'a, Model> {
        self.run(|t| {
            let (model, tensors) = t.models.get_mut(&id).ok_or(StoreError::NotFound)?;
            if model.files != commit.files {
                return Err(StoreError::Conflict("the files have changed".into()));
            }
            model.state = ModelState::Ready;
            model.digest = Some(commit.digest.clone());
            model.summary = Some(commit.summary.clone());
            model.committed_at = Some(commit.at);
            tensors.clone_from(&commit.tensors);
            Ok(model.clone())
        })
    }

    fn list_tensors(&self, id: ModelId, offset: u64, limit: u32) -> Reply<'_, Vec<TensorRow>> {
        self.run(|t| {
            let (_, tensors) = known(t.models.get(&id))?;
            Ok(tensors
                .into_iter()
                .skip(offset as usize)
                .take(limit as usize)
                .collect())
        })
    }

    fn delete_model(&self, id: ModelId) -> Reply<'_, Vec<FileRef>> {
        self.run(|t| {
            if t.jobs
                .values()
                .any(|job| job.model == id && !job.state.is_terminal())
            {
                return Err(StoreError::InUse);
            }
            Ok(t.models.remove(&id).ok_or(StoreError::NotFound)?.0.files)
        })
    }

    fn insert_dataset<'a>(&'a self, dataset: &'a Dataset) -> Reply<'a, ()> {
        self.run(|t| {
            t.datasets.insert(dataset.id, dataset.clone());
            Ok(())
        })
    }

    fn dataset(&self, id: DatasetId) -> Reply<'_, Dataset> {
        self.run(|t| known(t.datasets.get(&id)))
    }

    fn list_datasets(&self, after: Option<DatasetId>, limit: u32) -> Reply<'_, Vec<Dataset>> {
        self.run(|t| {
            let rows = t.datasets.values().rev();
            let rows = rows.filter(|dataset| after.is_none_or(|after| dataset.id < after));
            Ok(rows.take(limit as usize).cloned().collect())
        })
    }

    fn delete_dataset(&self, id: DatasetId) -> Reply<'_, Vec<FileRef>> {
        self.run(|t| Ok(t.datasets.remove(&id).ok_or(StoreError::NotFound)?.files))
    }

    fn insert_upload<'a>(&'a self, upload: &'a Upload) -> Reply<'a, ()> {
        self.run(|t| {
            t.uploads.insert(upload.id, upload.clone());
            Ok(())
        })
    }

    fn upload(&self, id: UploadId) -> Reply<'_, Upload> {
        self.run(|t| known(t.uploads.get(&id)))
    }

    fn announce_upload(&self, id: UploadId, length: u64) -> Reply<'_, ()> {
        self.run(|t| {
            t.uploads.get_mut(&id).ok_or(StoreError::NotFound)?.length = Some(length);
            Ok(())
        })
    }

    fn complete_upload<'a>(&'a self, id: UploadId, digest: &'a str, bytes: u64) -> Reply<'a, ()> {
        self.run(|t| {
            t.uploads.get_mut(&id).ok_or(StoreError::NotFound)?.complete = Some((digest.into(), bytes));
            Ok(())
        })
    }

    fn delete_upload(&self, id: UploadId) -> Reply<'_, ()> {
        self.run(|t| {
            t.uploads.remove(&id);
            Ok(())
        })
    }

    fn enqueue<'a>(&'a self, job: &'a NewJob, room: Room) -> Reply<'a, Enqueued> {
        self.run(|t| {
            if let Some((key, print)) = &job.idempotency {
                match t.keys.get(key) {
                    Some((seen, id)) if seen == print => return Ok(Enqueued::Replayed(t.jobs[id].clone())),
                    Some(_) => return Err(StoreError::KeyMismatch),
                    None => {}
                }
                t.keys.insert(key.clone(), (*print, job.id));
            }
            if t.jobs.values().filter(|j| j.state == JobState::Queued).count() as u64 >= room.all {
                return Err(StoreError::Full);
            }
            let row = Job {
                id: job.id,
                model: job.model,
                recipe: job.recipe.clone(),
                state: JobState::Queued,
                priority: job.priority,
                metadata: job.metadata.clone(),
                attempt: 0,
                max_attempts: 3,
                need_memory_bytes: job.need_memory_bytes,
                progress: Progress::default(),
                failure: None,
                artifacts: Vec::new(),
                created_at: job.created_at,
                started_at: None,
                finished_at: None,
                cancel_requested_at: None,
            };
            t.jobs.insert(job.id, row.clone());
            advance(t, job.id, JobState::Queued);
            Ok(Enqueued::New(row))
        })
    }

    fn add_search<'a>(&'a self, new: &'a NewSearch, room: Room) -> Reply<'a, Sought> {
        let mut search = new.search.clone();
        for (at, job) in &new.jobs {
            search.points[*at].job = Some(job.id);
            if let Some(Err(error)) = self.enqueue(job, room).now_or_never() {
                return self.run(|_| Err(error));
            }
        }
        self.run(|t| {
            t.searches.insert(search.id, search.clone());
            Ok(Sought::New(search))
        })
    }

    fn search(&self, id: SearchId) -> Reply<'_, Search> {
        self.run(|t| known(t.searches.get(&id)))
    }

    fn list_searches(&self, after: Option<SearchId>, limit: u32) -> Reply<'_, Vec<Search>> {
        self.run(|t| {
            let rows = t
                .searches
                .values()
                .rev()
                .filter(|s| after.is_none_or(|after| s.id < after));
            Ok(rows.take(limit as usize).cloned().collect())
        })
    }

    fn cancel_search(&self, id: SearchId) -> Reply<'_, Search> {
        self.run(|t| {
            let search = t.searches.get_mut(&id).ok_or(StoreError::NotFound)?;
            search.cancelled_at.get_or_insert_with(|| SystemClock.now());
            Ok(search.clone())
        })
    }

    fn job(&self, id: JobId) -> Reply<'_, Job> {
        self.run(|t| known(t.jobs.get(&id)))
    }

    fn list_jobs<'a>(&'a self, filter: &'a JobFilter) -> Reply<'a, Vec<Job>> {
        self.run(|t| {
            let rows = t.jobs.values().rev().filter(|j| {
                filter.state.is_none_or(|s| j.state == s)
                    && filter.model.is_none_or(|m| j.model == m)
                    && filter.after.is_none_or(|a| j.id < a)
            });
            Ok(rows.take(filter.limit as usize).cloned().collect())
        })
    }

    fn list_events(&self, id: JobId, after: u64, limit: u32) -> Reply<'_, Vec<Event>> {
        self.run(|t| {
            let rows = t.events.get(&id).into_iter().flatten().filter(|e| e.seq > after);
            Ok(rows.take(limit as usize).cloned().collect())
        })
    }

    fn cancel_job<'a>(&'a self, id: JobId, _reason: &'a str) -> Reply<'a, Job> {
        self.run(|t| {
            let job = known(t.jobs.get(&id))?;
            match job.state {
                JobState::Queued => advance(t, id, JobState::Cancelled),
                JobState::Running => {
                    t.jobs.get_mut(&id).expect("known").cancel_requested_at = Some(SystemClock.now());
                }
                JobState::Cancelled => {}
                JobState::Succeeded | JobState::Failed => {
                    return Err(StoreError::Conflict("the job is over".into()));
                }
            }
            known(t.jobs.get(&id))
        })
    }

    fn report(&self, id: JobId) -> Reply<'_, Document> {
        self.run(|t| known(t.reports.get(&id)))
    }

    fn artifact(&self, id: ArtifactId) -> Reply<'_, Artifact> {
        self.run(|t| known(t.artifacts.get(&id)))
    }

    fn list_artifacts<'a>(&'a self, filter: &'a ArtifactFilter) -> Reply<'a, Vec<Artifact>> {
        self.run(|t| Ok(artifacts(t, filter)))
    }

    fn overview(&self, since: time::OffsetDateTime) -> Reply<'_, Overview> {
        self.run(|t| Ok(overview(t, since)))
    }
}
