//! Jobs that are asked for at once are read at once.
//!
//! Owns: who waits for which job, and the statements they share.
//! Must not know: who asks.
//! Invariant: a job is read by a statement that began after it was asked for, so a reader sees what was written before;
//! what a tenant does not have it does not get, whoever asks beside it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::Rows;
use super::db::{Row, json};
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::{Job, JobId, Tenant};

/// Statements under way at once: while one is on its way the next one fills.
const STATEMENTS: usize = 2;
/// Jobs read by one.
const MOST: usize = 256;

/// Who waits for a job.
#[derive(Debug)]
struct Asked {
    job: JobId,
    tenant: Tenant,
    answer: oneshot::Sender<Result<Job, StoreError>>,
}

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Gather(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<Asked>,
    statements: usize,
}

impl Gather {
    /// Adds one who asks; whether somebody must begin to read.
    fn add(&self, asked: Asked) -> bool {
        let mut inner = self.lock();
        inner.waiting.push(asked);
        let begins = inner.statements < STATEMENTS;
        inner.statements += usize::from(begins);
        begins
    }

    /// Those that the next statement reads for; none when nobody waits, and then the reader ends.
    fn take(&self) -> Vec<Asked> {
        let mut inner = self.lock();
        let count = inner.waiting.len().min(MOST);
        if count == 0 {
            inner.statements -= 1;
        }
        inner.waiting.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a reader's place back when it panics.
struct Place<'a>(&'a Gather, bool);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.lock().statements -= 1;
        }
    }
}

impl Rows {
    pub(super) async fn find_job(&self, id: JobId) -> Result<Job, StoreError> {
        let (answer, found) = oneshot::channel();
        let begins = self.gather.add(Asked {
            job: id,
            tenant: self.tenant.clone(),
            answer,
        });
        if begins {
            // A task of its own: others wait for it too, and this request may be given up.
            tokio::spawn(self.clone().read_gathered());
        }
        let broken = |_closed| StoreError::Unavailable("the read broke off".to_owned());
        found.await.map_err(broken)?
    }

    async fn read_gathered(self) {
        let gather = self.gather.clone();
        let mut place = Place(&gather, true);
        loop {
            let asked = gather.take();
            if asked.is_empty() {
                place.1 = false;
                return;
            }
            let found = self.read_jobs(&asked).await;
            for one in asked {
                let answer = match &found {
                    Ok(jobs) => match jobs.get(&one.job) {
                        Some((tenant, job)) if *tenant == one.tenant => Ok(job.clone()),
                        _ => Err(StoreError::NotFound),
                    },
                    Err(error) => Err(alike(error)),
                };
                // Who has given up gets nothing.
                let _gone = one.answer.send(answer);
            }
        }
    }

    async fn read_jobs(&self, asked: &[Asked]) -> Result<HashMap<JobId, (Tenant, Job)>, StoreError> {
        let ids: HashSet<String> = asked.iter().map(|one| one.job.to_string()).collect();
        let rows = self.db.read().await?.all(&sql::JOBS_GET, &[json(&ids)?]).await?;
        let job = |row: &Row| -> Result<_, StoreError> {
            let job = self.job_of(row)?;
            Ok((job.id, (row.parsed("tenant")?, job)))
        };
        rows.iter().map(job).collect()
    }
}

/// The same error for one more of those it hit.
fn alike(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(text.clone()),
        other => StoreError::Internal(other.to_string()),
    }
}
