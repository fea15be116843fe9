//! Webhooks of the store in memory. Nobody sends what is written here.

use futures_util::FutureExt as _;
use modelpress_server::domain::ports::{Clock as _, Reply, StoreError, SystemClock};
use modelpress_server::domain::webhook::{Change, DeliveryState, Secret, Topic, body};
use modelpress_server::domain::{Delivery, DeliveryId, Hooks, Webhook, WebhookId};
use serde_json::json;
use time::OffsetDateTime;

use super::memory::MemoryStore;

impl MemoryStore {
    fn hook<'a, T: Send + 'a>(&self, id: WebhookId, work: impl FnOnce(&mut Webhook) -> T) -> Reply<'a, T> {
        let found = self.lock().webhooks.get_mut(&id).map(work);
        std::future::ready(found.ok_or(StoreError::NotFound)).boxed()
    }
}

impl Hooks for MemoryStore {
    fn insert_webhook<'a>(&'a self, webhook: &'a Webhook, _most: u32) -> Reply<'a, ()> {
        self.lock().webhooks.insert(webhook.id, webhook.clone());
        std::future::ready(Ok(())).boxed()
    }

    fn webhook(&self, id: WebhookId) -> Reply<'_, Webhook> {
        self.hook(id, |hook| hook.clone())
    }

    fn list_webhooks(&self, after: Option<WebhookId>, limit: u32) -> Reply<'_, Vec<Webhook>> {
        let tables = self.lock();
        let rows = tables.webhooks.values().rev();
        let rows = rows.filter(|hook| after.is_none_or(|after| hook.id < after));
        let page = rows.take(limit as usize).cloned().collect();
        std::future::ready(Ok(page)).boxed()
    }

    fn change_webhook<'a>(&'a self, id: WebhookId, change: &'a Change) -> Reply<'a, Webhook> {
        self.hook(id, |hook| {
            if let Some(url) = &change.url {
                hook.url.clone_from(url);
            }
            if let Some(description) = &change.description {
                hook.description.clone_from(description);
            }
            if let Some(topics) = &change.topics {
                hook.topics.clone_from(topics);
            }
            if let Some(enabled) = change.enabled {
                hook.disabled = (!enabled).then(|| (SystemClock.now(), "turned off".to_owned()));
            }
            hook.clone()
        })
    }

    fn rotate_webhook<'a>(
        &'a self,
        id: WebhookId,
        secret: &'a Secret,
        until: OffsetDateTime,
    ) -> Reply<'a, Webhook> {
        self.hook(id, |hook| {
            let old = std::mem::replace(&mut hook.secret, secret.clone());
            hook.old_secret = Some((old, until));
            hook.clone()
        })
    }

    fn delete_webhook(&self, id: WebhookId) -> Reply<'_, ()> {
        let gone = self.lock().webhooks.remove(&id);
        std::future::ready(gone.map(|_| ()).ok_or(StoreError::NotFound)).boxed()
    }

    fn test_webhook(&self, id: WebhookId) -> Reply<'_, Delivery> {
        self.hook(id, |hook| Delivery {
            id: hook
                .id
                .to_string()
                .replace("whk_", "msg_")
                .parse()
                .expect("an id"),
            webhook: hook.id,
            topic: Topic::Test,
            body: body(
                Topic::Test,
                SystemClock.now(),
                &json!({"object": "webhook", "id": hook.id.to_string()}),
            ),
            state: DeliveryState::Pending,
            due_at: Some(SystemClock.now()),
            created_at: SystemClock.now(),
            finished_at: None,
            tries: Vec::new(),
        })
    }

    fn list_deliveries(
        &self,
        id: WebhookId,
        _after: Option<DeliveryId>,
        _limit: u32,
    ) -> Reply<'_, Vec<Delivery>> {
        self.hook(id, |_hook| Vec::new())
    }

    fn replay_delivery(&self, _id: WebhookId, _delivery: DeliveryId) -> Reply<'_, Delivery> {
        std::future::ready(Err(StoreError::NotFound)).boxed()
    }
}
