//! The loop that sends.
//!
//! Owns: how many are under way, how long an answer may take, what of it is kept.
//! Must not know: rows.
//! Invariant: the time for an answer is shorter than the claim holds, so that nobody else sends meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::sign::signatures;
use crate::domain::webhook::{Due, Try, next};
use crate::domain::{Clock, Outbox};
use crate::outbound::{Answer, Failed, Outbound};
use crate::queue::supervise::supervise;
use crate::queue::ticked;
use crate::queue::wake::Ear;
use crate::telemetry::Metrics;

/// Messages under way in this process.
const AT_ONCE: usize = 32;
/// How long a claim holds: an answer, and room for what is written before and after it.
const CLAIM: Duration = Duration::from_mins(1);
/// How long the other side may take.
const ANSWER: Duration = Duration::from_secs(15);
/// Bytes of an answer that are kept.
const KEPT: usize = 1024;
/// How long those under way may take at the end; what is left is sent again by whoever comes next.
const LAST: Duration = Duration::from_secs(5);

/// What sending needs.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The messages.
    pub outbox: Arc<dyn Outbox>,
    /// The way out.
    pub outbound: Outbound,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counts what came of it.
    pub metrics: Arc<Metrics>,
    /// Says that something may be due.
    pub wake: Arc<Notify>,
    /// A random number in [0, 1), for jitter.
    pub chance: fn() -> f64,
}

impl Sender {
    /// Sends what is due, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        supervise("deliver", || self.turns(&stop)).await;
    }

    async fn turns(&self, stop: &CancellationToken) {
        let mut under_way = JoinSet::new();
        while !stop.is_cancelled() {
            let ear = Ear::listen(&self.wake);
            self.take_all(&mut under_way).await;
            ticked(&self.metrics, self.clock.as_ref(), "deliver");
            tokio::select! {
                () = ear.wait(stop) => {}
                // A place is free, and the next one of the same webhook may go.
                Some(_) = under_way.join_next() => {}
            }
        }
        let rest = async { while under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST, rest).await.is_err() {
            tracing::info!("messages to webhooks left to whoever comes next");
        }
    }

    /// Begins everything that is due and for which there is a place.
    async fn take_all(&self, under_way: &mut JoinSet<()>) {
        while under_way.len() < AT_ONCE {
            match self.outbox.claim_delivery(CLAIM).await {
                Ok(Some(due)) => {
                    let sender = self.clone();
                    under_way.spawn(async move { sender.send(due).await });
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "messages to webhooks not looked for; trying again");
                    return;
                }
            }
        }
    }

    /// One try.
    async fn send(&self, due: Due) {
        let (at, begun) = (self.clock.now(), Instant::now());
        let answer = self.post(&due).await;
        let mut done = Try {
            number: due.number,
            at,
            duration: begun.elapsed(),
            status: None,
            response: None,
            error: None,
        };
        let mut retry_after = None;
        match answer {
            Ok(answer) => {
                retry_after = answer.retry_after;
                done.status = Some(answer.status);
                done.response = Some(answer.body);
                done.error = complaint(answer.status).map(str::to_owned);
            }
            Err(error) => done.error = Some(error.to_string()),
        }
        let next = next(due.step, done.status, retry_after, (self.chance)());
        let (delivery, webhook) = (due.ticket.delivery, due.ticket.webhook);
        let outcome = match self.outbox.settle_delivery(due.ticket, &done, next).await {
            Ok(true) => next.as_str(),
            Ok(false) => "lost",
            Err(error) => {
                tracing::warn!(%error, %delivery, %webhook, "a message was sent and that could not be written down; it will be sent again");
                "lost"
            }
        };
        self.metrics
            .webhook_deliveries
            .with_label_values(&[outcome])
            .inc();
        tracing::debug!(%delivery, %webhook, tenant = %due.tenant, number = done.number, status = done.status,
            error = done.error, outcome, "webhook tried");
    }

    async fn post(&self, due: &Due) -> Result<Answer, Failed> {
        let (id, timestamp) = (due.ticket.delivery.to_string(), self.clock.now().unix_timestamp());
        let headers = [
            (
                "webhook-signature",
                signatures(&due.secrets, &id, timestamp, &due.body),
            ),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-id", id),
        ];
        self.outbound
            .post(&due.url, &headers, due.body.clone(), ANSWER, KEPT)
            .await
    }
}

/// What is wrong with an answer that does not count.
fn complaint(status: u16) -> Option<&'static str> {
    match status {
        200..300 => None,
        300..400 => Some("redirects are not followed; give the webhook the URL that answers"),
        _ => Some("only an answer of 2xx counts as received"),
    }
}
