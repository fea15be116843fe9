//! Messages to webhooks on their way: written with the change they tell of, claimed, settled.
//!
//! Owns: what is told of a job's event; the transitions of table `webhook_delivery`.
//! Must not know: how a message is sent, when it is tried again.
//! Invariant: a message and the event it tells of are in one commit; an old fence settles nothing. The webhook's row is
//! locked before those of its messages, so that no two of these transactions wait for each other.

use std::time::Duration;

use serde_json::{Value, json as object};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Rows;
use super::db::{Arg, Row, Session, text};
use super::statement as sql;
use super::webhooks::{topics, webhook};
use crate::domain::ports::StoreError;
use crate::domain::queue::NewEvent;
use crate::domain::webhook::{DeliveryState, Due, Next, Ticket, Topic, Try, body, wants};
use crate::domain::{DeliveryId, EntryId, JobId, WebhookId};

/// Messages on their way to one webhook at a time.
const AT_ONCE: u32 = 4;
/// Longest text of a job's error or cancellation in a message: it is a notice, the job has it all.
const TEXT: usize = 2000;

/// Writes the messages that tell of these events of a job, if they are changes of its state.
pub(super) async fn tell(
    tx: &mut Session,
    job: JobId,
    events: &[NewEvent],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let told: Vec<(Topic, &Value)> = events
        .iter()
        .filter_map(|event| topic(event).map(|topic| (topic, &event.data)))
        .collect();
    if told.is_empty() {
        return Ok(());
    }
    for row in tx.all(&sql::WEBHOOK_TOLD, &[text(job)]).await? {
        let (id, chosen) = (row.parsed("id")?, topics(&row)?);
        let model = row.text("model_id")?;
        for (topic, data) in told.iter().filter(|(topic, _)| wants(&chosen, *topic)) {
            let delivery = DeliveryId::from_uuid(Uuid::now_v7());
            add_message(tx, delivery, id, *topic, &thin(job, &model, data), now).await?;
        }
    }
    Ok(())
}

fn topic(event: &NewEvent) -> Option<Topic> {
    let state = event.data.get("status").filter(|_| event.kind == "state")?;
    state.as_str()?.parse().ok().map(Topic::Job)
}

/// What a message says of a job: enough to ask for the rest.
fn thin(job: JobId, model: &str, data: &Value) -> Value {
    let mut said = object!({"object": "job", "id": job.to_string(), "model": model});
    for key in ["status", "attempt", "error", "reason"] {
        if let Some(value) = data.get(key) {
            said[key] = value.clone();
        }
    }
    for text in ["/error/message", "/reason"] {
        if let Some(Value::String(text)) = said.pointer_mut(text)
            && text.len() > TEXT
        {
            text.truncate(text.floor_char_boundary(TEXT));
            text.push('…');
        }
    }
    said
}

/// Writes one message, due at once.
pub(super) async fn add_message(
    tx: &mut Session,
    id: DeliveryId,
    webhook: WebhookId,
    topic: Topic,
    data: &Value,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let args = [
        text(id),
        text(webhook),
        topic.as_str().into(),
        body(topic, now, data).into(),
        now.into(),
    ];
    tx.run(&sql::DELIVERY_INSERT, &args).await?;
    Ok(())
}

impl Rows {
    pub(super) async fn take_delivery(&self, ttl: Duration) -> Result<Option<Due>, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.write().await?;
        let args = [(ttl.as_millis() as i64).into(), AT_ONCE.into()];
        let Some(row) = tx.one(&sql::DELIVERY_CLAIM, &args).await? else {
            return Ok(None);
        };
        let ticket = Ticket {
            delivery: row.parsed("id")?,
            webhook: row.parsed("webhook_id")?,
            fence: row.count("fence")?,
        };
        let to = tx.one(&sql::WEBHOOK_OF_ANY, &[text(ticket.webhook)]).await?;
        let to = to.ok_or(StoreError::NotFound)?;
        let webhook = webhook(&to)?;
        let number = row.small("tries")?;
        let due = Due {
            ticket,
            tenant: to.parsed("tenant")?,
            url: webhook.url,
            secrets: [webhook.secret]
                .into_iter()
                .chain(
                    webhook
                        .old_secret
                        .filter(|(_, until)| *until > now)
                        .map(|(old, _)| old),
                )
                .collect(),
            body: row.text("body")?,
            step: number.saturating_sub(row.small("tries_before")?),
            number,
        };
        tx.commit().await?;
        Ok(Some(due))
    }

    pub(super) async fn end_try(&self, ticket: Ticket, done: &Try, next: Next) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.write().await?;
        let Some(to) = tx.one(&sql::WEBHOOK_LOCK, &[text(ticket.webhook)]).await? else {
            return Ok(false);
        };
        let (state, wait) = match next {
            Next::Done => (DeliveryState::Succeeded, Duration::ZERO),
            Next::Again(wait) => (DeliveryState::Pending, wait),
            Next::GiveUp | Next::Gone => (DeliveryState::Failed, Duration::ZERO),
        };
        let ended = (state != DeliveryState::Pending).then_some(now);
        let args = [
            text(ticket.delivery),
            ticket.fence.into(),
            state.as_str().into(),
            (wait.as_millis() as i64).into(),
            ended.into(),
        ];
        let Some(row) = tx.one(&sql::DELIVERY_SETTLE, &args).await? else {
            tx.abandon().await?;
            return Ok(false);
        };
        log(&mut tx, ticket, done).await?;
        match next {
            Next::Done => {
                tx.run(&sql::WEBHOOK_SUCCESS, &[text(ticket.webhook), now.into()])
                    .await?;
            }
            Next::Gone => {
                self.disable(&mut tx, &to, ticket, "it answered 410 Gone").await?;
            }
            // Nothing at all got through while this message was tried, which is about three days.
            Next::GiveUp if to.maybe_time("last_success_at")? < Some(row.time("begun_at")?) => {
                let why = "nothing got through while a message was tried for as long as it is";
                self.disable(&mut tx, &to, ticket, why).await?;
            }
            Next::GiveUp | Next::Again(_) => {}
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Turns a webhook off, ends what waits for it, and says so in the audit log.
    async fn disable(&self, tx: &mut Session, to: &Row, ticket: Ticket, why: &str) -> Result<(), StoreError> {
        let now = self.clock.now();
        let args = [text(ticket.webhook), now.into(), why.into()];
        if tx.run(&sql::WEBHOOK_DISABLE, &args).await? == 0 {
            return Ok(());
        }
        tx.run(&sql::DELIVERY_END_ALL, &[text(ticket.webhook), now.into()])
            .await?;
        let entry = [
            text(EntryId::from_uuid(Uuid::now_v7())),
            to.text("tenant")?.into(),
            Arg::Text(None),
            format!("webhook.disabled: {why}").into(),
            text(ticket.webhook),
            text(ticket.delivery),
            Arg::Text(None),
            now.into(),
        ];
        tx.run(&sql::AUDIT_INSERT, &entry).await?;
        Ok(())
    }
}

async fn log(tx: &mut Session, ticket: Ticket, done: &Try) -> Result<(), StoreError> {
    let args = [
        text(ticket.delivery),
        done.number.into(),
        done.at.into(),
        (done.duration.as_millis() as u64).into(),
        done.status.map(i64::from).into(),
        done.response.as_deref().into(),
        done.error.as_deref().into(),
    ];
    tx.run(&sql::TRY_INSERT, &args).await?;
    Ok(())
}
