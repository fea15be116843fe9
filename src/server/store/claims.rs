//! Claims and beats: how a worker gets a job and keeps it.
//!
//! Owns: what a claim writes (state, fence, lease, attempt, event) and reads (plan, files): two statements.
//! Must not know: what an attempt computes, how often a worker beats.
//! Invariant: one claim a fence; lease times are by the database's clock.

use serde_json::json as object;
use time::OffsetDateTime;

use super::Rows;
use super::db::{Row, Session, json, text};
use super::events::state_event;
use super::models::file;
use super::outbox::tell;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::queue::{Beat, Checkpoint, Claim, Lease, Node, Pulse, QueueError};
use crate::domain::{Document, JobId, JobState, ModelId};

impl Rows {
    pub(super) async fn take_next(&self, node: &Node) -> Result<Option<Claim>, StoreError> {
        let now = self.clock.now();
        let args = [
            node.worker.as_str().into(),
            (node.ttl.as_millis() as i64).into(),
            node.memory_bytes.into(),
            json(&node.techniques)?,
            now.into(),
            node.most_of_tenant.unwrap_or(u64::MAX).into(),
            node.most_memory_bytes.into(),
            (node.patience.as_millis() as i64).into(),
        ];
        let mut tx = self.db.write().await?;
        if node.most_of_tenant.is_some() {
            tx.one(&sql::JOB_CLAIM_TURN, &[]).await?;
        }
        let Some(row) = tx.one(&sql::JOB_CLAIM, &args).await? else {
            return Ok(None);
        };
        let claim = claim(&mut tx, &row, node, now).await?;
        tx.commit().await?;
        Ok(Some(claim))
    }

    pub(super) async fn extend(&self, lease: Lease, beat: &Beat) -> Result<Pulse, QueueError> {
        let progress = &beat.progress;
        let args = [
            text(lease.job),
            lease.fence.into(),
            (beat.ttl.as_millis() as i64).into(),
            progress.stage.as_deref().into(),
            progress.stage_index.into(),
            progress.stages.into(),
            progress.bytes_done.into(),
            progress.bytes_total.into(),
            progress.bytes_per_second.into(),
            beat.peak_memory_bytes.into(),
        ];
        let mut tx = self.db.beat().await?;
        let row = tx.one(&sql::JOB_BEAT, &args).await?.ok_or(QueueError::Lost)?;
        let cancel_requested = row.maybe_int("cancel_requested_at")?.is_some();
        tx.commit().await?;
        Ok(Pulse { cancel_requested })
    }
}

async fn claim(tx: &mut Session, row: &Row, node: &Node, now: OffsetDateTime) -> Result<Claim, StoreError> {
    let (job, model): (JobId, ModelId) = (row.parsed("id")?, row.parsed("model_id")?);
    let mut claim = Claim {
        lease: Lease {
            job,
            fence: row.count("fence")?,
        },
        model,
        files: Vec::new(),
        datasets: Vec::new(),
        checkpoint: None,
        plan: Document::from_store(String::new()),
        attempt: row.small("attempt")?,
        max_attempts: row.small("max_attempts")?,
        need_memory_bytes: row.count("need_memory_bytes")?,
        traceparent: row.maybe_text("traceparent")?,
        created_at: row.time("created_at")?,
    };
    let data = object!({"attempt": claim.attempt, "worker": node.worker});
    let event = state_event(JobState::Running, "info", data);
    let args = [
        text(job),
        text(model),
        claim.lease.fence.into(),
        claim.attempt.into(),
        node.worker.as_str().into(),
        now.into(),
        claim.need_memory_bytes.into(),
        row.count("event_seq")?.into(),
        event.kind.into(),
        event.level.into(),
        event.message.as_str().into(),
        json(&event.data)?,
    ];
    let mut told = false;
    for part in tx.all(&sql::JOB_CLAIMED, &args).await? {
        match part.text("part")?.as_str() {
            "webhook" => told = true,
            name => add(&mut claim, name, &part)?,
        }
    }
    if told {
        tell(tx, job, &[event], now).await?;
    }
    if claim.plan.as_str().is_empty() {
        return Err(StoreError::Internal(format!("job {job} has no plan")));
    }
    Ok(claim)
}

/// Puts a row of what a claim brings where it belongs.
fn add(claim: &mut Claim, part: &str, row: &Row) -> Result<(), StoreError> {
    match part {
        "plan" => claim.plan = Document::from_store(row.text("plan")?),
        "model" => claim.files.push(file(row)?),
        "dataset" => {
            let id = row.parsed("dataset")?;
            match claim.datasets.last_mut().filter(|(last, _)| *last == id) {
                Some((_, files)) => files.push(file(row)?),
                None => claim.datasets.push((id, vec![file(row)?])),
            }
        }
        _ => {
            let fence = row.count("fence")?;
            let files = Vec::new();
            let checkpoint = claim.checkpoint.get_or_insert(Checkpoint { fence, files });
            checkpoint.files.push(file(row)?);
        }
    }
    Ok(())
}
