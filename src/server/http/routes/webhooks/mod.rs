//! `/v1/webhooks`: who is told what happens to jobs.
//!
//! Owns: the wire forms of webhooks and of what was sent to them; the checks of what a request says about one.
//! Must not know: how messages are sent.
//! Invariant: a secret leaves once, in the answer that made it.

pub mod create;
pub mod delete;
pub mod deliveries;
pub mod get;
pub mod list;
pub mod replay;
pub mod rotate;
pub mod test;
pub mod update;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::webhook::{Topic, Try};
use crate::domain::{Delivery, Webhook};
use crate::http::auth::Caller;
use crate::http::problem::{Problem, shorten};

/// Most bytes of a URL.
const MAX_URL_BYTES: usize = 2000;
/// Most bytes of a description.
const MAX_DESCRIPTION_BYTES: usize = 500;

/// A webhook, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookOut {
    /// Identifier.
    #[schema(example = "whk_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `webhook`.
    #[schema(example = "webhook")]
    pub object: &'static str,
    /// Where messages go.
    #[schema(example = "https://example.com/hooks/modelpress")]
    pub url: String,
    /// What you say of it.
    #[schema(example = "nightly pipeline")]
    pub description: Option<String>,
    /// Which types of message it gets; all, if the list is empty.
    #[schema(example = json!(["job.succeeded", "job.failed"]))]
    pub events: Vec<&'static str>,
    /// `enabled` or `disabled`: nothing is sent to one that is disabled.
    #[schema(example = "enabled")]
    pub status: &'static str,
    /// Why it was disabled, by its owner or by the server.
    pub disabled_reason: Option<String>,
    /// When it was disabled.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    /// When a message last got through.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_success_at: Option<OffsetDateTime>,
    /// Until when the secret before signs too, while one is being rotated.
    #[serde(with = "time::serde::rfc3339::option")]
    pub old_secret_until: Option<OffsetDateTime>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its owner last changed it.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl WebhookOut {
    fn new(webhook: &Webhook, now: OffsetDateTime) -> Self {
        let disabled = webhook.disabled.as_ref();
        let overlap = webhook.old_secret.as_ref().map(|(_, until)| *until);
        Self {
            id: webhook.id.to_string(),
            object: "webhook",
            url: webhook.url.clone(),
            description: webhook.description.clone(),
            events: webhook.topics.iter().map(|topic| topic.as_str()).collect(),
            status: if disabled.is_some() { "disabled" } else { "enabled" },
            disabled_reason: disabled.map(|(_, why)| why.clone()),
            disabled_at: disabled.map(|(at, _)| *at),
            last_success_at: webhook.last_success_at,
            old_secret_until: overlap.filter(|until| *until > now),
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
    }
}

/// A webhook with a new secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewWebhookOut {
    /// What signs its messages. It is shown this once. The server keeps it readable, because it signs with it.
    #[schema(example = "whsec_…")]
    pub secret: String,
    /// The webhook.
    pub webhook: WebhookOut,
}

/// A message to a webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryOut {
    /// Identifier; `webhook-id` of every try.
    #[schema(example = "msg_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `webhook_delivery`.
    #[schema(example = "webhook_delivery")]
    pub object: &'static str,
    /// Where it goes.
    #[schema(example = "whk_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub webhook: String,
    /// Its type.
    #[schema(example = "job.succeeded")]
    pub event: &'static str,
    /// `pending`, `succeeded` or `failed`.
    #[schema(example = "succeeded")]
    pub status: &'static str,
    /// What is sent.
    #[schema(value_type = Object)]
    pub payload: Value,
    /// What came of each try, oldest first.
    pub attempts: Vec<DeliveryAttemptOut>,
    /// When it is tried next, while it is pending.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_attempt_at: Option<OffsetDateTime>,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// A try.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryAttemptOut {
    /// Counts from 1; one that is missing was begun by a server that died.
    #[schema(example = 1)]
    pub number: u32,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// How long it took.
    #[schema(example = 0.112)]
    pub duration_seconds: f64,
    /// The status of the answer; null if there was none.
    #[schema(example = 204)]
    pub status_code: Option<u16>,
    /// The first 1,024 bytes of the answer.
    pub response: Option<String>,
    /// Why it does not count as received.
    pub error: Option<String>,
}

impl From<&Delivery> for DeliveryOut {
    fn from(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            object: "webhook_delivery",
            webhook: delivery.webhook.to_string(),
            event: delivery.topic.as_str(),
            status: delivery.state.as_str(),
            payload: serde_json::from_str(&delivery.body).unwrap_or_default(),
            attempts: delivery.tries.iter().map(DeliveryAttemptOut::from).collect(),
            next_attempt_at: delivery.due_at,
            created_at: delivery.created_at,
            finished_at: delivery.finished_at,
        }
    }
}

impl From<&Try> for DeliveryAttemptOut {
    fn from(one: &Try) -> Self {
        Self {
            number: one.number,
            started_at: one.at,
            duration_seconds: one.duration.as_millis() as f64 / 1000.0,
            status_code: one.status,
            response: one.response.clone(),
            error: one.error.clone(),
        }
    }
}

/// The URL leads where messages may go, as far as can be seen now.
async fn check_url(state: &Caller, url: &str) -> Result<(), Problem> {
    if url.len() > MAX_URL_BYTES {
        let detail = format!("a URL has at most {MAX_URL_BYTES} bytes");
        return Err(Problem::field("/url", "too_long", detail));
    }
    let refused = |refused| Problem::field("/url", "url_not_allowed", format!("url {refused}"));
    let checked = state.outbound.policy().check_and_resolve(url).await;
    checked.map(|_| ()).map_err(refused)
}

fn check_description(description: Option<&str>) -> Result<(), Problem> {
    match description {
        Some(text) if text.len() > MAX_DESCRIPTION_BYTES || text.contains('\0') => {
            let detail = format!("a description has at most {MAX_DESCRIPTION_BYTES} bytes and no NUL");
            Err(Problem::field("/description", "invalid_value", detail))
        }
        _ => Ok(()),
    }
}

/// The types of message that a request names.
fn topics(words: &[String]) -> Result<Vec<Topic>, Problem> {
    let mut topics = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let unknown = |_e| {
            let detail = format!(
                "{} is no type of message; there are {}",
                shorten(word),
                Topic::words(&Topic::ALL, ", ")
            );
            Problem::field(format!("/events/{i}"), "unknown_event", detail)
        };
        let topic: Topic = word.parse().map_err(unknown)?;
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    Ok(topics)
}
