//! Rows of webhooks and of what was sent to them, as their owner sees them.
//!
//! Owns: table `webhook`, tables `webhook_delivery` and `webhook_try` on their way out.
//! Must not know: what moves messages on their way.
//! Invariant: a webhook that is turned off has no message that waits.

use std::collections::HashMap;

use serde_json::json as object;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Rows;
use super::db::{Row, Session, json, text};
use super::jobs::LAST;
use super::outbox::add_message;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::webhook::{Change, Secret, Topic, Try};
use crate::domain::{Delivery, DeliveryId, Webhook, WebhookId};

impl Rows {
    pub(super) async fn add_webhook(&self, webhook: &Webhook, most: u32) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        let row = tx.one(&sql::WEBHOOK_COUNT, &[self.owner()]).await?;
        if row.map_or(Ok(0), |row| row.count("webhooks"))? >= u64::from(most) {
            return Err(StoreError::Conflict(format!(
                "the tenant has {most} webhooks, which is as many as may be; delete one"
            )));
        }
        let args = [
            text(webhook.id),
            self.owner(),
            webhook.url.as_str().into(),
            webhook.description.as_deref().into(),
            Topic::words(&webhook.topics, " ").into(),
            webhook.secret.text().into(),
            webhook.created_at.into(),
        ];
        tx.run(&sql::WEBHOOK_INSERT, &args).await?;
        tx.commit().await
    }

    pub(super) async fn find_webhook(&self, id: WebhookId) -> Result<Webhook, StoreError> {
        self.load_webhook(&mut self.db.read().await?, id).await
    }

    async fn load_webhook(&self, session: &mut Session, id: WebhookId) -> Result<Webhook, StoreError> {
        let row = session.one(&sql::WEBHOOK_GET, &[text(id), self.owner()]).await?;
        webhook(&row.ok_or(StoreError::NotFound)?)
    }

    /// Locks a webhook of the tenant.
    async fn own_webhook(&self, tx: &mut Session, id: WebhookId) -> Result<Webhook, StoreError> {
        self.load_webhook(tx, id).await?;
        let row = tx.one(&sql::WEBHOOK_LOCK, &[text(id)]).await?;
        webhook(&row.ok_or(StoreError::NotFound)?)
    }

    pub(super) async fn page_of_webhooks(
        &self,
        after: Option<WebhookId>,
        limit: u32,
    ) -> Result<Vec<Webhook>, StoreError> {
        let before = after.map_or_else(|| LAST.to_owned(), |id| id.to_string());
        let args = [before.into(), limit.into(), self.owner()];
        let rows = self.db.read().await?.all(&sql::WEBHOOK_LIST, &args).await?;
        rows.iter().map(webhook).collect()
    }

    pub(super) async fn alter_webhook(&self, id: WebhookId, change: &Change) -> Result<Webhook, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.write().await?;
        let before = self.own_webhook(&mut tx, id).await?;
        let disabled = match change.enabled {
            None => before.disabled,
            Some(true) => None,
            Some(false) => Some(before.disabled.unwrap_or_else(|| (now, "turned off".to_owned()))),
        };
        let topics = change.topics.as_ref().unwrap_or(&before.topics);
        let description = change.description.as_ref().unwrap_or(&before.description);
        let args = [
            text(id),
            change.url.as_deref().unwrap_or(&before.url).into(),
            description.as_deref().into(),
            Topic::words(topics, " ").into(),
            disabled.as_ref().map(|(at, _)| *at).into(),
            disabled.as_ref().map(|(_, why)| why.as_str()).into(),
            now.into(),
        ];
        tx.run(&sql::WEBHOOK_CHANGE, &args).await?;
        if disabled.is_some() {
            tx.run(&sql::DELIVERY_END_ALL, &[text(id), now.into()]).await?;
        }
        let after = self.load_webhook(&mut tx, id).await?;
        tx.commit().await?;
        Ok(after)
    }

    pub(super) async fn renew_secret(
        &self,
        id: WebhookId,
        secret: &Secret,
        until: OffsetDateTime,
    ) -> Result<Webhook, StoreError> {
        let mut tx = self.db.write().await?;
        self.own_webhook(&mut tx, id).await?;
        let args = [
            text(id),
            until.into(),
            secret.text().into(),
            self.clock.now().into(),
        ];
        tx.run(&sql::WEBHOOK_ROTATE, &args).await?;
        let after = self.load_webhook(&mut tx, id).await?;
        tx.commit().await?;
        Ok(after)
    }

    pub(super) async fn remove_webhook(&self, id: WebhookId) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        match tx.run(&sql::WEBHOOK_DELETE, &[text(id), self.owner()]).await? {
            0 => Err(StoreError::NotFound),
            _ => tx.commit().await,
        }
    }

    pub(super) async fn add_test(&self, id: WebhookId) -> Result<Delivery, StoreError> {
        let mut tx = self.db.write().await?;
        let webhook = self.own_webhook(&mut tx, id).await?;
        must_be_on(&webhook)?;
        let delivery = DeliveryId::from_uuid(Uuid::now_v7());
        let data = object!({"object": "webhook", "id": id.to_string()});
        add_message(&mut tx, delivery, id, Topic::Test, &data, self.clock.now()).await?;
        let delivery = load_delivery(&mut tx, id, delivery).await?;
        tx.commit().await?;
        Ok(delivery)
    }

    pub(super) async fn page_of_deliveries(
        &self,
        id: WebhookId,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut session = self.db.read().await?;
        self.load_webhook(&mut session, id).await?;
        let before = after.map_or_else(|| LAST.to_owned(), |id| id.to_string());
        let args = [text(id), before.into(), limit.into()];
        let rows = session.all(&sql::DELIVERY_LIST, &args).await?;
        with_tries(&mut session, &rows).await
    }

    pub(super) async fn send_again(
        &self,
        id: WebhookId,
        delivery: DeliveryId,
    ) -> Result<Delivery, StoreError> {
        let mut tx = self.db.write().await?;
        let webhook = self.own_webhook(&mut tx, id).await?;
        must_be_on(&webhook)?;
        let args = [text(delivery), text(id), self.clock.now().into()];
        if tx.run(&sql::DELIVERY_REPLAY, &args).await? == 0 {
            return Err(StoreError::NotFound);
        }
        let delivery = load_delivery(&mut tx, id, delivery).await?;
        tx.commit().await?;
        Ok(delivery)
    }
}

