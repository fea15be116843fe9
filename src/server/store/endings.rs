//! Endings: finish, cancel, reap. The row is locked, [`domain::lease`](crate::domain::lease) decides, the row is
//! written.
//!
//! Owns: what each transition writes beside the state: attempt row, events, artifacts, report.
//! Must not know: the rules of the transitions.
//! Invariant: one commit a transition; an old fence and a job that is over change nothing.

use serde_json::{Value, json as object};
use time::OffsetDateTime;

use super::Rows;
use super::db::{Row, Session, text};
use super::events::{append, state_event};
use super::jobs::state;
use super::statement as sql;
use super::{artifacts, statement::Statement};
use crate::domain::lease::{Slot, Verdict, backoff_ms};
use crate::domain::ports::StoreError;
use crate::domain::queue::{End, Ending, Lease, NewEvent, QueueError, Reaped, Silent};
use crate::domain::{Failure, Job, JobId, JobState};

/// Jobs taken back in one transaction.
const REAP_BATCH: u32 = 100;

/// A job's row, locked until the end of the transaction.
struct Locked {
    job: JobId,
    slot: Slot,
    /// The database's clock.
    db_now: i64,
    worker: Option<String>,
    cancel_requested_at: Option<OffsetDateTime>,
    cancel_reason: Option<String>,
    event_seq: u64,
    need_memory_bytes: u64,
    peak_memory_bytes: u64,
}

/// Whether the same call may succeed when it is made again.
pub(super) fn may_try_again(error: &QueueError) -> bool {
    matches!(
        error,
        QueueError::Store(StoreError::Unavailable(_) | StoreError::NoSpace(_))
    )
}

impl Rows {
    pub(super) async fn cancel(&self, id: JobId, reason: &str) -> Result<Job, StoreError> {
        let mut tx = self.db.write().await?;
        self.load_job(&mut tx, id).await?;
        let mut locked = lock(&mut tx, &sql::JOB_LOCK, id)
            .await?
            .ok_or(StoreError::NotFound)?;
        let before = locked.slot;
        let Some(after) = before.cancel() else {
            let state = before.state.as_str();
            tx.abandon().await?;
            return Err(StoreError::Conflict(format!(
                "job {id} has {state} and cannot be cancelled"
            )));
        };
        if after != before {
            locked.cancel_requested_at = Some(self.clock.now());
            locked.cancel_reason = Some(reason.to_owned());
            let event = match after.state {
                JobState::Cancelled => state_event(after.state, "info", object!({"reason": reason})),
                _ => message("info", "cancellation was requested", object!({"reason": reason})),
            };
            self.write(&mut tx, &locked, after, None, &[event]).await?;
        }
        let job = self.load_job(&mut tx, id).await?;
        tx.commit().await?;
        Ok(job)
    }

    pub(super) async fn end_attempt(&self, lease: Lease, ending: &Ending) -> Result<JobState, QueueError> {
        let mut tx = self.db.write().await?;
        let mut locked = lock(&mut tx, &sql::JOB_LOCK, lease.job)
            .await?
            .ok_or(QueueError::Lost)?;
        let (verdict, failure) = verdict(&ending.end);
        let Some(after) = locked.slot.finish(lease.fence, verdict, locked.db_now) else {
            tx.abandon().await?;
            return already_published(&locked.slot, lease, verdict).ok_or(QueueError::Lost);
        };
        self.write_progress(&mut tx, lease, ending).await?;
        if let End::Succeeded(publication) | End::GateMissed(_, publication) = &ending.end {
            artifacts::publish(&mut tx, lease, publication).await?;
        }
        let outcome = match (verdict, after.state) {
            (Verdict::Released, JobState::Queued) => "released",
            (_, JobState::Queued | JobState::Running) => "retried",
            (_, over) => over.as_str(),
        };
        let peak = ending.peak_memory_bytes;
        self.end_attempt_row(&mut tx, lease, outcome, failure, peak)
            .await?;
        let mut events = ending.events.clone();
        events.push(ended(verdict, &locked.slot, &after, failure));
        let more = ending
            .next_memory_bytes
            .filter(|more| *more > locked.need_memory_bytes);
        if let (Some(more), JobState::Queued) = (more, after.state) {
            locked.need_memory_bytes = more;
            let data = object!({"memory_bytes": more});
            events.push(message(
                "info",
                "the next attempt has a worker's memory to itself",
                data,
            ));
        }
        let failure = failure.filter(|_| after.state == JobState::Failed);
        self.write(&mut tx, &locked, after, failure, &events).await?;
        tx.commit().await?;
        Ok(after.state)
    }

