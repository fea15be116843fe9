//! Rows of histories.
//!
//! Owns: table `job_event` and the counter that numbers it.
//! Must not know: why something happened.
//! Invariant: the numbers of a job's events are 1, 2, 3, … in the order of their commits, and the messages that tell of
//! them are in the same commits.

use time::OffsetDateTime;

use super::Rows;
use super::db::{Row, Session, json, text};
use super::outbox::tell;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::queue::{Lease, NewEvent, QueueError};
use crate::domain::{Event, JobId, JobState};

impl Rows {
    pub(super) async fn events_after(
        &self,
        id: JobId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let args = [text(id), after.into(), limit.into(), self.owner()];
        let rows = self.db.read().await?.all(&sql::EVENT_LIST, &args).await?;
        rows.iter().map(event).collect()
    }

    pub(super) async fn add_events(&self, lease: Lease, events: &[NewEvent]) -> Result<(), QueueError> {
        let mut tx = self.db.write().await?;
        let last = reserve(&mut tx, lease, events.len()).await?;
        append(&mut tx, lease.job, last, events, self.clock.now()).await?;
        Ok(tx.commit().await?)
    }
}

/// Takes numbers for events of a running job; answers the last of them. Holds the job's row until the commit.
pub(super) async fn reserve(tx: &mut Session, lease: Lease, count: usize) -> Result<u64, QueueError> {
    let args = [text(lease.job), lease.fence.into(), (count as u64).into()];
    let row = tx.one(&sql::JOB_RECORD, &args).await?;
    Ok(row.ok_or(QueueError::Lost)?.count("event_seq")?)
}

/// Writes events whose last number is `last`, and what webhooks are told of them.
pub(super) async fn append(
    tx: &mut Session,
    job: JobId,
    last: u64,
    events: &[NewEvent],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let first = last + 1 - events.len() as u64;
    for (seq, event) in (first..).zip(events) {
        let args = [
            text(job),
            seq.into(),
            event.kind.into(),
            event.level.into(),
            event.message.as_str().into(),
            json(&event.data)?,
            now.into(),
        ];
        tx.run(&sql::EVENT_INSERT, &args).await?;
    }
    tell(tx, job, events, now).await
}

/// The event of a transition, in the words that clients look for.
pub(super) fn state_event(state: JobState, level: &'static str, mut data: serde_json::Value) -> NewEvent {
    if let Some(fields) = data.as_object_mut() {
        fields.insert("status".to_owned(), state.as_str().into());
    }
    NewEvent {
        kind: "state",
        level,
        message: format!("job is {}", state.as_str()),
        data,
    }
}

fn event(row: &Row) -> Result<Event, StoreError> {
    Ok(Event {
        seq: row.count("seq")?,
        at: row.time("created_at")?,
        kind: row.text("kind")?,
        level: row.text("level")?,
        message: row.text("message")?,
        data: row.json("data")?,
    })
}
