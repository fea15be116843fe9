//! Rows of jobs as the API sees them: enqueue, read, list, count.
//!
//! Owns: tables `job`, `job_body`, `idempotency` on their way in and out.
//! Must not know: leases.
//! Invariant: a job, its first event and its idempotency key appear in one commit; one key makes one job.

use serde_json::json as object;
use time::Duration;

use super::Rows;
use super::db::{Arg, Row, Session, json, text};
use super::events::{append, state_event};
use super::statement as sql;
use crate::domain::job::{Failure, Progress};
use crate::domain::model::hex;
use crate::domain::ports::{Counts, Enqueued, JobFilter, Room, StoreError};
use crate::domain::queue::Lease;
use crate::domain::{Job, JobId, JobState, ModelState, NewJob};

/// Attempts a job may have.
const MAX_ATTEMPTS: u32 = 3;
/// How long a repeated request finds its first answer.
const KEY_AGE: Duration = Duration::hours(24);
/// Sorts after every identifier.
pub(super) const LAST: &str = "~";

/// What an enqueue found in its way.
enum Way {
    Clear,
    Replay(JobId),
}

impl Rows {
    pub(super) async fn add_job(&self, job: &NewJob, room: Room) -> Result<Enqueued, StoreError> {
        let mut tx = self.db.write().await?;
        if let Way::Replay(id) = self.take_key(&mut tx, job).await? {
            return Ok(Enqueued::Replayed(self.load_job(&mut tx, id).await?));
        }
        let (id, is_new) = self.place(&mut tx, job).await?;
        if is_new {
            self.check_room(&mut tx, room).await?;
        } else if let Some((key, _)) = &job.idempotency {
            tx.run(&sql::IDEMPOTENCY_POINT, &[self.owned(key), text(id)])
                .await?;
        }
        let found = self.load_job(&mut tx, id).await?;
        tx.commit().await?;
        Ok(if is_new {
            Enqueued::New(found)
        } else {
            Enqueued::Duplicate(found)
        })
    }

    /// A job's rows and its first event; of equal work that is not over, the identifier. Its model must be ready, and is
    /// held with its datasets until the end of the transaction.
    pub(super) async fn place(&self, tx: &mut Session, job: &NewJob) -> Result<(JobId, bool), StoreError> {
        let model = tx
            .one(&sql::MODEL_SHARE, &[text(job.model), self.owner()])
            .await?;
        if model.ok_or(StoreError::NotFound)?.text("state")? != ModelState::Ready.as_str() {
            return Err(StoreError::Conflict(format!("model {} is a draft", job.model)));
        }
        self.hold_datasets(tx, &job.datasets).await?;
        if !self.insert(tx, job).await? {
            return Ok((self.equal_work(tx, job).await?, false));
        }
        tx.run(
            &sql::JOB_BODY_INSERT,
            &[text(job.id), json(&job.recipe)?, job.plan.as_str().into()],
        )
        .await?;
        for dataset in &job.datasets {
            tx.run(&sql::JOB_DATASET_INSERT, &[text(job.id), text(dataset)])
                .await?;
        }
        let event = state_event(JobState::Queued, "info", object!({}));
        append(tx, job.id, 1, &[event], job.created_at).await?;
        Ok((job.id, true))
    }

    /// The job is among those counted: it is in the transaction that ends when there is no room for it.
    pub(super) async fn check_room(&self, tx: &mut Session, room: Room) -> Result<(), StoreError> {
        let count = |row: Option<Row>| row.map_or(Ok(0), |row| row.count("waiting"));
        let waiting = tx.one(&sql::JOB_WAITING, &[(room.all + 1).into()]).await?;
        if count(waiting)? > room.all {
            return Err(StoreError::Full);
        }
        if let Some(most) = room.tenant {
            let args = [(most + 1).into(), self.owner()];
            if count(tx.one(&sql::JOB_WAITING_OF, &args).await?)? > most {
                return Err(StoreError::TenantFull(most));
            }
        }
        Ok(())
    }

    /// Claims the idempotency key, if there is one. A request with the same key that is under way makes this wait.
    async fn take_key(&self, tx: &mut Session, job: &NewJob) -> Result<Way, StoreError> {
        let Some((key, fingerprint)) = &job.idempotency else {
            return Ok(Way::Clear);
        };
        let (fingerprint, now) = (hex(fingerprint), self.clock.now());
        let key = || self.owned(key);
        tx.run(&sql::IDEMPOTENCY_DROP_EXPIRED, &[key(), now.into()])
            .await?;
        let args = [
            key(),
            fingerprint.as_str().into(),
            text(job.id),
            (now + KEY_AGE).into(),
        ];
        if tx.run(&sql::IDEMPOTENCY_TAKE, &args).await? == 1 {
            return Ok(Way::Clear);
        }
        let row = tx.one(&sql::IDEMPOTENCY_GET, &[key()]).await?;
        let row =
            row.ok_or_else(|| StoreError::Unavailable("idempotency key vanished; try again".to_owned()))?;
        if row.text("fingerprint")? != fingerprint {
            return Err(StoreError::KeyMismatch);
        }
        Ok(Way::Replay(row.parsed("job_id")?))
    }

