//! The `webhooks` section of the OpenAPI document: what the server sends.
//!
//! Owns: the description of messages to webhooks.
//! Must not know: routes.
//! Invariant: every type of message is described, with an example made by the code that makes messages.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::domain::JobState;
use crate::domain::webhook::{Topic, body};

/// Adds the section and its schema.
pub fn describe(document: &mut Value) {
    document["components"]["schemas"]["WebhookMessage"] = json!({
        "type": "object",
        "description": "A message to a webhook: a notice, with enough in it to ask for the rest.",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "enum": Topic::ALL.map(Topic::as_str), "description": "What happened."},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": {
                "type": "object",
                "required": ["object", "id"],
                "description": "What it happened to.",
                "properties": {
                    "object": {"type": "string", "enum": ["job", "webhook"]},
                    "id": {"type": "string", "description": "Ask for it by this."},
                    "model": {"type": "string", "description": "The job's model."},
                    "status": {"type": "string", "enum": JobState::ALL.map(JobState::as_str)},
                    "attempt": {"type": "integer", "description": "The attempt that it is about."},
                    "error": {"type": "object", "description": "Why an attempt failed.", "properties": {
                        "code": {"type": "string"}, "message": {"type": "string"}}},
                    "reason": {"type": "string", "description": "Why it was cancelled."},
                },
            },
        },
    });
    let items = Topic::ALL.map(|topic| (topic.as_str().to_owned(), json!({"post": operation(topic)})));
    document["webhooks"] = Value::Object(Map::from_iter(items));
}

fn operation(topic: Topic) -> Value {
    let header = |name: &str, says: &str| json!({"name": name, "in": "header", "required": true, "description": says, "schema": {"type": "string"}});
    let id: String = topic
        .as_str()
        .split('.')
        .map(|word| word[..1].to_ascii_uppercase() + &word[1..])
        .collect();
    json!({
        "operationId": format!("on{id}"),
        "tags": ["webhooks"],
        "summary": summary(topic),
        "description": "Sent by the server. Check the signature before you believe it, answer 2xx within 15 seconds, \
                        and drop what you have had before by its `webhook-id`: a message may come more than once, and \
                        not in order.",
        "parameters": [
            header("webhook-id", "The message's id, the same over all tries."),
            header("webhook-timestamp", "When this try was made, in seconds since 1970. Refuse what is old."),
            header("webhook-signature", "`v1,` and the base64 of HMAC-SHA256 over `<id>.<timestamp>.<body>`; while a \
                    secret is being rotated two of them, separated by a blank."),
        ],
        "requestBody": {"required": true, "content": {"application/json": {
            "schema": {"$ref": "#/components/schemas/WebhookMessage"},
            "example": example(topic),
        }}},
        "responses": {
            "2XX": {"description": "It was received."},
            "410": {"description": "No more messages are wanted: the webhook is disabled."},
            "default": {"description": "It is sent again, for about three days; 429 and 503 may say when in `Retry-After`."},
        },
    })
}

fn summary(topic: Topic) -> &'static str {
    match topic {
        Topic::Job(JobState::Queued) => "A job waits",
        Topic::Job(JobState::Running) => "A worker has begun a job",
        Topic::Job(JobState::Succeeded) => "A job has succeeded",
        Topic::Job(JobState::Failed) => "A job has failed",
        Topic::Job(JobState::Cancelled) => "A job was cancelled",
        Topic::Test => "Somebody asked for a test",
    }
}

fn example(topic: Topic) -> Value {
    let data = match topic {
        Topic::Test => json!({"object": "webhook", "id": "whk_0193d0a67c1e7bd08d532f5a9f1d1c11"}),
        Topic::Job(state) => json!({"object": "job", "id": "job_0193d0a67c1e7bd08d532f5a9f1d1c11",
            "model": "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11", "status": state.as_str(), "attempt": 1}),
    };
    serde_json::from_str(&body(topic, OffsetDateTime::UNIX_EPOCH, &data)).unwrap_or_default()
}