    pub(super) async fn take_back(&self, silent: Silent) -> Result<Vec<Reaped>, StoreError> {
        let until = match silent {
            Silent::Expired => None,
            Silent::Everyone => Some(i64::MAX),
        };
        let mut tx = self.db.write().await?;
        let rows = tx
            .all(&sql::JOB_SILENT, &[until.into(), REAP_BATCH.into()])
            .await?;
        let mut reaped = Vec::new();
        for row in &rows {
            let mut locked = locked(row)?;
            let mut wait = backoff_ms(locked.slot.attempt, (self.chance)());
            if silent == Silent::Everyone {
                (locked.slot.lease_until, wait) = (Some(locked.db_now), 0);
            }
            if let Some(after) = locked.slot.reap(locked.db_now, wait) {
                reaped.push(self.take_one_back(&mut tx, &locked, after).await?);
            }
        }
        tx.commit().await?;
        Ok(reaped)
    }

    async fn take_one_back(
        &self,
        tx: &mut Session,
        locked: &Locked,
        after: Slot,
    ) -> Result<Reaped, StoreError> {
        let lease = Lease {
            job: locked.job,
            fence: locked.slot.fence,
        };
        let failure = worker_lost(locked);
        self.end_attempt_row(tx, lease, "lost", Some(&failure), locked.peak_memory_bytes)
            .await?;
        let event = ended(Verdict::Retry(0), &locked.slot, &after, Some(&failure));
        let kept = Some(&failure).filter(|_| after.state == JobState::Failed);
        self.write(tx, locked, after, kept, &[event]).await?;
        self.live.forget(lease);
        Ok(Reaped {
            job: locked.job,
            state: after.state,
            worker: locked.worker.clone().unwrap_or_default(),
        })
    }

    /// Writes a transition and its events.
    async fn write(
        &self,
        tx: &mut Session,
        locked: &Locked,
        after: Slot,
        failure: Option<&Failure>,
        events: &[NewEvent],
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let last = locked.event_seq + events.len() as u64;
        let args = [
            text(locked.job),
            locked.slot.fence.into(),
            after.state.as_str().into(),
            after.attempt.into(),
            after.run_after.into(),
            after.lease_until.into(),
            locked.cancel_requested_at.into(),
            locked.cancel_reason.as_deref().into(),
            after.state.is_terminal().then_some(now).into(),
            failure.map(|failure| failure.code.as_str()).into(),
            failure.map(|failure| failure.message.as_str()).into(),
            last.into(),
            locked.need_memory_bytes.into(),
        ];
        if tx.run(&sql::JOB_WRITE, &args).await? != 1 {
            return Err(StoreError::Internal(format!(
                "job {} changed under its lock",
                locked.job
            )));
        }
        if after.state.is_terminal() {
            tx.run(&sql::CHECKPOINT_CLEAR, &[text(locked.job)]).await?;
        }
        append(tx, locked.job, last, events, now).await
    }

    async fn write_progress(
        &self,
        tx: &mut Session,
        lease: Lease,
        ending: &Ending,
    ) -> Result<(), StoreError> {
        let progress = &ending.progress;
        let args = [
            text(lease.job),
            lease.fence.into(),
            progress.stage.as_deref().into(),
            progress.stage_index.into(),
            progress.stages.into(),
            progress.bytes_done.into(),
            progress.bytes_total.into(),
            progress.bytes_per_second.into(),
            ending.peak_memory_bytes.into(),
        ];
        tx.run(&sql::JOB_PROGRESS, &args).await?;
        Ok(())
    }