    pub(super) async fn load_job(&self, session: &mut Session, id: JobId) -> Result<Job, StoreError> {
        let row = session.one(&sql::JOB_GET, &[text(id), self.owner()]).await?;
        self.job_of(&row.ok_or(StoreError::NotFound)?)
    }

    pub(super) async fn page_of_jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, StoreError> {
        let before = filter.after.map_or_else(|| LAST.to_owned(), |id| id.to_string());
        let mut args: Vec<Arg<'_>> = vec![before.into(), filter.limit.into()];
        args.extend(filter.model.map(text));
        args.extend(filter.state.map(|state| state.as_str().into()));
        args.push(self.owner());
        let statement = match (filter.model, filter.state) {
            (None, None) => &sql::JOB_LIST,
            (None, Some(_)) => &sql::JOB_LIST_STATE,
            (Some(_), None) => &sql::JOB_LIST_MODEL,
            (Some(_), Some(_)) => &sql::JOB_LIST_MODEL_STATE,
        };
        let rows = self.db.read().await?.all(statement, &args).await?;
        rows.iter().map(|row| self.job_of(row)).collect()
    }

    pub(super) async fn count_jobs(&self) -> Result<Counts, StoreError> {
        let rows = self.db.read().await?.all(&sql::JOB_COUNTS, &[]).await?;
        let mut counts = Counts::default();
        for row in &rows {
            let state = state(row)?;
            counts.jobs.push((state, row.count("jobs")?));
            if state == JobState::Queued {
                counts.oldest_queued_at = row.maybe_time("oldest_at")?;
            }
        }
        Ok(counts)
    }

    /// Inserts the hot row; false if a live job has its dedupe key.
    async fn insert(&self, tx: &mut Session, job: &NewJob) -> Result<bool, StoreError> {
        let args = [
            text(job.id),
            text(job.model),
            i64::from(job.priority).into(),
            MAX_ATTEMPTS.into(),
            job.need_memory_bytes.into(),
            json(&job.techniques)?,
            job.dedupe_key
                .as_deref()
                .map_or_else(|| Arg::Text(None), |key| self.owned(key)),
            json(&job.metadata)?,
            job.traceparent.as_deref().into(),
            job.created_at.into(),
            self.owner(),
        ];
        Ok(tx.run(&sql::JOB_INSERT, &args).await? == 1)
    }

    async fn equal_work(&self, tx: &mut Session, job: &NewJob) -> Result<JobId, StoreError> {
        let key = self.owned(job.dedupe_key.as_deref().unwrap_or_default());
        match tx.one(&sql::JOB_BY_DEDUPE, &[key]).await? {
            Some(row) => row.parsed("id"),
            // It ended between the two statements.
            None => Err(StoreError::Unavailable(
                "equal work has just ended; try again".to_owned(),
            )),
        }
    }

    /// A word of the tenant's own, which is nobody else's: a tenant's name holds no colon.
    pub(super) fn owned(&self, word: &str) -> Arg<'static> {
        text(format!("{}:{word}", self.tenant))
    }

    pub(super) async fn those_not_over(&self, jobs: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        let ids: Vec<String> = jobs.iter().map(ToString::to_string).collect();
        let rows = self.db.read().await?.all(&sql::JOBS_LIVE, &[json(&ids)?]).await?;
        rows.iter().map(|row| row.parsed("id")).collect()
    }

    pub(super) fn job_of(&self, row: &Row) -> Result<Job, StoreError> {
        let mut job = job(row)?;
        if job.state == JobState::Running {
            let lease = Lease {
                job: job.id,
                fence: row.count("fence")?,
            };
            if let Some(progress) = self.live.of(lease) {
                job.progress = progress;
            }
        }
        Ok(job)
    }
}

/// The state in a row.
pub(super) fn state(row: &Row) -> Result<JobState, StoreError> {
    row.parsed("state")
}

fn job(row: &Row) -> Result<Job, StoreError> {
    let failure = match row.maybe_text("error_code")? {
        Some(code) => Some(Failure {
            code,
            message: row.maybe_text("error_message")?.unwrap_or_default(),
        }),
        None => None,
    };
    let artifacts = row.maybe_text("artifacts")?.unwrap_or_default();
    let artifacts = artifacts.split(',').filter(|id| !id.is_empty());
    let damaged = |_e| StoreError::Internal("an artifact has a broken identifier".to_owned());
    Ok(Job {
        id: row.parsed("id")?,
        model: row.parsed("model_id")?,
        recipe: row.json("recipe")?,
        state: state(row)?,
        priority: i16::try_from(row.int("priority")?).unwrap_or_default(),
        metadata: row.json("metadata")?,
        attempt: row.small("attempt")?,
        max_attempts: row.small("max_attempts")?,
        need_memory_bytes: row.count("need_memory_bytes")?,
        progress: Progress {
            stage: row.maybe_text("stage")?,
            stage_index: row.small("stage_index")?,
            stages: row.small("stages")?,
            bytes_done: row.count("bytes_done")?,
            bytes_total: row.count("bytes_total")?,
            bytes_per_second: row.real("bytes_per_second")?,
        },
        failure,
        artifacts: artifacts
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(damaged)?,
        created_at: row.time("created_at")?,
        started_at: row.maybe_time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
        cancel_requested_at: row.maybe_time("cancel_requested_at")?,
    })
}
