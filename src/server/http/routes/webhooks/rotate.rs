//! `POST /v1/webhooks/{id}/rotate`.

use axum::Json;
use serde::Deserialize;
use time::Duration;
use utoipa::ToSchema;

use super::{NewWebhookOut, WebhookOut};
use crate::domain::WebhookId;
use crate::domain::webhook::Secret;
use crate::http::auth::{May, WriteWebhooks};
use crate::http::input::Input;
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// How long both secrets sign unless the request says.
const OVERLAP_SECONDS: u32 = 24 * 3600;
/// The longest they may.
const MOST_SECONDS: u32 = 30 * 24 * 3600;

/// How to change over.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap_seconds": 3600}))]
pub struct WebhookRotateIn {
    /// Seconds for which the old secret signs too, up to 30 days.
    #[serde(default = "overlap")]
    #[schema(minimum = 0, maximum = 2_592_000, default = 86_400)]
    pub overlap_seconds: u32,
}

fn overlap() -> u32 {
    OVERLAP_SECONDS
}

/// Rotate a webhook's secret
///
/// Every message carries the signatures of both secrets for a while, so that the receiver can change over.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/rotate", tag = "webhooks", operation_id = "rotateWebhook",
    security(("key" = ["webhooks:write"])),
    params(("id" = String, Path, description = "The webhook", example = "whk_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    request_body = WebhookRotateIn,
    responses((status = 200, description = "The webhook, with its new secret", body = NewWebhookOut)),
    extensions(("x-problem-codes" = json!(["json_invalid", "body_truncated", "not_found", "too_large",
        "unsupported_media_type", "fields_invalid", "request_timeout"])))
)]
pub async fn rotate_webhook(
    May(state, ..): May<WriteWebhooks>,
    Id(id): Id<WebhookId>,
    input: Input<WebhookRotateIn>,
) -> Result<Json<NewWebhookOut>, Problem> {
    let seconds = input.value.overlap_seconds;
    if seconds > MOST_SECONDS {
        let detail = format!("the old secret signs for at most {MOST_SECONDS} seconds");
        return Err(Problem::field("/overlap_seconds", "out_of_range", detail));
    }
    let (now, secret) = (state.clock.now(), Secret::of(rand::random()));
    let until = now + Duration::seconds(i64::from(seconds));
    let rotated = state.hooks().rotate_webhook(id, &secret, until).await;
    let webhook = rotated.map_err(about("webhook", &id))?;
    tracing::info!(webhook = %id, tenant = %state.tenant, "secret of a webhook rotated");
    Ok(Json(NewWebhookOut {
        secret: secret.text(),
        webhook: WebhookOut::new(&webhook, now),
    }))
}