    async fn end_attempt_row(
        &self,
        tx: &mut Session,
        lease: Lease,
        outcome: &str,
        failure: Option<&Failure>,
        peak_memory_bytes: u64,
    ) -> Result<(), StoreError> {
        let args = [
            text(lease.job),
            lease.fence.into(),
            self.clock.now().into(),
            outcome.into(),
            failure.map(|failure| failure.code.as_str()).into(),
            failure.map(|failure| failure.message.as_str()).into(),
            peak_memory_bytes.into(),
        ];
        tx.run(&sql::ATTEMPT_END, &args).await?;
        tx.run(&sql::PENDING_CLEAR, &[text(lease.job)]).await?;
        Ok(())
    }
}

async fn lock(
    tx: &mut Session,
    statement: &'static Statement,
    id: JobId,
) -> Result<Option<Locked>, StoreError> {
    let row = tx.one(statement, &[text(id)]).await?;
    row.as_ref().map(locked).transpose()
}

fn locked(row: &Row) -> Result<Locked, StoreError> {
    let cancel_requested_at = row.maybe_time("cancel_requested_at")?;
    Ok(Locked {
        job: row.parsed("id")?,
        slot: Slot {
            state: state(row)?,
            attempt: row.small("attempt")?,
            max_attempts: row.small("max_attempts")?,
            fence: row.count("fence")?,
            run_after: row.int("run_after")?,
            lease_until: row.maybe_int("lease_until")?,
            cancel_requested: cancel_requested_at.is_some(),
        },
        db_now: row.int("now")?,
        worker: row.maybe_text("worker")?,
        cancel_requested_at,
        cancel_reason: row.maybe_text("cancel_reason")?,
        event_seq: row.count("event_seq")?,
        need_memory_bytes: row.count("need_memory_bytes")?,
        peak_memory_bytes: row.count("peak_memory_bytes")?,
    })
}

fn verdict(end: &End) -> (Verdict, Option<&Failure>) {
    match end {
        End::Succeeded(_) => (Verdict::Succeeded, None),
        End::Failed(failure) | End::GateMissed(failure, _) => (Verdict::Failed, Some(failure)),
        End::Retry(failure, wait) => (Verdict::Retry(wait.as_millis() as u64), Some(failure)),
        End::Cancelled => (Verdict::Cancelled, None),
        End::Released => (Verdict::Released, None),
    }
}

/// The answer to a success whose first acknowledgement was lost on the way: only the holder of this fence can
/// have made the job succeed.
fn already_published(slot: &Slot, lease: Lease, verdict: Verdict) -> Option<JobState> {
    let same = slot.fence == lease.fence && slot.state == JobState::Succeeded;
    (same && verdict == Verdict::Succeeded).then_some(JobState::Succeeded)
}

/// The event of an attempt's end.
fn ended(verdict: Verdict, before: &Slot, after: &Slot, failure: Option<&Failure>) -> NewEvent {
    let mut data = object!({"attempt": before.attempt});
    let level = match after.state {
        JobState::Failed => "error",
        JobState::Queued if verdict != Verdict::Released => "warning",
        _ => "info",
    };
    if let Some(failure) = failure {
        data["error"] = object!({"code": failure.code, "message": failure.message});
    }
    if let (JobState::Queued, Verdict::Released) = (after.state, verdict) {
        data["released"] = true.into();
    }
    state_event(after.state, level, data)
}

/// Why a silent worker's job is taken back, with the numbers that tell a crash from a lack of memory.
fn worker_lost(locked: &Locked) -> Failure {
    let worker = locked.worker.as_deref().unwrap_or("unknown");
    let (need, peak) = (locked.need_memory_bytes, locked.peak_memory_bytes);
    let mut message = format!(
        "worker {worker} went silent during attempt {} of {}",
        locked.slot.attempt, locked.slot.max_attempts
    );
    if need > 0 && peak > need {
        message =
            format!("{message}; probably out of memory: it used {peak} bytes and the plan expected {need}");
    }
    Failure {
        code: "worker_lost".to_owned(),
        message,
    }
}

fn message(level: &'static str, text: &str, data: Value) -> NewEvent {
    NewEvent {
        kind: "message",
        level,
        message: text.to_owned(),
        data,
    }
}