fn must_be_on(webhook: &Webhook) -> Result<(), StoreError> {
    let Some((_, why)) = &webhook.disabled else {
        return Ok(());
    };
    Err(StoreError::Conflict(format!(
        "webhook {} is disabled ({why}); enable it first",
        webhook.id
    )))
}

async fn load_delivery(
    session: &mut Session,
    webhook: WebhookId,
    id: DeliveryId,
) -> Result<Delivery, StoreError> {
    let rows = session
        .all(&sql::DELIVERY_GET, &[text(id), text(webhook)])
        .await?;
    let found = with_tries(session, &rows).await?;
    found.into_iter().next().ok_or(StoreError::NotFound)
}

async fn with_tries(session: &mut Session, rows: &[Row]) -> Result<Vec<Delivery>, StoreError> {
    let ids = rows
        .iter()
        .map(|row| row.text("id"))
        .collect::<Result<Vec<_>, _>>()?;
    let mut tries: HashMap<DeliveryId, Vec<Try>> = HashMap::new();
    for row in session.all(&sql::TRIES_OF, &[json(&ids)?]).await? {
        let of = row.parsed("delivery_id")?;
        tries.entry(of).or_default().push(one_try(&row)?);
    }
    rows.iter()
        .map(|row| delivery(row, tries.remove(&row.parsed("id")?).unwrap_or_default()))
        .collect()
}

/// A webhook in a row.
pub(super) fn webhook(row: &Row) -> Result<Webhook, StoreError> {
    let damaged = |column: &str| StoreError::Internal(format!("column {column} holds an unexpected value"));
    let old = match (row.maybe_text("old_secret")?, row.maybe_time("old_secret_until")?) {
        (Some(secret), Some(until)) => Some((secret.parse().map_err(|_e| damaged("old_secret"))?, until)),
        _ => None,
    };
    let disabled = match (row.maybe_time("disabled_at")?, row.maybe_text("disabled_reason")?) {
        (Some(at), Some(why)) => Some((at, why)),
        _ => None,
    };
    Ok(Webhook {
        id: row.parsed("id")?,
        url: row.text("url")?,
        description: row.maybe_text("description")?,
        topics: topics(row)?,
        secret: row.parsed("secret")?,
        old_secret: old,
        disabled,
        last_success_at: row.maybe_time("last_success_at")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

/// The words of a row.
pub(super) fn topics(row: &Row) -> Result<Vec<Topic>, StoreError> {
    let words = row.text("topics")?;
    let unknown = |word: &str| StoreError::Internal(format!("column topics holds {word}"));
    words
        .split_whitespace()
        .map(|word| word.parse().map_err(|_e| unknown(word)))
        .collect()
}

fn delivery(row: &Row, tries: Vec<Try>) -> Result<Delivery, StoreError> {
    let finished_at = row.maybe_time("finished_at")?;
    Ok(Delivery {
        id: row.parsed("id")?,
        webhook: row.parsed("webhook_id")?,
        topic: row.parsed("topic")?,
        body: row.text("body")?,
        state: row.parsed("state")?,
        due_at: row.maybe_time("due_at")?.filter(|_| finished_at.is_none()),
        created_at: row.time("created_at")?,
        finished_at,
        tries,
    })
}

fn one_try(row: &Row) -> Result<Try, StoreError> {
    let status = row.maybe_int("status")?;
    Ok(Try {
        number: row.small("number")?,
        at: row.time("started_at")?,
        duration: std::time::Duration::from_millis(row.count("duration_ms")?),
        status: status.and_then(|status| u16::try_from(status).ok()),
        response: row.maybe_text("response")?,
        error: row.maybe_text("error")?,
    })
}
