//! The ports of webhooks and pulls, call by call.
//!
//! Owns: which function answers which call, and that each has a time limit.
//! Must not know: how any of them does it.
//! Invariant: no call waits longer than the limit of `db::timed`.

use std::time::Duration;

use futures_util::FutureExt as _;
use time::OffsetDateTime;

use super::Rows;
use super::db::timed;
use crate::domain::ports::Reply;
use crate::domain::pull::{Leftovers, PullClaim, PullFile, PullTicket};
use crate::domain::webhook::{Change, Due, Next, Secret, Ticket, Try};
use crate::domain::{Delivery, DeliveryId, Failure, Hooks, ModelId, Outbox, Pulls, Webhook, WebhookId};

impl Hooks for Rows {
    fn insert_webhook<'a>(&'a self, webhook: &'a Webhook, most: u32) -> Reply<'a, ()> {
        timed(self.add_webhook(webhook, most)).boxed()
    }

    fn webhook(&self, id: WebhookId) -> Reply<'_, Webhook> {
        timed(self.find_webhook(id)).boxed()
    }

    fn list_webhooks(&self, after: Option<WebhookId>, limit: u32) -> Reply<'_, Vec<Webhook>> {
        timed(self.page_of_webhooks(after, limit)).boxed()
    }

    fn change_webhook<'a>(&'a self, id: WebhookId, change: &'a Change) -> Reply<'a, Webhook> {
        timed(self.alter_webhook(id, change)).boxed()
    }

    fn rotate_webhook<'a>(
        &'a self,
        id: WebhookId,
        secret: &'a Secret,
        until: OffsetDateTime,
    ) -> Reply<'a, Webhook> {
        timed(self.renew_secret(id, secret, until)).boxed()
    }

    fn delete_webhook(&self, id: WebhookId) -> Reply<'_, ()> {
        timed(self.remove_webhook(id)).boxed()
    }

    fn test_webhook(&self, id: WebhookId) -> Reply<'_, Delivery> {
        timed(self.add_test(id)).boxed()
    }

    fn list_deliveries(
        &self,
        id: WebhookId,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> Reply<'_, Vec<Delivery>> {
        timed(self.page_of_deliveries(id, after, limit)).boxed()
    }

    fn replay_delivery(&self, id: WebhookId, delivery: DeliveryId) -> Reply<'_, Delivery> {
        timed(self.send_again(id, delivery)).boxed()
    }
}

impl Outbox for Rows {
    fn claim_delivery(&self, ttl: Duration) -> Reply<'_, Option<Due>> {
        timed(self.take_delivery(ttl)).boxed()
    }

    fn settle_delivery<'a>(&'a self, ticket: Ticket, done: &'a Try, next: Next) -> Reply<'a, bool> {
        timed(self.end_try(ticket, done, next)).boxed()
    }
}

impl Pulls for Rows {
    fn claim_pull(&self, ttl: Duration) -> Reply<'_, Option<PullClaim>> {
        timed(self.take_pull(ttl)).boxed()
    }

    fn beat_pull(
        &self,
        ticket: PullTicket,
        ttl: Duration,
        files_done: u64,
        bytes_done: u64,
    ) -> Reply<'_, bool> {
        timed(self.keep_pull(ticket, ttl, files_done, bytes_done)).boxed()
    }

    fn plan_pull<'a>(
        &'a self,
        claim: &'a PullClaim,
        revision: &'a str,
        files: &'a [PullFile],
        expires_at: OffsetDateTime,
    ) -> Reply<'a, bool> {
        timed(self.set_pull_plan(claim, revision, files, expires_at)).boxed()
    }

    fn pull_files(&self, model: ModelId) -> Reply<'_, Vec<PullFile>> {
        timed(self.files_to_pull(model)).boxed()
    }

    fn release_pull<'a>(
        &'a self,
        ticket: PullTicket,
        wait: Duration,
        failures: u32,
        note: Option<&'a str>,
    ) -> Reply<'a, bool> {
        timed(self.give_pull_back(ticket, wait, failures, note)).boxed()
    }

    fn fail_pull<'a>(&'a self, claim: &'a PullClaim, failure: &'a Failure) -> Reply<'a, Option<Leftovers>> {
        timed(self.end_pull(claim, failure)).boxed()
    }

    fn free_pulls(&self) -> Reply<'_, ()> {
        timed(self.free_all_pulls()).boxed()
    }
}
