//! `POST /v1/webhooks`.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{NewWebhookOut, WebhookOut, check_description, check_url, topics};
use crate::domain::webhook::Secret;
use crate::domain::{Webhook, WebhookId};
use crate::http::auth::{May, WriteWebhooks};
use crate::http::input::Input;
use crate::http::problem::Problem;

/// Most webhooks of a tenant: every change of every job looks at all of them.
const MOST: u32 = 50;

/// Where messages go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"url": "https://example.com/hooks/modelpress", "events": ["job.succeeded", "job.failed"]}))]
pub struct WebhookIn {
    /// Where to: `https://` on the public internet, or a host that the server's `outbound_allowed` names.
    pub url: String,
    /// What you say of it.
    pub description: Option<String>,
    /// Which types of message it gets; all unless given.
    #[serde(default)]
    #[schema(example = json!(["job.succeeded", "job.failed", "job.cancelled"]))]
    pub events: Vec<String>,
}

/// Create a webhook
///
/// The answer is the only one that holds its secret. Nothing is sent to try it: use `test`.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", operation_id = "createWebhook",
    security(("key" = ["webhooks:write"])),
    request_body = WebhookIn,
    responses((status = 201, description = "The webhook, with its secret", body = NewWebhookOut,
               headers(("Location" = String, description = "Where the webhook is")))),
    extensions(("x-problem-codes" = json!(["json_invalid", "body_truncated", "too_large", "unsupported_media_type",
        "fields_invalid", "conflict", "request_timeout"])))
)]
pub async fn create_webhook(
    May(state, ..): May<WriteWebhooks>,
    input: Input<WebhookIn>,
) -> Result<Response, Problem> {
    let asked = input.value;
    check_description(asked.description.as_deref())?;
    let topics = topics(&asked.events)?;
    check_url(&state, &asked.url).await?;
    let now = state.clock.now();
    let webhook = Webhook {
        id: WebhookId::from_uuid(uuid::Uuid::now_v7()),
        url: asked.url,
        description: asked.description,
        topics,
        secret: Secret::of(rand::random()),
        old_secret: None,
        disabled: None,
        last_success_at: None,
        created_at: now,
        updated_at: now,
    };
    state.hooks().insert_webhook(&webhook, MOST).await?;
    tracing::info!(webhook = %webhook.id, tenant = %state.tenant, "webhook made");
    let body = NewWebhookOut {
        secret: webhook.secret.text(),
        webhook: WebhookOut::new(&webhook, now),
    };
    let location = format!("/v1/webhooks/{}", webhook.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}
