//! What webhooks need of the database, as traits.
//!
//! Owns: the ports [`Hooks`] of one tenant and [`Outbox`] of whoever sends.
//! Must not know: SQL; how a message is sent.
//! Invariant: a message exists exactly if the change it tells of was committed, and is in one sender's hands at a time.

use std::time::Duration;

use time::OffsetDateTime;

use super::ports::Reply;
use super::webhook::{Change, Due, Next, Secret, Ticket, Try};
use super::{Delivery, DeliveryId, Webhook, WebhookId};

/// The webhooks of one tenant. Lists are newest first.
pub trait Hooks: Send + Sync + std::fmt::Debug {
    /// Records a webhook, unless the tenant has `most` already.
    fn insert_webhook<'a>(&'a self, webhook: &'a Webhook, most: u32) -> Reply<'a, ()>;
    /// One webhook.
    fn webhook(&self, id: WebhookId) -> Reply<'_, Webhook>;
    /// Webhooks made before `after`.
    fn list_webhooks(&self, after: Option<WebhookId>, limit: u32) -> Reply<'_, Vec<Webhook>>;
    /// Changes a webhook. One that is turned off ends what waits for it.
    fn change_webhook<'a>(&'a self, id: WebhookId, change: &'a Change) -> Reply<'a, Webhook>;
    /// Gives it another secret; the one before signs too, until then.
    fn rotate_webhook<'a>(
        &'a self,
        id: WebhookId,
        secret: &'a Secret,
        until: OffsetDateTime,
    ) -> Reply<'a, Webhook>;
    /// Deletes a webhook with its messages.
    fn delete_webhook(&self, id: WebhookId) -> Reply<'_, ()>;
    /// Writes a test message, whatever the webhook wants to hear of.
    fn test_webhook(&self, id: WebhookId) -> Reply<'_, Delivery>;
    /// Messages to a webhook, written before `after`.
    fn list_deliveries(
        &self,
        id: WebhookId,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> Reply<'_, Vec<Delivery>>;
    /// Sends a message again from the start of the schedule, whatever became of it.
    fn replay_delivery(&self, id: WebhookId, delivery: DeliveryId) -> Reply<'_, Delivery>;
}

/// The messages of all tenants, as a sender needs them.
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// Takes the next message that is due. If nothing is said about it within `ttl`, another sender may take it.
    fn claim_delivery(&self, ttl: Duration) -> Reply<'_, Option<Due>>;
    /// Says what came of it: the try, the message's state and the webhook's, in one transaction. False, and nothing is
    /// written, if the ticket is no longer good.
    fn settle_delivery<'a>(&'a self, ticket: Ticket, done: &'a Try, next: Next) -> Reply<'a, bool>;
}
