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
use super::db::{Row, Session, json, timed};
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::{Job, JobId, Tenant};

/// Jobs read by one statement. While one is on its way the next one fills; only when that is full do two go at once.
const MOST: usize = 128;
/// Statements on one connection before others get their turn with it.
const STATEMENTS: usize = 64;

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
        let begins = inner.statements == 0 || (inner.statements == 1 && inner.waiting.len() >= MOST);
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
        let (mut session, mut statements) = (None, 0);
        loop {
            // Whoever is about to ask does so first.
            tokio::task::yield_now().await;
            let asked = gather.take();
            if asked.is_empty() {
                place.1 = false;
                return;
            }
            statements += 1;
            if statements % STATEMENTS == 0 {
                session = None;
            }
            let found = timed(self.read_jobs(&mut session, &asked)).await;
            if found.is_err() {
                // Whatever is wrong with this connection, the next ones who ask get another.
                session = None;
            }
            answer(asked, &found);
        }
    }

    async fn read_jobs(
        &self,
        session: &mut Option<Session>,
        asked: &[Asked],
    ) -> Result<HashMap<JobId, (Tenant, Job)>, StoreError> {
        let ids: HashSet<String> = asked.iter().map(|one| one.job.to_string()).collect();
        let session = match session {
            Some(session) => session,
            none => none.insert(self.db.read().await?),
        };
        let rows = session.all(&sql::JOBS_GET, &[json(&ids)?]).await?;
        let job = |row: &Row| -> Result<_, StoreError> {
            let job = self.job_of(row)?;
            Ok((job.id, (row.parsed("tenant")?, job)))
        };
        rows.iter().map(job).collect()
    }
}

fn answer(asked: Vec<Asked>, found: &Result<HashMap<JobId, (Tenant, Job)>, StoreError>) {
    for one in asked {
        let answer = match found {
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

/// The same error for one more of those it hit.
fn alike(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(text.clone()),
        other => StoreError::Internal(other.to_string()),
    }
}
